"""The chat in a real browser, against a real server: what a person does there, by mouse and by keyboard."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from oracle import make_adapters
from playwright.sync_api import Locator, Page, Request, expect
from serving import ROOT, Server, wait_for

PHONE = (360, 740)
LONG = "The farmer walked over the hill to the village and back again. " * 80  # more than 512 tokens


def ask(page: Page, text: str) -> None:
    """Send a message by keyboard."""
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")


def wait_answered(page: Page) -> None:
    """Return when no answer is being written."""
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_visible()
    expect(page.locator(".message.writing")).to_have_count(0)


def answers(page: Page) -> Locator:
    """The model's messages."""
    return page.locator(".message.assistant")


def said(page: Page) -> list[str]:
    """The person's messages."""
    return page.locator(".message.user .text").all_text_contents()


def setting(page: Page, **values: Any) -> None:
    """Fill in sampling parameters by their names."""
    page.get_by_role("button", name="Settings", exact=True).click()
    page.get_by_text("More", exact=True).last.click()
    for name, value in values.items():
        page.locator(f".settings [name={name}]").fill(str(value))
    page.get_by_role("button", name="Close settings").click()


def sent_bodies(page: Page) -> list[dict[str, Any]]:
    """What the page asks for from now on, in a list that grows."""
    bodies: list[dict[str, Any]] = []

    def note(request: Request) -> None:
        if request.url.endswith("/v1/chat/completions"):
            bodies.append(json.loads(request.post_data or "{}"))

    page.on("request", note)
    return bodies


@pytest.fixture
def chat(open_page: Callable[..., Page]) -> Page:
    """The chat of a new visitor."""
    return open_page("#chat")


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


def slow_answer(page: Page) -> None:
    """Ask for an answer that never ends: the bundled model is too fast to be stopped by hand."""
    page.evaluate("""() => {
      const real = window.fetch;
      window.fetch = (url, options) => {
        if (!String(url).endsWith("/v1/chat/completions")) return real(url, options);
        const event = (delta) => new TextEncoder().encode(
          `data: ${JSON.stringify({model: "m", choices: [{index: 0, delta, finish_reason: null}]})}\\n\\n`);
        let timer = null;
        const body = new ReadableStream({
          start(control) {
            options.signal.addEventListener("abort", () => {
              window.cancelled = true;
              clearInterval(timer);
              control.error(new DOMException("aborted", "AbortError"));
            });
            control.enqueue(event({content: "Once "}));
            timer = setInterval(() => control.enqueue(event({content: "upon a time\\n\\n"})), 20);
          },
        });
        return Promise.resolve(new Response(body, {headers: {"Content-Type": "text/event-stream"}}));
      };
    }""")
    ask(page, "A long one, please.")


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
    choose_from_menu(chat, "Rename")
    chat.keyboard.type("Renamed")
    chat.keyboard.press("Enter")
    expect(titles).to_have_text(["The second of them", "Renamed"])

    choose_from_menu(chat, "Delete")
    expect(titles).to_have_text(["The second of them"])
    chat.get_by_role("button", name="Undo").click()
    expect(titles).to_have_text(["The second of them", "Renamed"])
    choose_from_menu(chat, "Delete")
    chat.reload()
    expect(titles).to_have_text(["The second of them"])


def choose_from_menu(page: Page, name: str) -> None:
    """What the conversation's own menu offers."""
    page.locator(".bar summary").click()
    page.locator(".bar").get_by_role("button", name=name).click()


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


def test_parameters_are_remembered(chat: Page) -> None:
    setting(chat, temperature=0.35, seed=7)
    chat.reload()
    expect(chat.locator(".settings [name=temperature]")).to_have_value("0.35")
    expect(chat.locator(".settings [name=seed]")).to_have_value("7")


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


def test_copying_an_answer(open_page: Callable[..., Page]) -> None:
    page = open_page("#chat", permissions=["clipboard-read", "clipboard-write"])
    setting(page, max_tokens=8)
    ask(page, "Hello")
    wait_answered(page)
    answers(page).get_by_role("button", name="Copy").click()
    expect(answers(page).get_by_role("button", name="Copied")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert " ".join(copied.split()) == " ".join(answers(page).locator(".text").inner_text().split())


def test_two_windows_see_each_others_conversations(chat: Page) -> None:
    setting(chat, max_tokens=4)
    other = chat.context.new_page()
    other.goto(chat.url)
    ask(chat, "Said in the first window")
    wait_answered(chat)
    expect(other.locator(".conversation-title")).to_have_text(["Said in the first window"])


def test_two_windows_write_in_one_conversation(chat: Page) -> None:
    setting(chat, max_tokens=4)
    ask(chat, "One")
    wait_answered(chat)
    other = chat.context.new_page()
    other.goto(chat.url)
    expect(other.locator(".message.user .text")).to_have_text(["One"])
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


def reach(page: Page, name: str, *, backwards: bool = False) -> None:
    """Go with Tab until what has this name is focused."""
    script = """() => {
      const focused = document.activeElement;
      return focused.getAttribute("aria-label") ?? focused.labels?.[0]?.textContent ?? focused.textContent;
    }"""
    for _ in range(60):
        page.keyboard.press("Shift+Tab" if backwards else "Tab")
        if page.evaluate(script).strip() == name:
            return
    pytest.fail(f"Tab never reaches {name}")


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
