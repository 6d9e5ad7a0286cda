"""The status tab: live figures, and a server that goes away and comes back."""

import json
import re
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from playwright.sync_api import Locator, Page, Route, expect
from serving import Server

PHONE = (360, 740)
KEY = "a-key-for-tests"


@pytest.fixture
def tab(open_page: Callable[..., Page]) -> Page:
    """The tab, showing figures."""
    page = open_page("#status")
    expect(page.get_by_text("Ready", exact=True)).to_be_visible()
    return page


def altered(change: Callable[[dict[str, Any]], None]) -> Callable[[Route], None]:
    """Answers /status with the server's own figures, changed."""

    def handle(route: Route) -> None:
        body = httpx.get(route.request.url).json()
        change(body)
        route.fulfill(status=200, content_type="application/json", body=json.dumps(body))

    return handle


def card(page: Page, title: str) -> Locator:
    return page.locator(".card").filter(has=page.get_by_role("heading", name=title, exact=True))


def fact(page: Page, title: str) -> Locator:
    """The value beside a term."""
    return page.locator("dl > div").filter(has=page.locator("dt", has_text=re.compile(f"^{title}$"))).locator("dd")


def total(page: Page, title: str) -> int:
    return int(re.sub(r"\D", "", fact(page, title).inner_text()))


def test_figures_follow_what_the_server_does(tab: Page, web_server: Server) -> None:
    answered, written = total(tab, "Answered"), total(tab, "Tokens written")
    with web_server.client() as client:
        for _ in range(2):
            client.post("/generate", json={"prompt": "Once", "max_tokens": 30, "ignore_eos": True}).raise_for_status()
    expect(fact(tab, "Answered")).to_have_text(f"{answered + 2} requests")
    assert total(tab, "Tokens written") == written + 60
    expect(card(tab, "Writing").locator(".status-figure")).not_to_have_text("0")
    expect(card(tab, "Writing").get_by_role("img")).to_have_accessible_name(
        re.compile(r"the most in a second .* was \d")
    )
    first = tab.get_by_role("row", name=re.compile("^First token")).get_by_role("cell")
    expect(first.first).to_have_text(re.compile(r"^[\d.,]+ (µs|ms|s)$"))
    assert int(first.last.inner_text().replace(",", "")) >= 2


def test_running_requests_are_seen(tab: Page, web_server: Server) -> None:
    enough = threading.Event()

    def ask() -> None:
        with web_server.client(timeout=None) as client:
            while not enough.is_set():
                body = {"prompt": "Once", "max_tokens": 400, "ignore_eos": True}
                client.post("/generate", json=body).raise_for_status()

    askers = [threading.Thread(target=ask) for _ in range(2)]
    for asker in askers:
        asker.start()
    try:
        expect(card(tab, "Running").locator(".status-figure")).not_to_have_text("0")
        expect(card(tab, "Running")).to_contain_text("of 8")
    finally:
        enough.set()
        for asker in askers:
            asker.join()
    web_server.wait_idle()
    expect(card(tab, "Running").locator(".status-figure")).to_have_text("0")


def test_says_what_runs_there(tab: Page, web_server: Server) -> None:
    with web_server.client() as client:
        status = client.get("/status").json()
    row = tab.get_by_role("row", name=re.compile("^homegrown-base"))
    expect(row).to_contain_text("512 tokens")
    for title, name in [("Architecture", "architecture"), ("Kernels", "kernels"), ("PyTorch", "torch")]:
        expect(fact(tab, "With" if title == "Kernels" else title)).to_have_text(str(status["engine"][name]))
    expect(card(tab, "Memory")).to_contain_text(re.compile(r"Engine.*[\d.,]+ (M|G)iB.*HTTP server.*[\d.,]+ (M|G)iB"))


