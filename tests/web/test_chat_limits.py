"""The chat where something does not fit or fails: told in words, with what to do."""

import json
import re
from typing import Any

import pytest
from chatting import LONG, answers, ask, said, sent_bodies, setting, wait_answered
from playwright.sync_api import Page, expect


def test_too_long_a_message_says_what_to_do(chat: Page, troubles: Any) -> None:
    troubles.allow("status of 400")
    setting(chat, max_tokens=5)
    ask(chat, LONG)
    wait_answered(chat)
    box = answers(chat).get_by_role("alert")
    expect(box).to_contain_text(re.compile(r"has [\d,]+ tokens, and the model can read and write 512 in all"))
    box.get_by_role("button", name="Leave out the oldest messages").click()
    wait_answered(chat)
    expect(answers(chat).get_by_role("alert")).to_contain_text("too long even by itself")


def test_a_full_conversation_goes_on_without_its_oldest_messages(chat: Page, troubles: Any) -> None:
    troubles.allow("status of 400")
    bodies = sent_bodies(chat)
    setting(chat, max_tokens=10)
    half = LONG[: len(LONG) // 4]
    for text in (half, f"Second: {half}", f"Third: {half}", f"Fourth: {half}"):
        ask(chat, text)
        wait_answered(chat)
        if answers(chat).last.get_by_role("alert").count():
            break
    else:
        pytest.fail("the context is larger than this test thinks")
    chat.get_by_role("button", name="Leave out the oldest messages").click()
    wait_answered(chat)
    expect(answers(chat).last.get_by_role("alert")).to_have_count(0)
    assert answers(chat).last.locator(".text").inner_text()
    expect(chat.get_by_text("The model no longer reads what is above this line.")).to_be_visible()
    assert bodies[-1]["messages"][0]["role"] == "user"
    assert len(bodies[-1]["messages"]) < len(bodies[-2]["messages"])
    ask(chat, "And now?")
    wait_answered(chat)
    expect(answers(chat).last.get_by_role("alert")).to_have_count(0)


def test_the_longest_answer_is_a_bound_not_an_order(chat: Page, troubles: Any) -> None:
    """More than the context has room for is no mistake: what room there is is used."""
    troubles.allow("status of 400")
    setting(chat, max_tokens=600, temperature=1)
    ask(chat, "Tell me everything.")
    wait_answered(chat)
    expect(answers(chat).get_by_role("alert")).to_have_count(0)
    assert answers(chat).locator(".text").inner_text()


def test_a_wrong_parameter_is_told_beside_its_field_and_before_sending(chat: Page) -> None:
    setting(chat, top_p=3)
    bodies = sent_bodies(chat)
    ask(chat, "Hello")
    expect(chat.get_by_role("alert").filter(has_text="Top p: must be from 0.01 to 1")).to_be_visible()
    expect(chat.get_by_label("Message", exact=True)).to_have_value("Hello")
    assert bodies == []
    chat.get_by_role("button", name="Settings", exact=True).click()
    field = chat.locator(".settings [name=top_p]")
    expect(field).to_have_attribute("aria-invalid", "true")
    chat.get_by_role("button", name="Reset these").click()
    expect(field).to_have_value("1")
    ask(chat, "Hello")
    wait_answered(chat)
    assert len(bodies) == 1


def test_a_server_that_goes_away_is_told_where_the_answer_was_to_be(chat: Page, troubles: Any) -> None:
    troubles.allow("Failed to load resource")
    chat.route("**/v1/chat/completions", lambda route: route.abort())
    ask(chat, "Is anybody there?")
    wait_answered(chat)
    expect(answers(chat).get_by_role("alert")).to_contain_text("The server can't be reached")
    chat.unroute("**/v1/chat/completions")
    chat.get_by_role("button", name="Try again").click()
    wait_answered(chat)
    expect(answers(chat).get_by_role("alert")).to_have_count(0)


def test_a_stream_that_breaks_off_keeps_what_came(chat: Page) -> None:
    event = (
        'data: {"model": "m", "choices": [{"index": 0, "delta": {"content": "Half an"}, "finish_reason": null}]}\n\n'
    )
    chat.route(
        "**/v1/chat/completions",
        lambda route: route.fulfill(status=200, content_type="text/event-stream", body=event),
    )
    ask(chat, "Hello")
    wait_answered(chat)
    expect(answers(chat).locator(".text")).to_have_text("Half an")
    expect(answers(chat).get_by_role("alert")).to_contain_text("broke off")


def test_text_of_a_model_is_never_html(chat: Page) -> None:
    text = "<img src=x onerror=alert(1)> **bold** `<b>`\n\n```py\nprint('<i>')\n```\n- one\n- two"
    chunk = {"model": "m", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": "stop"}]}
    body = f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n"
    chat.route(
        "**/v1/chat/completions",
        lambda route: route.fulfill(status=200, content_type="text/event-stream", body=body),
    )
    ask(chat, "<b>me too</b>")
    wait_answered(chat)
    shown = answers(chat).locator(".text")
    expect(shown).to_contain_text("<img src=x onerror=alert(1)>")
    expect(shown.locator("img, b, i")).to_have_count(0)
    expect(shown.locator("strong")).to_have_text("bold")
    expect(shown.locator("pre code")).to_have_text("print('<i>')")
    expect(shown.locator("li")).to_have_text(["one", "two"])
    assert said(chat) == ["<b>me too</b>"]
