"""The page's frame: tabs, theme, model, key, what happens when the server is not there."""

import json
import re
from collections.abc import Callable

import httpx
import pytest
from playwright.sync_api import Page, Route, expect
from serving import Server

TABS = ["Chat", "Write", "Classify", "Look inside", "Status"]
PHONE = (360, 740)
KEY = "a-key-for-tests"


@pytest.fixture(scope="module")
def locked_server(make_web_server: Callable[..., Server]) -> Server:
    """A server that needs a key."""
    return make_web_server(api_key=KEY)


def background(page: Page) -> str:
    """The page's colour."""
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


@pytest.mark.parametrize("name", TABS)
def test_each_tab_opens_by_its_address(open_page: Callable[..., Page], name: str) -> None:
    page = open_page(f"#{name.split()[-1].lower()}")
    tab = page.get_by_role("tab", name=name)
    expect(tab).to_have_attribute("aria-selected", "true")
    expect(page.get_by_role("tabpanel", name=name)).to_be_visible()
    expect(page.get_by_role("tabpanel")).to_have_count(1)
    expect(page).to_have_title(f"{name} · Homegrown")


def test_tabs_by_keyboard(open_page: Callable[..., Page]) -> None:
    page = open_page()
    page.get_by_role("tab", name="Chat").focus()
    for key, name in [("ArrowRight", "Write"), ("End", "Status"), ("ArrowRight", "Chat"), ("ArrowLeft", "Status")]:
        page.keyboard.press(key)
        expect(page.get_by_role("tab", name=name)).to_be_focused()
        expect(page.get_by_role("tabpanel", name=name)).to_be_visible()
    page.go_back()
    expect(page.get_by_role("tabpanel", name="Chat")).to_be_visible()


def test_an_unknown_address_shows_the_first_tab(open_page: Callable[..., Page]) -> None:
    page = open_page("#nothing")
    expect(page.get_by_role("tab", name="Chat")).to_have_attribute("aria-selected", "true")


def test_theme_is_the_systems_until_chosen_and_then_stays(open_page: Callable[..., Page]) -> None:
    page = open_page(scheme="dark")
    dark = background(page)
    button = page.get_by_role("button", name=re.compile("^Colours"))
    expect(button).to_have_accessible_name("Colours: as the system")
    button.click()
    expect(button).to_have_accessible_name("Colours: light")
    light = background(page)
    assert light != dark
    page.reload()
    assert background(page) == light
    button.click()
    expect(button).to_have_accessible_name("Colours: dark")
    assert background(page) == dark
    button.click()
    page.emulate_media(color_scheme="light")
    assert background(page) == light


@pytest.mark.parametrize("name", TABS)
def test_accessible_and_fitting_on_a_phone(
    open_page: Callable[..., Page],
    check_accessible: Callable[[Page], None],
    check_fits: Callable[[Page], None],
    name: str,
) -> None:
    page = open_page(f"#{name.split()[-1].lower()}", size=PHONE)
    expect(page.get_by_label("Model", exact=True)).not_to_contain_text("Loading")
    expect(page.locator("[role=tabpanel][aria-busy]")).to_have_count(0)
    check_fits(page)
    check_accessible(page)


def test_the_page_asks_for_a_key_and_says_when_it_is_wrong(
    open_page: Callable[..., Page], locked_server: Server, check_accessible: Callable[[Page], None], troubles
) -> None:
    troubles.allow("401")
    page = open_page(server=locked_server)
    dialog = page.get_by_role("dialog", name="API key")
    field = dialog.get_by_label("Key", exact=True)
    expect(field).to_be_focused()
    check_accessible(page)
    page.keyboard.press("Enter")
    expect(dialog.get_by_role("alert")).to_have_text("Enter a key.")
    field.fill("wrong")
    page.keyboard.press("Enter")
    expect(dialog.get_by_role("alert")).to_contain_text("not accepted")
    field.fill(KEY)
    page.keyboard.press("Enter")
    expect(dialog).to_have_count(0)
    expect(page.get_by_label("Model", exact=True)).to_contain_text("homegrown-base")


