"""Write: a text goes on, is scored, stopped, edited and kept."""

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect
from serving import Server
from writing import ask, asked, button, finished, level, open_writing, set_params, text_of, tokens, write

PHONE = (360, 740)


@pytest.fixture
def writing(open_page: Callable[..., Page]) -> Page:
    """The tab, ready to write."""
    return open_writing(open_page("#write"))


def test_what_is_written_is_the_models_and_coloured_by_its_surprise(writing: Page, web_server: Server) -> None:
    expected = ask(web_server, "/generate", prompt="Once upon a time", temperature=0, max_tokens=12, logprobs=10)
    write(writing)
    assert text_of(writing) == "Once upon a time" + expected["text"]
    own = writing.locator(".token[data-source=model]")
    assert own.all_text_contents() == [token["token"] for token in expected["logprobs"]]
    levels = [item.get_attribute("data-level") for item in own.all()]
    assert levels == [level(token["logprob"]) for token in expected["logprobs"]]
    assert len(set(levels)) > 1  # or the colours would show nothing
    expect(writing.get_by_role("status").filter(has_text="tokens/s")).to_contain_text("cut at the longest answer")


def test_scoring_finds_the_chance_of_every_token(writing: Page, web_server: Server) -> None:
    text = "The old man sat in the boat, and the rhinoceros sang."
    answer = ask(web_server, "/v1/completions", prompt=text, max_tokens=0, echo=True, logprobs=0)
    logprobs = answer["choices"][0]["logprobs"]["token_logprobs"]
    writing.get_by_label("Your text").fill(text)
    button(writing, "Score").click()
    finished(writing)
    expect(button(writing, "Score")).to_be_focused()
    expect(writing.locator(".token[data-level]")).to_have_count(len(logprobs) - 1)
    assert text_of(writing) == text
    levels = [item.get_attribute("data-level") for item in tokens(writing).all()]
    assert levels == [None, *(level(logprob) for logprob in logprobs[1:])]
    perplexity = math.exp(-sum(logprobs[1:]) / len(logprobs[1:]))
    expect(writing.get_by_role("status").filter(has_text="perplexity")).to_contain_text(f"perplexity {perplexity:.1f}")
    writing.get_by_label("Colour by surprise").uncheck()
    colours = [item.evaluate("(e) => getComputedStyle(e).backgroundColor") for item in tokens(writing).all()]
    assert set(colours) == {"rgba(0, 0, 0, 0)"}


def test_stop_ends_the_request_and_keeps_what_has_come(writing: Page, web_server: Server) -> None:
    set_params(writing, max_tokens="450")
    writing.get_by_label("Your text").fill("Once")
    writing.evaluate(
        """() => new MutationObserver((_, observer) => {
          if (!document.querySelector(".token[data-source=model]")) return;
          observer.disconnect();
          document.querySelector(".write-go").click();
        }).observe(document.querySelector(".tokens"), { childList: true, subtree: true })"""
    )
    button(writing, "Write").click()
    expect(writing.get_by_role("status").filter(has_text="Stopped.")).to_be_visible()
    web_server.wait_idle()
    count = tokens(writing).count()
    assert 1 < count < 400
    write(writing)
    assert tokens(writing).count() > count


def test_the_second_of_two_clicks_stops_nothing(writing: Page) -> None:
    button(writing, "Write").dblclick()
    finished(writing)
    expect(writing.get_by_role("status").filter(has_text="cut at the longest answer")).to_be_visible()


def test_editing_makes_a_new_step_only_when_something_changed(writing: Page) -> None:
    write(writing)
    before = text_of(writing)
    button(writing, "Edit").click()
    expect(writing.get_by_label("Your text")).to_have_value(before)
    button(writing, "Show tokens").click()
    assert writing.locator(".token[data-source=model]").count() == 12
    button(writing, "Edit").click()
    writing.get_by_label("Your text").fill("Twice")
    button(writing, "Show tokens").click()
    expect(writing.locator(".tokens")).to_have_text("Twice")  # the server is asked for its tokens first
    button(writing, "Undo").click()
    assert text_of(writing) == before
    button(writing, "Clear").click()
    expect(writing.get_by_label("Your text")).to_have_value("")
    button(writing, "Undo").click()
    assert text_of(writing) == before


def test_the_text_is_kept_in_the_browser(writing: Page) -> None:
    write(writing)
    text = text_of(writing)
    writing.reload()
    expect(writing.get_by_label("Your text")).to_have_value(text)
    writing.get_by_label("Your text").fill("Once")
    writing.evaluate(
        """() => new MutationObserver((_, observer) => {
          if (!document.querySelector(".token[data-source=model]")) return;
          observer.disconnect();
          location.reload();
        }).observe(document.querySelector(".tokens"), { childList: true, subtree: true })"""
    )
    with writing.expect_event("load"):
        button(writing, "Write").click()
    expect(writing.get_by_label("Your text")).to_have_value(re.compile("^Once.+", re.DOTALL))  # what had come by then