def test_figures_of_every_size(tab: Page) -> None:
    def change(status: dict[str, Any]) -> None:
        status |= {"running": 7, "waiting": 96, "uptime_seconds": 200_000.0, "engine_restarts": 1}
        status["history"]["generated"] = [0] * 59 + [1234]
        status["tokens_per_second"]["last_10_s"] = {"prompt": 0.5, "generated": 12345.6}
        status["latency"]["time_to_first_token"] = {"count": 2000, "p50": 0.00025, "p95": 0.0123, "p99": 95.0}
        status["memory"] = {"engine": 3 * 2**30, "server": 90 * 2**20, "inspector": None}
        status["models"].append({**status["models"][0], "id": "mood", "task": "classify", "parent": "homegrown-base"})

    tab.route("**/status", altered(change))
    expect(card(tab, "Running")).to_contain_text("7 of 8")
    expect(card(tab, "Waiting")).to_contain_text("96 of 128")
    assert tab.evaluate("document.querySelectorAll('.status-fill')[1].style.inlineSize") == "75%"
    expect(tab.get_by_text("up 2 d 7 h")).to_be_visible()
    expect(card(tab, "Writing")).to_contain_text("12,345.6 tokens/s")
    expect(card(tab, "Reading")).to_contain_text("0.5 tokens/s")
    cells = tab.get_by_role("row", name=re.compile("^First token")).get_by_role("cell")
    expect(cells).to_have_text(["250 µs", "12.3 ms", "1 min 35 s", "2,000"])
    expect(card(tab, "Memory")).to_contain_text("3 GiB")
    expect(card(tab, "Memory")).not_to_contain_text("Look inside")
    expect(fact(tab, "Engine restarted")).to_have_text("1 time")
    expect(tab.get_by_role("row", name=re.compile("^mood")).get_by_role("cell")).to_have_text(
        ["labels", "homegrown-base", "512 tokens"]
    )


@pytest.mark.parametrize(
    ("state", "word", "more"),
    [
        ("loading", "Loading", "still loading"),
        ("restarting", "Restarting", "being started again"),
        ("draining", "Shutting down", "takes nothing new"),
        ("failed", "Failed", "log says why"),
    ],
)
def test_states_in_words(tab: Page, state: str, word: str, more: str) -> None:
    tab.route("**/status", altered(lambda status: status.update(state=state, memory=dict.fromkeys(status["memory"]))))
    expect(tab.get_by_text(word, exact=True)).to_be_visible()
    expect(tab.get_by_text(more)).to_be_visible()
    tab.unroute("**/status")
    expect(tab.get_by_text("Ready", exact=True)).to_be_visible()
    expect(tab.get_by_text(more)).to_be_hidden()


def test_a_server_that_ends_is_told_and_its_return_noticed(
    open_page: Callable[..., Page], make_web_server: Callable[..., Server], troubles: Any
) -> None:
    troubles.allow("Failed to load resource")
    server = make_web_server(max_slots=2)
    page = open_page("#status", server=server)
    expect(page.get_by_text("Ready", exact=True)).to_be_visible()
    server.stop()
    expect(page.get_by_text("No answer", exact=True)).to_be_visible()
    expect(page.get_by_text("The server does not answer. The figures below are of")).to_be_visible()
    expect(card(page, "Running")).to_be_visible()
    make_web_server(max_slots=3, port=server.address[1])
    expect(page.get_by_text("Ready", exact=True)).to_be_visible()
    expect(page.get_by_text("The server does not answer")).to_be_hidden()
    expect(card(page, "Running")).to_contain_text("of 3")


def test_an_answer_that_never_comes_is_no_answer(tab: Page) -> None:
    tab.route("**/status", lambda route: None)
    expect(tab.get_by_text("No answer", exact=True)).to_be_visible(timeout=20_000)
    tab.unroute("**/status")
    expect(tab.get_by_text("Ready", exact=True)).to_be_visible()