@pytest.mark.parametrize("remember", [False, True])
def test_a_key_outlives_the_window_only_if_wanted(
    open_page: Callable[..., Page], locked_server: Server, troubles, remember: bool
) -> None:
    troubles.allow("401")
    page = open_page(server=locked_server)
    dialog = page.get_by_role("dialog", name="API key")
    dialog.get_by_label("Key", exact=True).fill(KEY)
    dialog.get_by_label("Keep it in this browser").set_checked(remember)
    dialog.get_by_role("button", name="Use key").click()
    expect(page.get_by_label("Model", exact=True)).to_contain_text("homegrown-base")
    page.reload()
    expect(page.get_by_label("Model", exact=True)).to_contain_text("homegrown-base")
    stored = page.evaluate("JSON.stringify(localStorage)")
    assert (KEY in stored) == remember
    other = page.context.new_page()
    other.goto(page.url)
    expect(other.get_by_role("dialog", name="API key")).to_have_count(0 if remember else 1)
    page.get_by_role("button", name="Key", exact=True).click()
    page.get_by_role("button", name="Forget key").click()
    assert KEY not in page.evaluate("JSON.stringify(localStorage) + JSON.stringify(sessionStorage)")
    expect(page.get_by_role("button", name="Key", exact=True)).to_be_hidden()


def test_without_a_key_the_page_says_so(open_page: Callable[..., Page], locked_server: Server, troubles) -> None:
    troubles.allow("401")
    page = open_page(server=locked_server)
    page.get_by_role("dialog").wait_for()
    page.keyboard.press("Escape")
    expect(page.locator("#notice")).to_contain_text("Without a key")
    page.get_by_role("button", name="Enter a key").click()
    page.get_by_role("dialog").get_by_label("Key", exact=True).fill(KEY)
    page.keyboard.press("Enter")
    expect(page.locator("#notice")).to_be_hidden()
    page.get_by_label("Message", exact=True).fill("Hello")
    page.keyboard.press("Enter")
    expect(page.locator(".message.assistant .meta")).to_contain_text("tokens/s")


def test_waits_for_a_server_that_is_away(open_page: Callable[..., Page], web_server: Server, troubles) -> None:
    troubles.allow("Failed to load resource")
    page = open_page()
    expect(page.get_by_label("Model", exact=True)).to_contain_text("homegrown-base")
    page.route("**/v1/models", lambda route: route.abort())
    page.reload()
    expect(page.locator("#notice")).to_contain_text("can't be reached")
    page.unroute("**/v1/models")
    expect(page.locator("#notice")).to_be_hidden()
    expect(page.get_by_label("Model", exact=True)).to_contain_text("homegrown-base")
    held: list[Route] = []
    page.route("**/v1/models", lambda route: held.append(route))
    for _ in range(3):  # who comes back to the window again and again asks once
        page.evaluate("dispatchEvent(new Event('focus'))")
    page.wait_for_timeout(300)
    assert len(held) == 1


def models_with(*more: dict[str, object], **changed: object) -> Callable[[Route], None]:
    """Answers /v1/models with the real list, changed, and some more."""

    def handle(route: Route) -> None:
        answer = httpx.get(route.request.url).json()
        answer["data"] = [{**answer["data"][0], **changed, **model} for model in ({}, *more)]
        route.fulfill(status=200, content_type="application/json", body=json.dumps(answer))

    return handle


def test_model_choice_offers_what_writes_and_is_remembered(open_page: Callable[..., Page], troubles) -> None:
    troubles.allow("status of 404")
    page = open_page("#status")
    page.route(
        "**/v1/models",
        models_with(
            {"id": "pirate", "parent": "homegrown-base"},
            {"id": "mood", "parent": "homegrown-base", "task": "classify"},
        ),
    )
    page.reload()
    picker = page.get_by_label("Model", exact=True)
    expect(picker.get_by_role("option")).to_have_text(["Server’s choice", "homegrown-base", "pirate"])
    picker.select_option("pirate")
    page.reload()
    expect(picker).to_have_value("pirate")
    page.get_by_role("tab", name="Chat").click()
    with page.expect_request("**/v1/chat/completions") as asked:
        page.get_by_label("Message", exact=True).fill("Ahoy")
        page.keyboard.press("Enter")
    assert json.loads(asked.value.post_data or "{}")["model"] == "pirate"
    expect(page.get_by_role("alert").filter(has_text="There is no model 'pirate' here")).to_be_visible()


