"""The classify tab with many texts: files, what is wrong with them, and what comes of them, against real servers."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from classifying import LABELS, STARS, TEXT, TEXTS, add_labels, ask, begin_job, downloaded, rows_of, write_csv
from playwright.sync_api import Page, Route, expect
from serving import Server

PHONE = (360, 740)


@pytest.fixture
def tab(open_page: Callable[..., Page]) -> Page:
    """The tab, for a new visitor."""
    return open_page("#classify")


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
