"""Write: a text goes on, and every token of it can be opened, judged and exchanged."""

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, Request, Route, expect
from serving import Server

PHONE = (360, 740)
BOUNDS = [1, 3, 5, 8, 12]


@pytest.fixture
def writing(open_page: Callable[..., Page]) -> Page:
    """The tab as a new visitor finds it, but for a temperature of 0."""
    page = open_page("#write")
    set_params(page, temperature="0", max_tokens="12")
    return page


def set_params(page: Page, **values: str) -> None:
    """Fill in parameters by their names in the API."""
    expect(page.locator(".write-settings")).to_be_visible()
    page.locator("details.write-settings, .write-settings details").evaluate_all(
        "(all) => all.forEach((e) => { e.open = true; })"
    )
    for name, value in values.items():
        page.locator(f".write-settings [name={name}]").fill(value)


def button(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


def write(page: Page, text: str | None = None) -> None:
    """Press Write and wait for the end."""
    if text is not None:
        page.get_by_label("Your text").fill(text)
    page.locator(".write-go").click()
    finished(page)


def finished(page: Page) -> None:
    expect(page.locator(".write-text")).to_have_attribute("aria-busy", "false")
    expect(button(page, "Write on")).to_be_visible()


def tokens(page: Page) -> Locator:
    return page.locator(".token")


def text_of(page: Page) -> str:
    return page.locator(".tokens").evaluate("(element) => element.textContent")


def asked(page: Page, path: str = "/generate") -> list[dict[str, Any]]:
    """The bodies of all requests to this path from now on."""
    bodies: list[dict[str, Any]] = []

    def note(request: Request) -> None:
        if request.url.endswith(path):
            bodies.append(request.post_data_json)

    page.on("request", note)
    return bodies


def ask(server: Server, path: str, **body: Any) -> Any:
    with server.client() as client:
        return client.post(path, json=body).raise_for_status().json()


def level(logprob: float) -> str:
    return str(sum(-logprob / math.log(2) >= bound for bound in BOUNDS))


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


def test_scoring_finds_the_chance_of_every_token(writing: Page, web_server: Server) -> None:
    text = "The old man sat in the boat, and the rhinoceros sang."
    answer = ask(web_server, "/v1/completions", prompt=text, max_tokens=0, echo=True, logprobs=0)
    logprobs = answer["choices"][0]["logprobs"]["token_logprobs"]
    writing.get_by_label("Your text").fill(text)
    button(writing, "Score").click()
    finished(writing)
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
    assert text_of(writing) == "Twice"
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


def test_an_empty_text_begins_with_the_models_own_mark(writing: Page) -> None:
    bodies = asked(writing)
    write(writing, "")
    assert bodies[0]["prompt"] == [0]
    expect(tokens(writing).first).to_have_attribute("data-source", "hidden")
    expect(tokens(writing).first).to_have_accessible_name("beginning of the text")
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


def test_alternatives_that_cant_be_had_and_texts_that_cant_be_scored(writing: Page, troubles: Any) -> None:
    troubles.allow("status of 429")
    error = {"message": "The queue is full.", "type": "rate_limit_error", "param": None, "code": "queue_full"}
    write(writing)
    writing.route("**/generate", lambda route: route.fulfill(status=429, json={"error": error}))
    tokens(writing).nth(1).click()
    expect(writing.get_by_role("dialog").get_by_role("alert")).to_have_text("The queue is full.")
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


def test_words_for_tokens_and_chances(open_page: Callable[..., Page]) -> None:
    page = open_page("#write")
    run = "async ([name, ...args]) => (await import('/page/lib/tokens.js'))[name](...args)"
    shown = {0: "0 %", 1: "100 %", 0.99999: "> 99.9 %", 0.5: "50 %", 0.041: "4.1 %", 0.0042: "0.42 %", 1e-9: "< 0.01 %"}
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
