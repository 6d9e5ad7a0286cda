"""The classify tab with many texts: files, progress, pause and what is kept, against real servers."""

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from classifying import LABELS, STARS, TEXT, add_labels, ask
from playwright.sync_api import Dialog, Page, Route, expect
from serving import Server

PHONE = (360, 740)
TEXTS = [TEXT, "It rained all night.", 'He said "eat".\nThen he ate, and ate.', "", "Ünder the 😀 tree"]


@pytest.fixture
def tab(open_page: Callable[..., Page]) -> Page:
    """The tab, for a new visitor."""
    return open_page("#classify")


def write_csv(path: Path, texts: list[str] = TEXTS, encoding: str = "utf-8") -> Path:
    """A file of three columns, with everything in it that CSV allows."""
    out = io.StringIO(newline="")
    csv.writer(out).writerows([["id", "review", "label"], *([str(i), text, "old"] for i, text in enumerate(texts))])
    path.write_bytes(out.getvalue().encode(encoding))
    return path


def begin_job(page: Page, path: Path) -> None:
    """Choose the file and start."""
    page.get_by_label("Many texts").check()
    page.locator("input[type=file]").set_input_files(path)
    page.get_by_role("button", name=re.compile(r"^Classify [\d,]+ rows?$")).click()


def downloaded(page: Page) -> tuple[str, str]:
    """Name and content of the CSV."""
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download CSV").click()
    return waiting.value.suggested_filename, waiting.value.path().read_bytes().decode()


def rows_of(content: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content, newline=""), strict=True))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_gets_its_labels(tab: Page, web_server: Server, tmp_path: Path, encoding: str) -> None:
    add_labels(tab)
    begin_job(tab, write_csv(tmp_path / "reviews.csv", encoding=encoding))
    expect(tab.get_by_text("Done: 5 rows, 1 with an error.")).to_be_visible()
    name, content = downloaded(tab)
    assert name == "reviews.labelled.csv"
    assert content.startswith("\ufeff") == (encoding != "utf-8")  # who sends a mark needs one
    rows = rows_of(content.removeprefix("\ufeff"))
    assert [row["review"] for row in rows] == TEXTS
    assert [row["label"] for row in rows] == ["old"] * 5
    texts = [text for text in TEXTS if text]
    answers = iter(ask(web_server, texts, labels=LABELS))
    for row in rows:
        if not row["review"]:
            assert (row["label 2"], row["error"]) == ("", "There is no text in this row.")
            continue
        answer = next(answers)
        assert row["label 2"] == answer["label"]
        assert float(row["probability"]) == pytest.approx(max(answer["scores"].values()), abs=2e-3)
        assert {label: float(row[f"p({label})"]) for label in LABELS} == pytest.approx(answer["scores"], abs=2e-3)
        assert (row["cut off"], row["error"]) == ("no", "")
    tab.get_by_label("Rows", exact=True).select_option(label="With an error (1)")
    expect(tab.get_by_role("cell", name="There is no text in this row.")).to_be_visible()
    expect(tab.get_by_role("table").get_by_role("row")).to_have_count(2)


def test_a_classifiers_labels_for_pasted_cells(open_page: Callable[..., Page], star_server: Server) -> None:
    page = open_page("#classify", server=star_server)
    page.get_by_label("Many texts").check()
    page.get_by_label("Or paste texts").fill(f"id\tbody\n7\t{TEXT}\n8\tIt rained all night.\n")
    page.get_by_role("button", name="Read it").click()
    expect(page.get_by_label("Read as")).to_have_value("tsv")
    expect(page.get_by_label("Texts are in").locator("option:checked")).to_have_text("body")
    page.get_by_role("button", name="Classify 2 rows").click()
    expect(page.get_by_text("Done: 2 rows.")).to_be_visible()
    rows = rows_of(downloaded(page)[1])
    answers = ask(star_server, [TEXT, "It rained all night."])
    assert [row["label"] for row in rows] == [answer["label"] for answer in answers]
    assert {name for name in rows[0] if name.startswith("p(")} == {f"p({label})" for label in STARS}


def test_column_header_and_format_can_be_corrected(tab: Page) -> None:
    tab.get_by_label("Many texts").check()
    tab.get_by_label("Or paste texts").fill("short,a much longer sentence\nx,and another of these\n")
    tab.get_by_role("button", name="Read it").click()
    expect(tab.get_by_role("heading", name="pasted text")).to_be_focused()
    expect(tab.get_by_role("button", name="Classify 2 rows")).to_be_visible()
    tab.get_by_label("Read as").focus()
    tab.get_by_label("Read as").select_option("csv")
    named = tab.get_by_label("The first row has the columns’ names")
    expect(tab.get_by_label("Read as")).to_be_focused()  # though all of it was made anew
    named.set_checked(True)
    expect(tab.get_by_role("button", name="Classify 1 row")).to_be_visible()
    expect(named).to_be_focused()
    expect(tab.get_by_label("Texts are in").locator("option")).to_have_text(["short", "a much longer sentence"])
    named.set_checked(False)
    expect(tab.get_by_role("button", name="Classify 2 rows")).to_be_visible()
    tab.get_by_label("Read as").select_option("jsonl")
    expect(tab.get_by_text("Line 1 is no JSON")).to_be_visible()
    tab.get_by_role("button", name="Take another").click()
    expect(tab.get_by_label("Or paste texts")).to_be_visible()
    expect(tab.locator("input[type=file]")).to_be_focused()


