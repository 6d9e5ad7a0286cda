"""What tests of the chat do there, as a person would."""

import json
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, Request, expect

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


def choose_from_menu(page: Page, name: str) -> None:
    """What the conversation's own menu offers."""
    page.locator(".bar summary").click()
    page.locator(".bar").get_by_role("button", name=name).click()


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
