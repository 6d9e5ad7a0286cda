"""What the browser keeps of the chat: conversations, settings, files, and two windows at once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chatting import answers, ask, choose_from_menu, said, sent_bodies, setting, slow_answer, wait_answered
from playwright.sync_api import Page, expect


def test_the_system_prompt_is_the_conversations_own(chat: Page) -> None:
    bodies = sent_bodies(chat)
    setting(chat, max_tokens=4)
    chat.get_by_role("button", name="Settings", exact=True).click()
    chat.get_by_label("System prompt").fill("You are a pirate.")
    ask(chat, "Hello")
    wait_answered(chat)
    assert bodies[-1]["messages"][0] == {"role": "system", "content": "You are a pirate."}
    chat.get_by_role("button", name="New conversation").click()
    expect(chat.get_by_label("System prompt")).to_have_value("")
    ask(chat, "Hello")
    wait_answered(chat)
    assert [message["role"] for message in bodies[-1]["messages"]] == ["user"]
    chat.reload()
    chat.get_by_role("navigation", name="Conversations").get_by_role("button", name="Hello").last.click()
    expect(chat.get_by_label("System prompt")).to_have_value("You are a pirate.")


def test_conversations_are_kept_renamed_and_deleted(chat: Page) -> None:
    setting(chat, max_tokens=4)
    ask(chat, "The first of them")
    wait_answered(chat)
    chat.get_by_role("button", name="New conversation").click()
    ask(chat, "The second of them")
    wait_answered(chat)
    chat.reload()
    titles = chat.locator(".conversation-title")
    expect(titles).to_have_text(["The second of them", "The first of them"])
    assert said(chat) == ["The second of them"]

    titles.last.click()
    assert said(chat) == ["The first of them"]
    chat.locator(".bar summary").click()
    chat.locator(".menu-items").click(
        position={"x": 2, "y": 2}
    )  # Safari, which focuses no buttons, sees every press so
    expect(chat.locator(".menu-items")).to_be_visible()
    chat.locator(".bar summary").click()
    choose_from_menu(chat, "Rename")
    chat.keyboard.type("Renamed")
    chat.keyboard.press("Enter")
    expect(titles).to_have_text(["The second of them", "Renamed"])
    expect(chat.locator(".bar summary")).to_be_focused()
    expect(chat.locator(".menu-items")).to_be_hidden()

    choose_from_menu(chat, "Delete")
    expect(titles).to_have_text(["The second of them"])
    chat.get_by_role("button", name="Undo").click()
    expect(titles).to_have_text(["The second of them", "Renamed"])
    choose_from_menu(chat, "Delete")
    chat.reload()
    expect(titles).to_have_text(["The second of them"])


def test_a_deleted_conversation_stays_deleted_while_its_answer_ends(chat: Page) -> None:
    slow_answer(chat)
    choose_from_menu(chat, "Delete")
    chat.wait_for_timeout(500)
    expect(chat.locator(".conversation-title")).to_have_count(0)
    assert "conversation." not in chat.evaluate("Object.keys(localStorage).filter(k => !k.includes('current')).join()")


def test_an_answer_goes_on_while_another_conversation_is_read(chat: Page) -> None:
    setting(chat, max_tokens=4)
    slow_answer(chat)
    chat.get_by_role("button", name="New conversation").click()
    expect(chat.get_by_role("heading", name="Talk with your model")).to_be_visible()
    expect(chat.locator(".conversation-time")).to_have_text("writing…")
    expect(chat.get_by_role("button", name="Send", exact=True)).to_be_visible()
    chat.locator(".conversation").click()
    chat.get_by_role("button", name="Stop").click()
    expect(chat.locator(".conversation-time")).not_to_have_text("writing…")


def test_a_reload_comes_back_to_what_was_read_not_to_what_was_answered_beside_it(chat: Page) -> None:
    setting(chat, max_tokens=4)
    ask(chat, "The one that is read")
    wait_answered(chat)
    chat.get_by_role("button", name="New conversation").click()
    slow_answer(chat)
    expect(answers(chat).locator(".text")).to_contain_text("Once")
    chat.locator(".conversation").filter(has_text="The one that is read").click()
    chat.reload()  # what is being answered is saved then
    expect(chat.locator(".message.user .text")).to_have_text(["The one that is read"])


def test_export_and_import(chat: Page, open_page: Callable[..., Page], tmp_path: Path) -> None:
    setting(chat, max_tokens=4)
    ask(chat, "Keep *this*, please: ação")
    wait_answered(chat)
    answer = answers(chat).locator(".text").inner_text()
    with chat.expect_download() as markdown:
        choose_from_menu(chat, "Export as Markdown")
    assert markdown.value.suggested_filename == "Keep-this-please-ação.md"
    text = markdown.value.path().read_text("utf-8")
    assert text.startswith("# Keep *this*, please: ação\n\n## You\n\n")
    assert "## homegrown-base" in text
    with chat.expect_download() as exported:
        choose_from_menu(chat, "Export as JSON")
    exported.value.save_as(tmp_path / "one.json")

    other = open_page("#chat")
    other.locator(".sidebar input[type=file]").set_input_files(tmp_path / "one.json")
    expect(other.locator(".message.user .text")).to_have_text("Keep *this*, please: ação")
    assert answers(other).locator(".text").inner_text() == answer
    other.locator(".sidebar input[type=file]").set_input_files(tmp_path / "one.json")
    expect(other.locator(".conversation")).to_have_count(2)  # nothing is overwritten


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{not json", "it is not JSON"),
        ('{"a": 1}', "was not exported by this page"),
        ('{"format": "homegrown-page", "version": 1, "values": {}}', "no conversation in the file"),
        (
            '{"format": "homegrown-page", "version": 1, "values": {"conversation.a": {"id": "a"}}}',
            "conversation 1: title is not a text",
        ),
    ],
)
def test_a_wrong_file_is_refused_in_words(chat: Page, tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "wrong.json").write_text(content)
    chat.locator(".sidebar input[type=file]").set_input_files(tmp_path / "wrong.json")
    expect(chat.get_by_role("alert").filter(has_text=words)).to_be_visible()
    expect(chat.locator(".conversation")).to_have_count(0)


def test_parameters_are_remembered(chat: Page) -> None:
    setting(chat, temperature=0.35, seed=7)
    chat.reload()
    expect(chat.locator(".settings [name=temperature]")).to_have_value("0.35")
    expect(chat.locator(".settings [name=seed]")).to_have_value("7")


def test_two_windows_see_each_others_conversations(chat: Page) -> None:
    setting(chat, max_tokens=4)
    other = chat.context.new_page()
    other.goto(chat.url)
    ask(chat, "Said in the first window")
    wait_answered(chat)
    expect(other.locator(".conversation-title")).to_have_text(["Said in the first window"])


def with_another_window(chat: Page) -> Page:
    """A second window that shows what was asked in the first: "One"."""
    setting(chat, max_tokens=4)
    ask(chat, "One")
    wait_answered(chat)
    other = chat.context.new_page()
    other.goto(chat.url)
    expect(other.locator(".message.user .text")).to_have_text(["One"])
    return other


def test_two_windows_write_in_one_conversation(chat: Page) -> None:
    other = with_another_window(chat)
    ask(other, "Two")
    wait_answered(other)
    expect(chat.locator(".message.user .text")).to_have_text(["One", "Two"])
    expect(answers(chat)).to_have_count(2)
    ask(chat, "Three")
    wait_answered(chat)
    expect(other.locator(".message.user .text")).to_have_text(["One", "Two", "Three"])
    other.get_by_role("button", name="Try again").last.click()
    wait_answered(other)
    expect(answers(chat).last.get_by_text("2 / 2")).to_be_visible()
    chat.get_by_role("button", name="New conversation").click()
    ask(other, "Four")
    wait_answered(other)
    chat.locator(".conversation").click()  # in a list that looks the same as before
    expect(chat.locator(".message.user .text")).to_have_text(["One", "Two", "Three", "Four"])


def test_what_two_windows_say_at_the_same_time_is_all_kept(chat: Page) -> None:
    other = with_another_window(chat)
    slow_answer(chat)  # the first window is in the middle of an answer
    expect(other.locator(".message.user .text")).to_have_text(["One", "A long one, please."])
    slow_answer(other)  # behind it, in the other window
    expect(other.locator(".message.user .text")).to_have_count(3)
    expect(answers(other).last.locator(".text")).to_contain_text("upon")
    other.get_by_role("button", name="Stop").click()
    wait_answered(other)
    text = answers(other).last.locator(".text").inner_text()
    chat.wait_for_timeout(1200)  # the first one saves each second
    chat.get_by_role("button", name="Stop").click()
    wait_answered(chat)
    chat.reload()
    expect(chat.locator(".message.user .text")).to_have_count(3)
    assert answers(chat).last.locator(".text").inner_text() == text


def test_what_another_window_left_unfinished_is_written_on_as_it_is_now(chat: Page, troubles: Any) -> None:
    troubles.allow("status of 400")  # where it has become too long to be written on
    other = chat.context.new_page()
    other.goto(chat.url)
    slow_answer(other)
    chat.locator(".conversation").click()
    expect(answers(chat)).to_contain_text("Not complete")
    before = len(answers(chat).locator(".text").inner_text())
    other.wait_for_timeout(1500)
    other.close()  # it dies in the midst of it
    expect(answers(chat)).to_contain_text("Not complete")
    now = answers(chat).locator(".text").inner_text()
    assert len(now) > before
    setting(chat, max_tokens=4)
    bodies = sent_bodies(chat)
    chat.get_by_role("button", name="Write on").click()
    wait_answered(chat)
    assert len(bodies[0]["messages"][-1]["content"]) >= len(now)
    expect(answers(chat)).not_to_contain_text("Not complete")


def test_a_full_storage_is_told_and_the_conversation_goes_on(chat: Page) -> None:
    setting(chat, max_tokens=4)
    chat.evaluate("""() => {
      for (let size = 4_000_000; size >= 1; size = Math.floor(size / 2))
        for (let n = 0; ; n += 1) {
          try { localStorage.setItem(`filling-${size}-${n}`, "x".repeat(size)); } catch { break; }
        }
    }""")
    for text in ("One", "Two"):
        ask(chat, text)
        wait_answered(chat)
    expect(chat.get_by_role("alert").filter(has_text="storage for this page is full")).to_have_count(1)
    assert said(chat) == ["One", "Two"]
    for exported in (
        lambda: choose_from_menu(chat, "Export as JSON"),
        chat.get_by_role("button", name="Export all").click,
    ):
        with chat.expect_download() as waiting:
            exported()
        text = waiting.value.path().read_text("utf-8")
        assert '"One"' in text
        assert '"Two"' in text  # though storage had no room for it
    chat.get_by_role("button", name="Settings", exact=True).click()
    expect(chat.get_by_role("complementary", name="Settings")).to_be_visible()
    chat.evaluate("localStorage.clear()")
    ask(chat, "Three")
    wait_answered(chat)
    chat.reload()
    expect(chat.locator(".message.user .text")).to_have_text(["One", "Two", "Three"])


def test_an_answer_that_the_page_did_not_outlive_is_kept_as_far_as_it_came(chat: Page) -> None:
    slow_answer(chat)
    expect(answers(chat).locator(".text")).to_contain_text("upon a time")
    chat.reload()
    expect(answers(chat).locator(".text")).to_contain_text("Once upon a time")
    expect(answers(chat)).to_contain_text("Not complete")
    setting(chat, max_tokens=4)
    chat.get_by_role("button", name="Write on").click()
    wait_answered(chat)
    expect(answers(chat)).not_to_contain_text("Not complete")