def test_an_empty_text_begins_with_the_models_own_mark(writing: Page) -> None:
    bodies = asked(writing)
    write(writing, "")
    assert bodies[0]["prompt"] == [0]
    expect(tokens(writing).first).to_have_attribute("data-source", "hidden")
    expect(tokens(writing).first).to_have_accessible_name("beginning of the text")
    tokens(writing).first.click()
    expect(button(writing, "Write anew from the start")).to_be_focused()
    writing.keyboard.press("Escape")
    text = text_of(writing)
    button(writing, "Edit").click()
    expect(writing.get_by_label("Your text")).to_have_value(text)


def test_a_text_that_fills_the_context_is_told_with_what_to_do(writing: Page) -> None:
    writing.get_by_label("Your text").fill("word " * 600)
    button(writing, "Write").click()
    alert = writing.get_by_role("alert").filter(has_text="reads at most 512")
    expect(alert).to_contain_text("Choose a token further up")
    tokens(writing).nth(300).click()
    bodies = asked(writing)
    writing.get_by_role("button", name="Keep it and write on from here").click()
    finished(writing)
    expect(alert).to_have_count(0)
    assert len(bodies[-1]["prompt"]) == 301
    assert tokens(writing).count() == 313
    set_params(writing, max_tokens="100000")  # cut to the room there is
    write(writing)
    assert bodies[-1]["max_tokens"] == 512 - 313
    expect(writing.get_by_role("status").filter(has_text="context is full")).to_be_visible()


def test_a_wrong_parameter_is_told_and_nothing_is_sent(writing: Page) -> None:
    set_params(writing, temperature="9")
    bodies = asked(writing)
    button(writing, "Write").click()
    expect(writing.get_by_role("alert").filter(has_text="Temperature: must be from 0 to 2")).to_be_visible()
    assert bodies == []


def test_a_server_that_is_gone_costs_no_text(writing: Page, troubles: Any) -> None:
    troubles.allow("ERR_CONNECTION_REFUSED|ERR_FAILED")
    write(writing)
    text = text_of(writing)
    writing.route("**/generate", lambda route: route.abort("connectionrefused"))
    writing.locator(".write-go").click()
    expect(writing.get_by_role("alert").filter(has_text="can't be reached")).to_be_visible()
    assert text_of(writing) == text
    writing.unroute("**/generate")
    write(writing)
    assert text_of(writing).startswith(text)


def test_behind_the_models_own_end_it_is_made_to_go_on(writing: Page) -> None:
    def end(route: Route) -> None:
        choice = {"id": 1, "token": "!", "bytes": [33], "logprob": -0.5, "text_offset": 0, "top_logprobs": []}
        last = '{"text":"","finish_reason":"stop","timings":{"tokens_per_second":null},"logprobs":[]}'
        body = f'data: {{"text":"!","logprobs":[{str(choice).replace(chr(39), chr(34))}]}}\n\ndata: {last}\n\ndata: [DONE]\n\n'
        route.fulfill(content_type="text/event-stream", body=body)

    writing.route("**/generate", end, times=1)
    write(writing)
    expect(writing.get_by_role("status").filter(has_text="The model ended the text here.")).to_be_visible()
    assert text_of(writing) == "Once upon a time!"
    bodies = asked(writing)
    write(writing)
    assert bodies[0]["min_tokens"] == 1
    write(writing)
    assert "min_tokens" not in bodies[1]


@pytest.mark.parametrize("size", [(1200, 800), PHONE], ids=["wide", "phone"])
def test_it_is_accessible_and_fits(
    open_page: Callable[..., Page],
    check_accessible: Callable[[Page], None],
    check_fits: Callable[[Page], None],
    size: tuple[int, int],
) -> None:
    page = open_page("#write", size=size)
    set_params(page, temperature="1.6", max_tokens="80", seed="3")  # all levels of surprise
    check_accessible(page)
    check_fits(page)
    page.get_by_label("Your text").fill("A" * 200 + " naïve 海\n")
    button(page, "Score").click()
    finished(page)
    write(page)
    levels = {item.get_attribute("data-level") for item in tokens(page).all()}
    assert {"0", "3", "5"} <= levels
    check_accessible(page)
    check_fits(page)
    tokens(page).nth(9).click()
    expect(page.locator(".alternative").first).to_be_visible()
    check_accessible(page)
    check_fits(page)
    box = page.get_by_role("dialog").bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= size[0]
    assert box["y"] + box["height"] <= size[1]
