"""Write: every token can be opened, judged and exchanged."""

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from serving import Server
from writing import ask, asked, button, finished, open_writing, text_of, tokens, write


@pytest.fixture
def writing(open_page: Callable[..., Page]) -> Page:
    """The tab, ready to write."""
    return open_writing(open_page("#write"))


def test_the_alternatives_are_the_models_with_their_chances(writing: Page, web_server: Server) -> None:
    expected = ask(web_server, "/generate", prompt="Once upon a time", temperature=0, max_tokens=12, logprobs=10)
    write(writing)
    token = expected["logprobs"][3]
    writing.locator(".token[data-source=model]").nth(3).click()
    rows = writing.get_by_role("dialog").locator(".alternative")
    expect(rows).to_have_count(10)
    shares = [
        float(row.locator(".share-bar > span").evaluate("(e) => e.style.getPropertyValue('--share')"))
        for row in rows.all()
    ]
    assert shares == pytest.approx([math.exp(choice["logprob"]) for choice in token["top_logprobs"]], abs=1e-9)
    names = [
        text.replace("␣", " ").replace("↵", "\n") for text in rows.locator(".alternative-text").all_text_contents()
    ]
    assert names == [choice["token"] for choice in token["top_logprobs"]]
    expect(writing.locator(".alternative[aria-current]")).to_have_count(1)
    expect(writing.get_by_role("dialog")).to_contain_text("the model’s choice no. 1")


def test_another_choice_goes_on_from_there_and_can_be_taken_back(writing: Page, web_server: Server) -> None:
    write(writing)
    before = text_of(writing)
    ids = ask(web_server, "/tokenize", prompt=before)["tokens"]  # spelt as it was written: the text is plain
    writing.locator(".token[data-source=model]").nth(2).click()
    rows = writing.get_by_role("dialog").locator(".alternative")
    name = rows.nth(1).locator(".alternative-text").text_content()
    bodies = asked(writing)
    rows.nth(1).click()
    finished(writing)
    given = writing.locator(".token[data-source=given]").count()
    chosen = writing.locator(".token[data-source=chosen]")
    expect(chosen).to_have_count(1)
    assert (chosen.text_content() or "").replace(" ", "␣") == name
    (body,) = bodies
    assert body["prompt"][:-1] == ids[: given + 2]
    assert body["prompt"][-1] != ids[given + 2]
    after = text_of(writing)
    assert (
        ask(web_server, "/generate", prompt=body["prompt"], temperature=0, max_tokens=12)["text"]
        == after.split(chosen.text_content() or "?", 1)[1]
    )
    expect(chosen).to_be_focused()

    button(writing, "Undo").click()
    assert text_of(writing) == before
    button(writing, "Redo").click()
    assert text_of(writing) == after
    button(writing, "Undo").click()
    button(writing, "Undo").click()
    assert text_of(writing) == "Once upon a time"
    expect(button(writing, "Undo")).to_be_disabled()
    expect(button(writing, "Undo")).to_be_focused()  # all the same


def test_parts_of_a_character_are_tokens_with_a_place_of_their_own(writing: Page, web_server: Server) -> None:
    text = "海 naïve\n"
    read = ask(web_server, "/tokenize", prompt=text)
    assert read["count"] > len(text), "the model was to need several tokens for a character"
    write(writing, text)
    expect(writing.locator(".token[data-source=given]")).to_have_count(read["count"])
    assert text_of(writing).startswith(text)
    part = writing.locator('.token[data-mark="·"]').nth(1)
    expect(part).to_have_accessible_name(re.compile("part of a character"))
    bodies = asked(writing)
    part.click()
    expect(writing.locator(".alternative").first).to_be_visible()
    assert [body["prompt"] for body in bodies] == [read["tokens"][:1]]  # just what stood before it, half a character
    writing.locator(".alternative").nth(2).click()
    finished(writing)
    assert bodies[-1]["prompt"][:-1] == read["tokens"][:1]


def test_a_token_of_ones_own_text_has_alternatives_too_but_the_first(writing: Page, web_server: Server) -> None:
    ids = ask(web_server, "/tokenize", prompt="Once upon a time")["tokens"]
    best = ask(web_server, "/generate", prompt=ids[:2], temperature=0, max_tokens=1, logprobs=1, ignore_eos=True)
    write(writing)
    tokens(writing).nth(2).click()
    first = writing.locator(".alternative-text").first
    assert (first.text_content() or "").replace("␣", " ") == best["logprobs"][0]["top_logprobs"][0]["token"]
    writing.keyboard.press("Escape")
    tokens(writing).nth(0).click()
    expect(writing.get_by_role("dialog").get_by_role("alert")).to_contain_text("Nothing stands before the first token")