def test_a_server_that_only_classifies_says_so_in_the_chat(open_page: Callable[..., Page]) -> None:
    page = open_page("#chat")
    page.route("**/v1/models", models_with(task="classify"))
    page.reload()
    expect(page.get_by_label("Model", exact=True)).to_contain_text("no model that writes")
    expect(page.get_by_text("Use the tab Classify")).to_be_visible()
    expect(page.get_by_label("Message", exact=True)).to_be_disabled()


def test_works_under_a_path_of_a_proxy(open_page: Callable[..., Page], browser, web_server: Server, troubles) -> None:
    """Everything is asked relative to the page: here a stand-in proxy has it under /gpt/."""
    context = browser.new_context()
    page = context.new_page()
    troubles.watch(page)
    base = "http://{}:{}".format(*web_server.address)

    def forward(route: Route) -> None:
        path = route.request.url.split("//", 1)[1].split("/", 1)[1]
        if not path.startswith("gpt/"):
            route.fulfill(status=502)
            return
        answer = httpx.get(f"{base}/{path.removeprefix('gpt/')}")
        route.fulfill(status=answer.status_code, headers=dict(answer.headers), body=answer.content)

    page.route("**/*", forward)
    page.goto("http://proxy.example/gpt/#chat")
    expect(page.get_by_label("Model", exact=True)).to_contain_text("homegrown-base")
    expect(page.get_by_role("tabpanel", name="Chat").get_by_role("textbox").first).to_be_visible()
    context.close()


def test_a_mistake_in_the_page_is_told(open_page: Callable[..., Page], troubles) -> None:
    troubles.allow("on purpose")
    page = open_page()
    page.evaluate("setTimeout(() => { throw new Error('on purpose'); })")
    expect(page.get_by_role("alert").filter(has_text="Something went wrong in the page: on purpose")).to_be_visible()
    page.get_by_role("button", name="Close message").click()
    page.evaluate("void Promise.reject(new Error('on purpose again'))")
    expect(page.get_by_role("alert").filter(has_text="on purpose again")).to_be_visible()


def test_a_tab_that_cannot_be_loaded_says_so_and_can_be_tried_again(open_page: Callable[..., Page], troubles) -> None:
    troubles.allow("Failed to (load resource|fetch)|can't be loaded")
    page = open_page("#chat")
    page.route("**/tabs/write.js", lambda route: route.abort())
    page.get_by_role("tab", name="Write").click()
    expect(page.get_by_role("alert")).to_contain_text("This part of the page can’t be loaded")
    page.unroute("**/tabs/write.js")
    page.get_by_role("button", name="Load the page again").click()
    expect(page.get_by_role("tabpanel", name="Write").get_by_role("textbox").first).to_be_visible()
    page.route("**/tabs/inside.css", lambda route: route.abort())
    page.get_by_role("tab", name="Look inside").click()
    expect(page.get_by_role("alert").filter(has_text="can’t be loaded")).to_be_visible()
    page.unroute("**/tabs/inside.css")
    page.get_by_role("tab", name="Write").click()
    page.get_by_role("tab", name="Look inside").click()
    expect(page.get_by_label("A short text")).to_be_visible()
    expect(page.get_by_role("alert").filter(has_text="can’t be loaded")).to_have_count(0)


def test_a_text_can_never_become_code(open_page: Callable[..., Page], troubles) -> None:
    """The policy forbids scripts and styles that are not files of the server."""
    troubles.allow("Content Security Policy|content security policy")
    page = open_page()
    page.evaluate("""() => {
      const script = document.createElement("script");
      script.textContent = "window.broken = true";
      document.body.append(script);
    }""")
    assert page.evaluate("window.broken === undefined")
    assert any("Content Security Policy" in text for text in troubles.seen)
