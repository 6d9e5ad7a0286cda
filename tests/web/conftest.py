"""A real server with the bundled model, a real Chromium, and checks that every page has to pass."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from serving import ROOT, Server

playwright_api = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'"
)
from axe_playwright_python.sync_playwright import Axe  # noqa: E402
from classifying import save_classifier  # noqa: E402
from playwright.sync_api import Browser, ConsoleMessage, Page, ViewportSize, expect  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WIDE, PHONE = (1200, 800), (360, 740)
CONTEXT = 512  # tokens of the plain model
_SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
TIMEOUT = 30_000  # ms for anything that a test waits for: machines are shared


expect.set_options(timeout=TIMEOUT)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test here drives a browser: slow, and skipped where there is none."""
    for item in items:
        if item.path.is_relative_to(ROOT / "tests" / "web"):
            item.add_marker(pytest.mark.slow)
            if CHROMIUM is None:
                item.add_marker(pytest.mark.skip(reason="there is no Chromium: install the package chromium"))


@pytest.fixture(scope="session")
def plain_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled base alone, without its adapters, and with so short a context that tests can fill it."""
    bundled = ROOT / "checkpoints" / "homegrown-base"
    directory = tmp_path_factory.mktemp("plain") / bundled.name
    directory.mkdir()
    for path in bundled.iterdir():
        if path.is_file():
            (directory / path.name).symlink_to(path)
    config = json.loads((bundled / "config.json").read_text("utf-8")) | {"max_position_embeddings": CONTEXT}
    (directory / "config.json").unlink()
    (directory / "config.json").write_text(json.dumps(config), "utf-8")
    return directory


@pytest.fixture(scope="session")
def make_web_server(plain_model: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers with the plain model, unless told another; all are ended with the session."""
    servers: list[Server] = []

    def make(**settings: Any) -> Server:
        servers.append(Server({"model": str(plain_model), **settings}))
        return servers[-1].wait_ready()

    yield make
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def web_server(make_web_server: Callable[..., Server]) -> Server:
    """The server that tests share, if they leave it as it was."""
    return make_web_server(max_slots=8)


@pytest.fixture(scope="module")
def star_server(make_web_server: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A server whose model is a classifier."""
    directory = tmp_path_factory.mktemp("models") / "stars"
    save_classifier(directory)
    return make_web_server(model=str(directory), max_slots=4)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium. (Per module: while Playwright runs, this thread has an event loop, which other tests couldn't start.)"""
    with playwright_api.sync_playwright() as playwright:
        assert CHROMIUM is not None
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Troubles:
    """What a page complained about in its console. `allow` what a test provokes on purpose."""

    seen: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)

    def allow(self, pattern: str) -> None:
        """Complaints that this regular expression finds are expected."""
        self.allowed.append(pattern)

    def unexpected(self) -> list[str]:
        """The others."""
        return [text for text in self.seen if not any(re.search(pattern, text) for pattern in self.allowed)]

    def watch(self, page: Page) -> None:
        """Note what this page complains about from now on."""

        def on_console(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning"):
                self.seen.append(f"{message.text} ({message.location.get('url', '')})")

        page.on("console", on_console)
        page.on("pageerror", lambda error: self.seen.append(f"uncaught: {error}"))


@pytest.fixture
def troubles() -> Iterator[Troubles]:
    """Console errors and warnings of a test's pages; at its end any that was not allowed fails it."""
    troubles = Troubles()
    yield troubles
    assert troubles.unexpected() == []


@pytest.fixture
def open_page(browser: Browser, web_server: Server, troubles: Troubles) -> Iterator[Callable[..., Page]]:
    """Opens the page as a new visitor: `open_page("#chat", size=PHONE, scheme="dark", server=...)`. Options go to the
    browser's context."""
    contexts = []

    def make(
        path: str = "",
        *,
        server: Server | None = None,
        size: tuple[int, int] = WIDE,
        scheme: Literal["light", "dark"] = "light",
        **options: Any,
    ) -> Page:
        viewport = ViewportSize(width=size[0], height=size[1])
        context = browser.new_context(viewport=viewport, color_scheme=scheme, accept_downloads=True, **options)
        context.set_default_timeout(TIMEOUT)
        contexts.append(context)
        page = context.new_page()
        troubles.watch(page)
        page.goto("http://{}:{}/{}".format(*(server or web_server).address, path))
        return page

    yield make
    for context in contexts:
        context.close()


def axe_violations(page: Page) -> list[str]:
    """What axe finds wrong with the page as it is: rule, what is wrong, and where."""
    # (Preloading, which reads style sheets for one rule about rotation, would put styles into the page, against its policy.)
    results = Axe().run(page, options={"preload": False}).response
    return [
        f"{violation['id']}: {violation['help']}: {node['target']} {node.get('failureSummary', '')}"
        for violation in results["violations"]
        for node in violation["nodes"]
    ]


@pytest.fixture
def check_accessible() -> Callable[[Page], None]:
    """Fails when axe finds anything wrong with the page, in light or in dark colours."""

    def check(page: Page) -> None:
        for scheme in _SCHEMES:
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            page.wait_for_timeout(100)
            assert axe_violations(page) == [], scheme
        page.emulate_media(color_scheme="light")

    return check


@pytest.fixture
def check_fits() -> Callable[[Page], None]:
    """Fails when the page is wider than its window, or something on it sticks out unseen."""

    def check(page: Page) -> None:
        wide = page.evaluate(_STICKING_OUT)
        assert wide == [], "wider than the window"

    return check


# Elements may be wider inside a container that scrolls by itself.
_STICKING_OUT = """() => {
  const width = document.documentElement.clientWidth;
  const scrolls = (element) => {
    for (let up = element.parentElement; up && up !== document.body; up = up.parentElement)
      if (["auto", "scroll", "hidden", "clip"].includes(getComputedStyle(up).overflowX)
          && up.getBoundingClientRect().right <= width + 1) return true;
    return false;
  };
  const found = [...document.querySelectorAll("body *")].filter((element) => {
    const box = element.getBoundingClientRect();
    return box.width > 0 && box.right > width + 1 && element.checkVisibility() && !scrolls(element);
  });
  const page = document.documentElement.scrollWidth > width ? ["html"] : [];
  return page.concat(found.map((element) => `${element.tagName} ${element.className} ${element.id}`));
}"""


@pytest.fixture
def chat(open_page: Callable[..., Page]) -> Page:
    """The chat of a new visitor."""
    return open_page("#chat")
