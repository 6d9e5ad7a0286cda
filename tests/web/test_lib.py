"""The page's own library in a real browser: streams, errors, Markdown, what is kept."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page
from serving import Server

_STREAM = """async ([chunks, breaks]) => {
  const {createApi} = await import("/page/lib/api.js");
  const bytes = chunks.map((chunk) => new Uint8Array(chunk));
  window.fetch = async () => new Response(new ReadableStream({
    start(control) {
      bytes.forEach((chunk) => control.enqueue(chunk));
      if (breaks) control.error(new TypeError("network error"));
      else control.close();
    },
  }));
  const api = createApi({current: () => null, ask: async () => null});
  const events = [];
  try {
    for await (const event of api.stream("generate", {})) events.push(event);
    return {events, error: null};
  } catch (error) {
    return {events, error: {name: error.name, code: error.code, message: error.message}};
  }
}"""


@pytest.fixture(scope="module")
def blank(browser: Browser, web_server: Server) -> Iterator[Page]:
    """A page to run things in, without the app around it."""
    page = browser.new_page()
    page.goto("http://{}:{}/page/icon.svg".format(*web_server.address))
    yield page
    page.close()


def read(page: Page, text: str, size: int = 10**6, breaks: bool = False) -> dict[str, Any]:
    """What the reader makes of a stream that comes in pieces of `size` bytes."""
    data = text.encode()
    chunks = [list(data[at : at + size]) for at in range(0, len(data), size)]
    return page.evaluate(_STREAM, [chunks, breaks])


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_events_are_whole_however_they_arrive(blank: Page, size: int, end: str) -> None:
    texts = ["ação", "日本", 'a "quoted" \\ text', "data: inside", "🦊"]
    frames = [f"data: {json.dumps({'text': text}, ensure_ascii=False)}{end}{end}" for text in texts]
    stream = f": ping{end}{end}" + f": ping{end}{end}".join(frames) + f"data: [DONE]{end}{end}"
    assert read(blank, stream, size) == {"events": [{"text": text} for text in texts], "error": None}


def test_a_stream_without_an_end_is_an_error(blank: Page) -> None:
    for breaks in (False, True):
        result = read(blank, 'data: {"text": "half"}\n\n', breaks=breaks)
        assert result["error"]["code"] == "broken_off"
    assert read(blank, 'data: {"text": "half"}\n\ndata: [DO')["events"] == [{"text": "half"}]


def test_an_error_midway_is_raised_in_its_own_words(blank: Page) -> None:
    error = {"message": "The engine has stopped", "type": "server_error", "param": None, "code": "engine_dead"}
    result = read(blank, f'data: {{"text": "a"}}\n\ndata: {json.dumps({"error": error})}\n\ndata: [DONE]\n\n')
    assert result["events"] == [{"text": "a"}]
    assert result["error"] == {"name": "ApiError", "code": "engine_dead", "message": "The engine has stopped"}


def test_what_is_no_event_is_an_error(blank: Page) -> None:
    assert read(blank, "data: <html>\n\n")["error"]["code"] == "unreadable"


_ERROR = """async ([status, body, headers]) => {
  const {createApi} = await import("/page/lib/api.js");
  window.fetch = async () => new Response(body, {status, headers});
  const {status: s, message, param, code, retryAfter} =
    await createApi({current: () => null, ask: async () => null}).get("x").catch((error) => error);
  return {status: s, message, param, code, retryAfter};
}"""


def test_errors_are_told_in_words_whoever_sent_them(blank: Page) -> None:
    error = {"message": "The queue is full", "type": "rate_limit_error", "param": None, "code": "queue_full"}
    told = blank.evaluate(_ERROR, [429, json.dumps({"error": error}), {"Retry-After": "3"}])
    expected = {"status": 429, "message": "The queue is full", "param": None, "code": "queue_full", "retryAfter": 3}
    assert told == expected
    for body in ("<html>Bad gateway</html>", "", "{}", "null", '{"error": "text"}'):
        told = blank.evaluate(_ERROR, [502, body, {}])
        assert told["status"] == 502
        assert "502" in told["message"]


_MARKDOWN = """async (text) => {
  const {renderMarkdown} = await import("/page/lib/markdown.js");
  const place = document.createElement("div");
  place.append(...renderMarkdown(text));
  place.querySelectorAll("button").forEach((button) => button.remove());
  return place.innerHTML;
}"""


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("one\ntwo\n\nthree", "<p>one\ntwo</p><p>three</p>"),
        ("2 * 3 * 4 and snake_case_name", "<p>2 * 3 * 4 and snake_case_name</p>"),
        ("a **b *c* d** _e f_", "<p>a <strong>b <em>c</em> d</strong> <em>e f</em></p>"),
        ("`a*b*` and ``x ` y``", "<p><code>a*b*</code> and <code>x ` y</code></p>"),
        ("an unclosed ` and ** and *", "<p>an unclosed ` and ** and *</p>"),
        ("# Top\ntext", "<h3>Top</h3><p>text</p>"),
        ("- a\n  more\n- b\ntext", "<ul><li>a\nmore</li><li>b</li></ul><p>text</p>"),
        ("3. a\n4. b", '<ol start="3"><li>a</li><li>b</li></ol>'),
        ("#no heading", "<p>#no heading</p>"),
        ("<b>&amp;", "<p>&lt;b&gt;&amp;amp;</p>"),
        ("", ""),
    ],
)
def test_markdown(blank: Page, text: str, html: str) -> None:
    assert blank.evaluate(_MARKDOWN, text) == html


def test_code_is_kept_as_it_is_and_its_end_may_be_missing(blank: Page) -> None:
    for end in ("\n```", ""):
        html = blank.evaluate(_MARKDOWN, f"```py\na = '<b>'\n\n# no heading\n- no list{end}")
        assert "<code>a = '&lt;b&gt;'\n\n# no heading\n- no list</code>" in html
        assert "<span>py</span>" in html


def test_markdown_of_hostile_texts_is_quick(blank: Page) -> None:
    """No expression may go through a text over and over."""
    script = f"async (text) => {{ const began = performance.now(); await ({_MARKDOWN})(text); return performance.now() - began; }}"
    for piece in ("*", "**a", "_a ", "`", "`a``b", "*a *", "- ", "# ", "```\n", "[(", "**a*"):
        assert blank.evaluate(script, piece * (20_000 // len(piece))) < 5000, piece


_STORE = """async () => {
  const {createStore, StoreError} = await import("/page/lib/store.js");
  const full = {getItem: () => null, removeItem() {}, length: 0, key: () => null,
                setItem() { throw new DOMException("full", "QuotaExceededError"); }};
  let words = null;
  try { createStore(full).set("a", 1); } catch (error) { words = error instanceof StoreError && error.message; }
  const store = createStore(null);
  store.set("b.1", {x: 1}); store.set("b.2", [2]); store.set("c", null);
  return {words, names: store.names("b."), value: store.get("b.1"), none: store.get("d", "fallback"),
          persistent: store.persistent};
}"""


def test_a_full_or_forbidden_storage_is_told_and_survived(blank: Page) -> None:
    result = blank.evaluate(_STORE)
    assert "storage for this page is full" in result.pop("words")
    assert result == {"names": ["b.1", "b.2"], "value": {"x": 1}, "none": "fallback", "persistent": False}


def test_a_message_with_something_to_press_stays_longer(blank: Page) -> None:
    script = """async () => {
      const { createToast } = await import("/page/lib/toast.js");
      const toast = createToast(document.createElement("div"));
      const real = window.setTimeout;
      const waits = [];
      window.setTimeout = (run, wait) => waits.push(wait);
      toast("Just told.");
      toast("Deleted.", "info", { label: "Undo", run() {} });
      window.setTimeout = real;
      return waits.map((wait) => Math.round(wait / 1000));
    }"""
    assert blank.evaluate(script) == [5, 20]


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ([], None, "is not a conversation"),
        (["title"], 3, "title is not a text"),
        (["created"], "yesterday", "created or updated is not a time"),
        (["messages"], [], "messages or chosen is missing"),
        (["messages", "FIRST", "role"], "robot", "has no role"),
        (["messages", "FIRST", "content"], None, "has no text"),
        (["messages", "FIRST", "parent"], "__proto__", "behind one that is not there"),
        (["messages", "FIRST", "parent"], "SECOND", "behind itself"),
        (["chosen", ""], "SECOND", "is no message behind it"),
        (["chosen", ""], "FIRST", None),
    ],
)
def test_conversations_from_outside_are_checked(
    blank: Page, path: list[str], value: object, problem: str | None
) -> None:
    script = """async ([path, value]) => {
      const c = await import("/page/lib/conversation.js");
      const conversation = c.newConversation();
      const first = c.addMessage(conversation, null, "user", "one");
      const second = c.addMessage(conversation, first.id, "assistant", "two");
      const text = JSON.stringify({conversation}).replaceAll(first.id, "FIRST").replaceAll(second.id, "SECOND");
      const holder = JSON.parse(text);
      const keys = ["conversation", ...path];
      const last = keys.pop();
      keys.reduce((at, key) => at[key], holder)[last] = value;
      return c.conversationProblem(holder.conversation);
    }"""
    found = blank.evaluate(script, [path, value])
    assert found is None if problem is None else problem in found
