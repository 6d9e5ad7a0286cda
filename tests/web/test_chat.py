"""The chat in a real browser, against a real server: what a person does there, by mouse and by keyboard."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chatting import LONG, answers, ask, reach, said, sent_bodies, setting, slow_answer, wait_answered
from oracle import make_adapters
from playwright.sync_api import Page, expect
from serving import ROOT, Server, wait_for

PHONE = (360, 740)


def test_an_answer_streams_in_and_tells_its_cost(chat: Page) -> None:
    bodies = sent_bodies(chat)
    setting(chat, max_tokens=30, temperature=0, min_p=0.1, stop="zebra\nquagga")
    ask(chat, "Tell me about the sea.")
    wait_answered(chat)
    expect(answers(chat)).to_have_count(1)
    expect(answers(chat).locator(".speaker")).to_have_text("homegrown-base")
    expect(answers(chat).locator(".meta")).to_have_text(
        re.compile(r"^\d+ tokens? · [\d,.]+ tokens/s · first after [\d.]+ s$")
    )
    expect(chat.get_by_text(re.compile(r"^\d+ of 512 tokens used$"))).to_be_visible()
    body = bodies[0]
    assert body["messages"] == [{"role": "user", "content": "Tell me about the sea."}]
    assert (body["max_tokens"], body["temperature"], body["min_p"]) == (30, 0, 0.1)
    assert body["stop"] == ["zebra", "quagga"]
    assert not {"seed", "model"} & set(body)  # left to the server


def test_what_is_shown_is_what_the_server_answers(chat: Page, web_server: Server) -> None:
    setting(chat, max_tokens=40, temperature=0)
    ask(chat, "What did the old woman say?")
    wait_answered(chat)
    messages = [{"role": "user", "content": "What did the old woman say?"}]
    with web_server.client() as client:
        body = {"messages": messages, "max_tokens": 40, "temperature": 0, "top_p": 1}
        answer = client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]
    kept = chat.evaluate("Object.values(localStorage).join('')")
    assert json.dumps(answer, ensure_ascii=False)[1:-1] in kept


def test_an_adapter_can_be_chosen_and_answers(
    open_page: Callable[..., Page], make_web_server: Callable[..., Server], tmp_path: Path
) -> None:
    make_adapters(ROOT / "checkpoints" / "homegrown-base", tmp_path)
    server = make_web_server(adapters_dir=tmp_path, max_slots=2)
    page = open_page("#chat", server=server)
    picker = page.get_by_label("Model", exact=True)
    expect(picker.get_by_role("option")).to_have_text(["Server’s choice", "homegrown-base", "one", "two"])
    setting(page, max_tokens=12, temperature=0)
    with server.client() as client:
        for name in ("one", "two"):
            picker.select_option(name)
            page.get_by_role("button", name="New conversation").click()
            ask(page, "Tell me.")
            wait_answered(page)
            expect(answers(page).locator(".speaker")).to_have_text(name)
            messages = [{"role": "user", "content": "Tell me."}]
            body = {"model": name, "messages": messages, "max_tokens": 12, "temperature": 0}
            answer = client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]
            kept = page.evaluate("Object.values(localStorage).join('')")
            assert json.dumps(answer, ensure_ascii=False)[1:-1] in kept
    server.stop()


def test_stop_ends_the_request_and_keeps_what_is_there(chat: Page, web_server: Server) -> None:
    slow_answer(chat)
    expect(answers(chat).locator(".text")).to_contain_text("Once")
    chat.get_by_role("button", name="Stop").click()
    wait_answered(chat)
    expect(answers(chat)).to_contain_text("Stopped.")
    expect(answers(chat).locator(".text")).to_contain_text("Once")
    assert chat.evaluate("window.cancelled") is True


def test_escape_stops_and_enter_waits_while_an_answer_is_written(chat: Page) -> None:
    slow_answer(chat)
    ask(chat, "And another thing")
    expect(chat.get_by_role("alert").filter(has_text="Wait for its end or stop it")).to_be_visible()
    chat.keyboard.press("Escape")
    wait_answered(chat)
    expect(chat.get_by_label("Message", exact=True)).to_have_value("And another thing")
    assert said(chat) == ["A long one, please."]


def test_scrolling_follows_the_answer_unless_the_reader_went_up(chat: Page) -> None:
    slow_answer(chat)
    thread = chat.get_by_role("region", name="Conversation")
    wait_for(lambda: thread.evaluate("(e) => e.scrollHeight") > 3000, what="a long answer")
    distance = "(e) => e.scrollHeight - e.scrollTop - e.clientHeight"
    assert thread.evaluate(distance) < 300
    thread.hover()
    chat.mouse.wheel(0, -1500)
    chat.wait_for_timeout(300)
    top = thread.evaluate("(e) => e.scrollTop")
    chat.wait_for_timeout(500)
    assert thread.evaluate("(e) => e.scrollTop") == top
    chat.get_by_role("button", name="To the end").click()
    chat.wait_for_timeout(300)
    assert thread.evaluate(distance) < 300
    chat.get_by_role("button", name="Stop").click()


def test_another_answer_stands_beside_the_first(chat: Page) -> None:
    setting(chat, max_tokens=12, seed="")
    ask(chat, "Say something.")
    wait_answered(chat)
    first = answers(chat).locator(".text").inner_text()
    chat.get_by_role("button", name="Try again").click()
    wait_answered(chat)
    expect(answers(chat)).to_have_count(1)
    expect(answers(chat).get_by_text("2 / 2")).to_be_visible()
    answers(chat).get_by_role("button", name="Older version").click()
    assert answers(chat).locator(".text").inner_text() == first
    expect(answers(chat).get_by_role("button", name="Older version")).to_be_disabled()
    expect(answers(chat).get_by_role("button", name="Newer version")).to_be_focused()  # the focus is not lost


def test_an_edited_message_begins_a_branch_and_the_old_one_stays(chat: Page) -> None:
    bodies = sent_bodies(chat)
    setting(chat, max_tokens=8)
    for text in ("First question", "Second question"):
        ask(chat, text)
        wait_answered(chat)
    chat.get_by_role("button", name="Edit").first.click()
    field = chat.get_by_label("Edit message")
    expect(field).to_have_value("First question")
    field.fill("First question, better")
    chat.keyboard.press("Enter")
    wait_answered(chat)
    assert said(chat) == ["First question, better"]
    assert bodies[-1]["messages"] == [{"role": "user", "content": "First question, better"}]
    chat.get_by_role("button", name="Older version").click()
    assert said(chat) == ["First question", "Second question"]
    chat.get_by_role("button", name="Edit").first.click()
    chat.keyboard.press("Escape")
    assert said(chat) == ["First question", "Second question"]


def test_an_edited_message_that_cant_be_sent_yet_stays_where_it_is(chat: Page) -> None:
    setting(chat, max_tokens=4)
    ask(chat, "First question")
    wait_answered(chat)
    setting(chat, top_p=3)
    chat.get_by_role("button", name="Edit").click()
    chat.get_by_label("Edit message").fill("First question, better")
    chat.keyboard.press("Enter")
    expect(chat.get_by_role("alert").filter(has_text="Top p: must be")).to_be_visible()
    expect(chat.get_by_label("Edit message")).to_have_value("First question, better")
    setting(chat, top_p=1)
    slow_answer(chat)  # something else is said meanwhile
    chat.locator(".message.editing").get_by_role("button", name="Send").click()
    expect(chat.get_by_role("alert").filter(has_text="Wait for its end or stop it")).to_be_visible()
    chat.get_by_role("button", name="Stop").click()
    expect(answers(chat).last).to_contain_text("Stopped.")
    expect(chat.locator(".message.user")).to_have_count(2)  # no branch without an answer
    chat.locator(".message.editing").get_by_role("button", name="Send").click()
    expect(chat.locator(".message.user .text")).to_have_text(["First question, better"])


def test_a_second_click_on_send_stops_nothing_and_stop_waits_for_no_server(chat: Page) -> None:
    slow_answer(chat)
    chat.get_by_role("button", name="Stop").click()
    wait_answered(chat)
    chat.get_by_label("Message", exact=True).fill("Again")
    chat.get_by_role("button", name="Send", exact=True).dblclick()
    expect(answers(chat).last.locator(".text")).to_contain_text("upon a time")
    chat.wait_for_timeout(500)
    chat.route("**/tokenize", lambda route: None)  # the server hangs
    chat.get_by_role("button", name="Stop").click()
    expect(chat.get_by_role("button", name="Send", exact=True)).to_be_visible(timeout=10_000)


def test_an_answer_that_was_cut_is_written_on(chat: Page) -> None:
    bodies = sent_bodies(chat)
    setting(chat, max_tokens=5, temperature=0)
    ask(chat, "Tell me a long story.")
    wait_answered(chat)
    expect(answers(chat)).to_contain_text("Cut off at the length that the settings allow.")
    before = answers(chat).locator(".text").inner_text()
    chat.get_by_role("button", name="Write on").click()
    wait_answered(chat)
    assert bodies[-1]["messages"][-1]["role"] == "assistant"
    after = answers(chat).locator(".text").inner_text()
    assert after.startswith(before)
    assert after != before
    expect(answers(chat).locator(".meta")).to_contain_text("10 tokens")


def test_copying_an_answer(open_page: Callable[..., Page]) -> None:
    page = open_page("#chat", permissions=["clipboard-read", "clipboard-write"])
    setting(page, max_tokens=8)
    ask(page, "Hello")
    wait_answered(page)
    answers(page).get_by_role("button", name="Copy").click()
    expect(answers(page).get_by_role("button", name="Copied")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert " ".join(copied.split()) == " ".join(answers(page).locator(".text").inner_text().split())


def test_all_of_it_by_keyboard(chat: Page) -> None:
    """From the tab to an answer, to its retry, without a mouse."""
    setting(chat, max_tokens=4)
    chat.get_by_role("tab", name="Chat").focus()
    reach(chat, "Message")
    chat.keyboard.type("Line one")
    chat.keyboard.press("Shift+Enter")
    chat.keyboard.type("Line two")
    chat.keyboard.press("Enter")
    wait_answered(chat)
    assert said(chat) == ["Line one\nLine two"]
    expect(chat.get_by_label("Message", exact=True)).to_be_focused()
    reach(chat, "Try again", backwards=True)
    chat.keyboard.press("Enter")
    wait_answered(chat)
    expect(answers(chat).get_by_text("2 / 2")).to_be_visible()
    reach(chat, "More", backwards=True)
    chat.keyboard.press("Enter")
    reach(chat, "Rename")
    chat.keyboard.press("Enter")
    chat.keyboard.type("By keyboard")
    chat.keyboard.press("Enter")
    expect(chat.locator(".conversation-title")).to_have_text(["By keyboard"])


def test_on_a_phone(
    open_page: Callable[..., Page], check_accessible: Callable[[Page], None], check_fits: Callable[[Page], None]
) -> None:
    page = open_page("#chat", size=PHONE)
    setting(page, max_tokens=20)
    ask(page, "A-word-that-is-much-too-long-for-the-width-of-a-telephone-and-goes-on-and-on-and-on")
    wait_answered(page)
    check_fits(page)
    check_accessible(page)
    for button, panel in (("List", page.get_by_role("navigation")), ("Settings", page.get_by_role("complementary"))):
        expect(panel).to_be_hidden()
        page.get_by_role("button", name=button, exact=True).click()
        expect(panel).to_be_visible()
        assert panel.evaluate("(panel) => panel.contains(document.activeElement)")
        check_fits(page)
        check_accessible(page)
        page.keyboard.press("Escape")
        expect(panel).to_be_hidden()
        expect(page.get_by_role("button", name=button, exact=True)).to_be_focused()


def test_accessible_with_everything_open(chat: Page, check_accessible: Callable[[Page], None], troubles: Any) -> None:
    troubles.allow("status of 400")
    check_accessible(chat)
    setting(chat, max_tokens=5)
    for text in ("Hello", LONG):
        ask(chat, text)
        wait_answered(chat)
    chat.get_by_role("button", name="Try again").first.click()
    wait_answered(chat)
    chat.get_by_role("button", name="Edit").first.click()
    chat.get_by_role("button", name="Settings", exact=True).click()
    chat.locator(".bar summary").click()
    check_accessible(chat)