def test_all_of_it_by_keyboard(writing: Page) -> None:
    area = writing.get_by_label("Your text")
    area.focus()
    writing.keyboard.press("Control+Enter")
    finished(writing)
    writing.locator(".write-go").focus()
    while writing.evaluate("document.activeElement.className") != "token":
        writing.keyboard.press("Tab")
    expect(tokens(writing).nth(0)).to_be_focused()
    for _ in range(6):
        writing.keyboard.press("ArrowRight")
    writing.keyboard.press("ArrowLeft")
    expect(tokens(writing).nth(5)).to_be_focused()
    writing.keyboard.press("Enter")
    expect(writing.locator(".alternative[aria-current]")).to_be_focused()
    writing.keyboard.press("Escape")
    expect(writing.get_by_role("dialog")).to_have_count(0)
    expect(tokens(writing).nth(5)).to_be_focused()
    before = text_of(writing)
    writing.keyboard.press(" ")
    expect(writing.locator(".alternative[aria-current]")).to_be_focused()
    writing.keyboard.press("ArrowDown")
    writing.keyboard.press("Enter")
    finished(writing)
    expect(tokens(writing).nth(5)).to_have_attribute("data-source", "chosen")
    assert text_of(writing) != before
    writing.keyboard.press("Control+z")
    assert text_of(writing) == before
    writing.keyboard.press("Control+End")
    expect(tokens(writing).last).to_be_focused()
    writing.keyboard.press("Home")
    expect(tokens(writing).last).not_to_be_focused()


def test_alternatives_that_cant_be_had_and_texts_that_cant_be_scored(writing: Page, troubles: Any) -> None:
    troubles.allow("status of 429")
    error = {"message": "The queue is full.", "type": "rate_limit_error", "param": None, "code": "queue_full"}
    write(writing)
    writing.route("**/generate", lambda route: route.fulfill(status=429, json={"error": error}))
    tokens(writing).nth(1).click()
    expect(writing.get_by_role("dialog").get_by_role("alert")).to_have_text("The queue is full.")
    expect(button(writing, "Keep it and write on from here")).to_be_focused()
    writing.keyboard.press("Escape")
    button(writing, "Edit").click()
    writing.get_by_label("Your text").fill("word " * 600)
    button(writing, "Score").click()
    expect(writing.get_by_role("alert").filter(has_text="reads at most 512")).to_contain_text("cut a part")


def test_another_scoring_forgets_another_models_alternatives(writing: Page) -> None:
    write(writing)
    bodies = asked(writing)
    writing.locator(".token[data-source=model]").nth(1).click()
    expect(writing.locator(".alternative").first).to_be_visible()
    assert bodies == []  # they came with the answer
    writing.keyboard.press("Escape")
    button(writing, "Score").click()
    finished(writing)
    writing.locator(".token[data-source=model]").nth(1).click()
    expect(writing.locator(".alternative").first).to_be_visible()
    assert len(bodies) == 1


def test_words_for_tokens_and_chances(open_page: Callable[..., Page]) -> None:
    page = open_page("#write")
    run = "async ([name, ...args]) => (await import('/page/lib/tokens.js'))[name](...args)"
    shown = {
        0: "0 %", 1: "100 %", 0.99999: "> 99.9 %", 0.9996: "> 99.9 %", 0.9989: "99.9 %", 0.996: "99.6 %", 0.995: "99.5 %",
        0.994: "99 %", 0.5: "50 %", 0.041: "4.1 %", 0.0042: "0.42 %", 1e-9: "< 0.01 %",
    }  # fmt: skip
    for value, expected in shown.items():
        assert page.evaluate(run, ["percent", value]) == expected
    labels = {" the": "␣the", "\n": "↵", "   ": "␣␣␣", "a b": "a b", "": "∅", "\ufffd": "\ufffd"}
    for text, expected in labels.items():
        assert page.evaluate(run, ["label", {"bytes": list(text.encode())}]) == expected
    assert page.evaluate(run, ["label", {"bytes": [0xE6, 0xB5]}]) == "‹e6 b5›"
    spelt = page.evaluate(run, ["spell", [{"bytes": [byte]} for byte in "é!".encode()] + [{"bytes": [0xFF]}]])
    assert [(item["text"], item["partial"]) for item in spelt] == [
        ("", True),
        ("é", False),
        ("!", False),
        ("\ufffd", False),
    ]