def test_a_file_that_is_no_table_is_refused_in_words(tab: Page, tmp_path: Path) -> None:
    tab.get_by_label("Many texts").check()
    for name, content, message in [
        ("book.xlsx", b"PK\x03\x04....", "save it as CSV"),
        ("quote.csv", b'id,text\n1,"never closed\n2,b\n', "Line 2: the quote"),
        ("empty.csv", b"", "no text in it"),
    ]:
        path = tmp_path / name
        path.write_bytes(content)
        tab.locator("input[type=file]").set_input_files(path)
        expect(tab.get_by_role("alert").filter(has_text=message)).to_be_visible()
        if name != "book.xlsx":
            tab.get_by_role("button", name="Take another").click()


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
    calls: list[Route] = []

    def handle(route: Route) -> None:
        calls.append(route)
        if len(calls) != 2:  # the second one hangs
            route.fulfill(response=route.fetch())

    tab.route("**/classify", handle)
    add_labels(tab)
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
    calls: list[Route] = []

    def handle(route: Route) -> None:
        calls.append(route)
        if len(calls) != 2:  # the second one waits
            route.fulfill(response=route.fetch())

    tab.route("**/classify", handle)
    add_labels(tab)
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


def test_a_busy_server_is_waited_for_and_a_missing_model_told(tab: Page, tmp_path: Path, troubles: Any) -> None:
    troubles.allow("Failed to load resource")
    error = {"message": "The queue is full.", "type": "rate_limit_error", "param": None, "code": "queue_full"}
    gone = {"message": "There is no model such.", "type": "x", "param": "model", "code": "model_not_found"}
    replies = [(429, error), (404, gone)]

    def handle(route: Route) -> None:
        if not replies:
            route.fulfill(response=route.fetch())
            return
        status, body = replies.pop(0)
        route.fulfill(status=status, headers={"Retry-After": "2"}, body=json.dumps({"error": body}))

    tab.route("**/classify", handle)
    add_labels(tab)
    begin_job(tab, write_csv(tmp_path / "many.csv", ["One.", "Two."]))
    expect(tab.get_by_role("alert").filter(has_text="The queue is full. Trying again in 2 s.")).to_be_visible()
    expect(tab.get_by_role("alert").filter(has_text="There is no model such.")).to_be_visible()
    tab.get_by_role("button", name="Continue").click()
    expect(tab.get_by_text("Done: 2 rows.")).to_be_visible()


def test_failed_rows_can_be_asked_again(tab: Page, tmp_path: Path, troubles: Any) -> None:
    troubles.allow("400")
    broken = [True]

    def handle(route: Route) -> None:
        texts = json.loads(route.request.post_data or "")["input"]
        if broken[0] and "Two." in texts:
            error = {"message": "input[1]: can't be used", "type": "x", "param": "input[1]", "code": None}
            route.fulfill(status=400, body=json.dumps({"error": error}))
        else:
            route.fulfill(response=route.fetch())

    tab.route("**/classify", handle)
    add_labels(tab)
    begin_job(tab, write_csv(tmp_path / "few.csv", ["One.", "Two.", "Three."]))
    expect(tab.get_by_text("Done: 3 rows, 1 with an error.")).to_be_visible()
    expect(tab.get_by_role("cell", name="can't be used")).to_be_visible()
    broken[0] = False
    tab.get_by_role("button", name="Ask again for failed rows").click()
    expect(tab.get_by_text("Done: 3 rows.")).to_be_visible()
    tab.reload()
    expect(tab.get_by_text("Done: 3 rows.")).to_be_visible()
    assert all(row["label 2"] for row in rows_of(downloaded(tab)[1]))


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


def test_accessible_and_fitting_with_results(
    open_page: Callable[..., Page],
    check_accessible: Callable[[Page], None],
    check_fits: Callable[[Page], None],
    tmp_path: Path,
) -> None:
    page = open_page("#classify", size=PHONE)
    page.get_by_role("button", name="mood").click()
    page.get_by_text("Wording").click()
    page.get_by_role("button", name="Classify", exact=True).click()
    expect(page.get_by_role("list", name="Labels by probability")).to_be_visible()
    check_fits(page)
    check_accessible(page)
    page.get_by_label("Many texts").check()
    texts = [*TEXTS, "averyverylongwordwithoutanyspace" * 8]
    page.locator("input[type=file]").set_input_files(write_csv(tmp_path / "reviews.csv", texts))
    start = page.get_by_role("button", name="Classify 6 rows")
    expect(start).to_be_visible()
    check_fits(page)
    check_accessible(page)
    start.click()
    expect(page.get_by_text("Done: 6 rows, 1 with an error.")).to_be_visible()
    check_fits(page)
    check_accessible(page)
    page.get_by_role("button", name="Another job").click()
    expect(page.get_by_text("Kept in this browser")).to_be_visible()
    check_fits(page)
    check_accessible(page)


def test_labels_are_compared_with_a_column_that_has_the_right_ones(
    tab: Page, web_server: Server, tmp_path: Path
) -> None:
    texts = [text for text in TEXTS if text]
    given = [answer["label"] for answer in ask(web_server, texts, labels=LABELS)]
    known = [given[0], next(label for label in LABELS if label != given[1]), "", f" {given[3]} "]
    path = tmp_path / "known.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["text", "truth"], *zip(texts, known, strict=True)])
    add_labels(tab)
    tab.get_by_label("Many texts").check()
    tab.locator("input[type=file]").set_input_files(path)
    tab.get_by_label("Right labels are in").select_option(label="truth")
    tab.get_by_role("button", name="Classify 4 rows").click()
    expect(tab.get_by_text("As in the column “truth”: 2 of 3 rows (66.7 %).")).to_be_visible()
    tab.get_by_label("Rows", exact=True).select_option(label="Not as in “truth” (1)")
    expect(tab.get_by_role("table").get_by_role("row")).to_have_count(2)
    expect(tab.get_by_role("cell", name=f"{given[1]} (not {known[1]})")).to_be_visible()
