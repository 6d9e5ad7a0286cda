"""Jobs over many texts: paused, cancelled, kept in the browser or not, and begun once."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from classifying import LABELS, add_labels, begin_job, downloaded, rows_of, write_csv
from playwright.sync_api import Dialog, Page, Route, expect


@pytest.fixture
def tab(open_page: Callable[..., Page]) -> Page:
    """The tab, for a new visitor."""
    return open_page("#classify")


def second_waits(tab: Page) -> list[Route]:
    """Two labels, and a second request that gets no answer until the test gives it; the requests, as they come."""
    calls: list[Route] = []

    def handle(route: Route) -> None:
        calls.append(route)
        if len(calls) != 2:
            route.fulfill(response=route.fetch())

    tab.route("**/classify", handle)
    add_labels(tab)
    return calls


def test_paused_work_outlives_the_page_and_nothing_is_asked_twice(tab: Page, tmp_path: Path) -> None:
    texts = [f"Text number {i} of the sea." for i in range(60)]
    asked: list[list[str]] = []
    held: list[Route] = []

    def handle(route: Route) -> None:
        asked.append(json.loads(route.request.post_data or "")["input"])
        if len(asked) == 2:
            held.append(route)
        else:
            route.fulfill(response=route.fetch())

    tab.route("**/classify", handle)
    add_labels(tab)
    begin_job(tab, write_csv(tmp_path / "many.csv", texts))
    expect(tab.get_by_role("progressbar")).to_have_attribute("value", "8")
    tab.get_by_role("button", name="Pause").click()
    expect(tab.get_by_text("Pausing after this batch…")).to_be_visible()
    expect(tab.get_by_role("progressbar")).to_have_attribute("value", "8")
    held[0].fulfill(response=held[0].fetch())
    expect(tab.get_by_text("Paused", exact=True)).to_be_visible()
    expect(tab.get_by_role("button", name="Continue")).to_be_focused()  # in the place of Pause
    first = rows_of(downloaded(tab)[1])
    done = [row["review"] for row in first if row["label 2"]]
    assert 8 < len(done) < 60
    assert done == [*asked[0], *asked[1]] == texts[: len(done)]
    tab.reload()
    expect(tab.get_by_role("progressbar")).to_have_attribute("value", str(len(done)))
    expect(tab.get_by_text("Paused", exact=True)).to_be_visible()
    assert rows_of(downloaded(tab)[1]) == first
    tab.get_by_label("Rows", exact=True).focus()  # its counts wait until nobody has it open
    tab.get_by_role("button", name="Continue").evaluate("(button) => button.click()")
    expect(tab.get_by_text("Done: 60 rows.")).to_be_visible()
    tab.get_by_role("button", name="Download CSV").focus()
    texts_of = tab.get_by_label("Rows", exact=True).locator("option").all_inner_texts()[1:]
    assert sum(int(re.findall(r"\((\d+)\)$", text)[0]) for text in texts_of) == 60
    whole = rows_of(downloaded(tab)[1])
    assert whole[: len(done)] == first[: len(done)]
    assert all(row["label 2"] in LABELS for row in whole)
    assert [text for batch in asked for text in batch] == texts


def test_cancelled_work_is_kept_can_go_on_and_be_deleted(tab: Page, tmp_path: Path) -> None:
    second_waits(tab)
    begin_job(tab, write_csv(tmp_path / "many.csv", [f"Text number {i}." for i in range(30)]))
    expect(tab.get_by_role("progressbar")).to_have_attribute("value", "8")
    tab.get_by_role("button", name="Cancel").click()
    expect(tab.get_by_text("Cancelled. What is done is kept.")).to_be_visible()
    assert sum(bool(row["label 2"]) for row in rows_of(downloaded(tab)[1])) == 8
    tab.get_by_role("button", name="Another job").click()
    expect(tab.get_by_text("8 of 30 rows")).to_be_visible()
    tab.get_by_role("button", name="Open many.csv").click()
    tab.get_by_role("button", name="Continue").click()
    expect(tab.get_by_text("Done: 30 rows.")).to_be_visible()
    tab.get_by_role("button", name="Another job").click()
    expect(tab.get_by_text("30 of 30 rows")).to_be_visible()
    expect(tab.locator("input[type=file]")).to_be_focused()
    tab.get_by_role("button", name="Open many.csv").click()
    expect(tab.get_by_role("heading", name="many.csv")).to_be_focused()
    tab.get_by_role("button", name="Another job").click()
    tab.once("dialog", lambda dialog: dialog.accept())
    tab.get_by_role("button", name="Delete many.csv").click()
    expect(tab.get_by_text("Kept in this browser")).to_be_hidden()
    expect(tab.locator("input[type=file]")).to_be_focused()


def test_a_job_that_another_window_deletes_is_told_and_leaves_nothing_behind(tab: Page, tmp_path: Path) -> None:
    calls = second_waits(tab)
    begin_job(tab, write_csv(tmp_path / "many.csv", [f"Text number {i}." for i in range(12)]))
    expect(tab.get_by_role("progressbar")).to_have_attribute("value", "8")
    other = tab.context.new_page()
    other.goto(tab.url)
    other.get_by_label("Many texts").check()
    other.once("dialog", lambda dialog: dialog.accept())
    other.get_by_role("button", name="Delete many.csv").click()
    expect(other.get_by_text("Kept in this browser")).to_be_hidden()
    calls[1].fulfill(response=calls[1].fetch())
    expect(tab.get_by_role("alert").filter(has_text="it was deleted in another window")).to_be_visible()
    expect(tab.get_by_text("Done: 12 rows.")).to_be_visible()
    kept = """async () => {
      const [{ name }] = await indexedDB.databases();
      const database = await new Promise((done) => (indexedDB.open(name).onsuccess = (event) => done(event.target.result)));
      const count = (store) => new Promise((done) => {
        database.transaction(store).objectStore(store).count().onsuccess = (event) => done(event.target.result);
      });
      return [name, await count("heads"), await count("bodies"), await count("results")];
    }"""
    name, *counts = other.evaluate(kept)
    assert ":/:" in name  # the path is in it: another server behind the same proxy has its own
    assert counts == [0, 0, 0]


def test_two_clicks_begin_one_job_and_formulas_stay_texts(tab: Page, tmp_path: Path) -> None:
    texts = ["=HYPERLINK(1)", "-5", "+a", "@b", "- so"]
    add_labels(tab)
    tab.get_by_label("Many texts").check()
    tab.locator("input[type=file]").set_input_files(write_csv(tmp_path / "few.csv", texts))
    start = tab.get_by_role("button", name="Classify 5 rows")
    start.evaluate("(button) => { button.click(); button.click(); }")
    expect(tab.get_by_text("Done: 5 rows.")).to_be_visible()
    rows = rows_of(downloaded(tab)[1])
    assert [row["review"] for row in rows] == ["'=HYPERLINK(1)", "-5", "'+a", "'@b", "'- so"]
    tab.get_by_role("button", name="Another job").click()
    expect(tab.get_by_role("button", name="Open few.csv")).to_have_count(1)


def test_a_browser_that_keeps_nothing_says_so(tab: Page, tmp_path: Path) -> None:
    tab.add_init_script("IDBFactory.prototype.open = () => { throw new Error('forbidden here'); };")
    tab.reload()
    add_labels(tab)
    begin_job(tab, write_csv(tmp_path / "few.csv", ["One.", "Two."]))
    expect(tab.get_by_role("alert").filter(has_text="can’t keep the job (forbidden here)")).to_be_visible()
    expect(tab.get_by_text("Done: 2 rows.")).to_be_visible()
    assert len(rows_of(downloaded(tab)[1])) == 2
    asked: list[str] = []

    def answer(dialog: Dialog) -> None:
        asked.append(dialog.message)
        if len(asked) == 1:
            dialog.dismiss()
        else:
            dialog.accept()

    tab.on("dialog", answer)
    tab.get_by_role("button", name="Another job").click()
    expect(tab.get_by_text("Done: 2 rows.")).to_be_visible()
    tab.get_by_role("button", name="Another job").click()
    expect(tab.get_by_label("Or paste texts")).to_be_visible()
    assert asked == ["This browser could not keep these results. Leave without downloading them?"] * 2
