"""Pictures of the page at /, made by a real Chromium from a running server with the bundled models: docs/images/page-*.png."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_SIZE = (1280, 860)
_QUESTION = """Read the text, then answer.

A fox lived in a hole under an old oak. One cold morning she found a hen by the river, and they became friends.

Where did the fox live?"""
_REVIEWS = (
    "One of the warmest films of the year.", "The plot is dull and the jokes are worse.",
    "I would gladly watch it again.", "A waste of two hours.",
)  # fmt: skip


class NoBrowser(Exception):
    """There is no Chromium, or nothing to drive it with; the message says what to install."""


def take_pictures(address: str, folder: Path) -> list[Path]:
    """Write a picture of each tab of the server at `address` (HOST:PORT) into the folder. Raises NoBrowser."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        raise NoBrowser("there is no Chromium: install the package chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise NoBrowser("playwright is not installed: pip install -e '.[dev]'") from None
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        try:
            return [_picture(browser, address, folder, tab, show, scheme) for tab, show, scheme in _PICTURES]
        finally:
            browser.close()


def _picture(
    browser: "Browser",
    address: str,
    folder: Path,
    tab: str,
    show: "Callable[[Page], None]",
    scheme: Literal["light", "dark"],
) -> Path:
    page = browser.new_page(viewport={"width": _SIZE[0], "height": _SIZE[1]}, color_scheme=scheme)
    page.goto(f"http://{address}/#{tab}")
    show(page)
    page.mouse.move(0, 0)
    page.wait_for_timeout(300)  # movements end
    out = folder / f"page-{tab}.png"
    page.screenshot(path=out)
    page.close()
    return out


def _chat(page: "Page") -> None:
    for message in ("What can I do with a bag of apples?", _QUESTION):
        page.get_by_label("Message", exact=True).fill(message)
        page.keyboard.press("Enter")
        page.locator(".message.writing").wait_for(state="attached")
        page.get_by_role("button", name="Send", exact=True).wait_for()
        page.locator(".message.writing").wait_for(state="detached")


def _write(page: "Page") -> None:
    page.get_by_label("Your text").fill("The old woman opened the door and")
    page.locator(".write-go").click()
    page.locator(".write-text[aria-busy=false] .token >> nth=20").wait_for()
    page.locator(".token").nth(12).click()
    page.get_by_role("dialog").wait_for()


def _classify(page: "Page") -> None:
    page.get_by_label("Trained classifier").check()
    page.get_by_label("Many texts").check()
    page.get_by_label("Or paste texts").fill("\n".join(("review", *_REVIEWS)) + "\n")
    page.get_by_role("button", name="Read it").click()
    page.get_by_role("button", name="Classify 4 rows").click()
    page.get_by_text("Done: 4 rows").wait_for()


def _inside(page: "Page") -> None:
    page.get_by_label("A short text").fill("The old man looked at the sea and the old man")
    page.get_by_role("button", name="Look inside", exact=True).click()
    page.locator(".lens").wait_for(timeout=120_000)


def _status(page: "Page") -> None:
    page.evaluate(
        """() => Promise.all([...Array(6).keys()].map((seed) => fetch("generate", {
          method: "POST", headers: {"Content-Type": "application/json"},
          body: JSON.stringify({prompt: "Once upon a time", max_tokens: 400, seed, ignore_eos: true}),
        }).then((answer) => answer.json())))"""
    )
    page.wait_for_timeout(2500)  # two figures a second


_PICTURES: "tuple[tuple[str, Callable[[Page], None], Literal['light', 'dark']], ...]" = (
    ("chat", _chat, "light"),
    ("write", _write, "light"),
    ("classify", _classify, "light"),
    ("inside", _inside, "light"),
    ("status", _status, "dark"),
)