def test_asks_only_while_it_is_looked_at(tab: Page) -> None:
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url) if request.url.endswith("/status") else None)
    tab.wait_for_timeout(2500)
    assert 1 <= len(asked) <= 4
    tab.get_by_role("tab", name="Classify").click()
    expect(tab.get_by_role("tabpanel", name="Classify")).to_be_visible()
    tab.wait_for_timeout(300)
    asked.clear()
    tab.wait_for_timeout(2500)
    assert asked == []
    tab.get_by_role("tab", name="Status").click()
    with tab.expect_request("**/status"):
        pass


def test_without_a_key_it_stops_and_offers_to_enter_one(
    open_page: Callable[..., Page], make_web_server: Callable[..., Server], troubles: Any
) -> None:
    troubles.allow("401")
    page = open_page("#status", server=make_web_server(max_slots=2, api_key=KEY))
    dialog = page.get_by_role("dialog", name="API key")
    dialog.wait_for()
    page.keyboard.press("Escape")
    button = page.get_by_role("tabpanel", name="Status").get_by_role("button", name="Enter a key")
    expect(button).to_be_visible()
    page.wait_for_timeout(2500)
    expect(dialog).to_have_count(0)  # nobody is asked again and again
    page.clock.install()
    button.click()
    expect(dialog).to_be_visible()
    page.clock.run_for(9000)  # looking for the key takes a while: the server does not
    page.evaluate("""() => new MutationObserver(() => {
      window.blamed ||= document.querySelector("#panel-status").textContent.includes("does not answer");
    }).observe(document.querySelector("#panel-status"), { childList: true, subtree: true, characterData: true })""")
    dialog.get_by_label("Key", exact=True).fill(KEY)
    page.keyboard.press("Enter")
    expect(page.get_by_text("Ready", exact=True)).to_be_visible()
    assert not page.evaluate("window.blamed")


def test_who_closed_the_dialog_is_not_asked_again_by_a_later_refusal(
    open_page: Callable[..., Page], make_web_server: Callable[..., Server], troubles: Any
) -> None:
    troubles.allow("401")
    held: list[Route] = []
    page = open_page("#chat", server=make_web_server(max_slots=2, api_key=KEY))
    dialog = page.get_by_role("dialog", name="API key")
    dialog.wait_for()
    page.route("**/status", lambda route: held.append(route))
    page.evaluate("location.hash = '#status'")
    while not held:
        page.wait_for_timeout(20)
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    held.pop().continue_()
    button = page.get_by_role("tabpanel", name="Status").get_by_role("button", name="Enter a key")
    expect(button).to_be_visible()
    expect(dialog).to_have_count(0)
    page.unroute("**/status")
    button.click()
    expect(dialog).to_be_visible()


def test_a_key_that_is_entered_elsewhere_is_enough(
    open_page: Callable[..., Page], make_web_server: Callable[..., Server], troubles: Any
) -> None:
    troubles.allow("401")
    page = open_page("#status", server=make_web_server(max_slots=2, api_key=KEY))
    dialog = page.get_by_role("dialog", name="API key")
    dialog.wait_for()
    page.keyboard.press("Escape")
    expect(page.get_by_role("tabpanel", name="Status").get_by_role("button", name="Enter a key")).to_be_visible()
    page.locator("#notice").get_by_role("button", name="Enter a key").click()
    dialog.get_by_label("Key", exact=True).fill(KEY)
    page.keyboard.press("Enter")
    expect(page.get_by_text("Ready", exact=True)).to_be_visible()


def test_accessible_and_fitting(
    tab: Page, check_accessible: Callable[[Page], None], check_fits: Callable[[Page], None], troubles: Any
) -> None:
    troubles.allow("Failed to load resource")
    tab.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    check_fits(tab)
    check_accessible(tab)
    tab.route("**/status", lambda route: route.abort())
    expect(tab.get_by_text("No answer", exact=True)).to_be_visible()
    check_fits(tab)
    check_accessible(tab)
