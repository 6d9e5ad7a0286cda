"""The Write tab in tests: its parts, and what the server is asked."""

import math
from typing import Any, cast

from playwright.sync_api import Locator, Page, Request, expect
from serving import Server

BOUNDS = [1, 3, 5, 8, 12]  # in bits, between the levels of surprise


def open_writing(page: Page) -> Page:
    """The tab as a new visitor finds it, but for a temperature of 0 and a short answer."""
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
    """A button by its whole name."""
    return page.get_by_role("button", name=name, exact=True)


def write(page: Page, text: str | None = None) -> None:
    """Press Write and wait for the end."""
    if text is not None:
        page.get_by_label("Your text").fill(text)
    page.locator(".write-go").click()
    finished(page)


def finished(page: Page) -> None:
    """Wait until nothing is being written or scored any more."""
    expect(page.locator(".write-text")).to_have_attribute("aria-busy", "false")
    expect(button(page, "Write on")).to_be_visible()


def tokens(page: Page) -> Locator:
    """All tokens that are shown."""
    return page.locator(".token")


def text_of(page: Page) -> str:
    """The text that they make."""
    return page.locator(".tokens").evaluate("(element) => element.textContent")


def asked(page: Page, path: str = "/generate") -> list[dict[str, Any]]:
    """The bodies of all requests to this path from now on."""
    bodies: list[dict[str, Any]] = []

    def note(request: Request) -> None:
        if request.url.endswith(path):
            bodies.append(cast(dict[str, Any], request.post_data_json))

    page.on("request", note)
    return bodies


def ask(server: Server, path: str, **body: Any) -> Any:
    """The server's own answer."""
    with server.client() as client:
        return client.post(path, json=body).raise_for_status().json()


def level(logprob: float) -> str:
    """The level of surprise of a token with this chance."""
    return str(sum(-logprob / math.log(2) >= bound for bound in BOUNDS))
