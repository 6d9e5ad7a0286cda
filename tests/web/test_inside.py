"""Look inside: attention and the logit lens of a short text, shown as the server tells them."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, Route, expect
from serving import Server

PHONE = (360, 740)
TEXT = "The old man looked at the sea and the sea"


@pytest.fixture(scope="module")
def seen(web_server: Server) -> dict[str, Any]:
    """What the server says of TEXT."""
    with web_server.client(timeout=120) as client:
        return client.post("/inspect", json={"text": TEXT}).raise_for_status().json()


def look(page: Page, text: str = TEXT) -> None:
    """Ask for a text and wait for the answer."""
    page.get_by_label("A short text").fill(text)
    page.get_by_role("button", name="Look inside", exact=True).click()
    expect(page.locator(".lens")).to_be_visible()
    expect(page.locator("[aria-busy=true]")).to_have_count(0)


@pytest.fixture
def inside(open_page: Callable[..., Page], seen: dict[str, Any]) -> Page:
    """The tab with TEXT looked at. (`seen` has started what computes it.)"""
    page = open_page("#inside")
    look(page)
    return page


def shares(bars: Locator) -> list[float]:
    return bars.evaluate_all("(all) => all.map((e) => Number(e.style.getPropertyValue('--share')))")


def unsigned(text: str | None) -> str:
    return (text or "").replace("␣", " ").replace("↵", "\n")


def choose_head(page: Page, layer: int, head: int) -> None:
    page.get_by_label("Layer", exact=True).select_option(str(layer + 1))
    page.get_by_label("Head", exact=True).select_option(str(head + 1))


def test_a_token_shows_where_the_chosen_head_looks(inside: Page, seen: dict[str, Any]) -> None:
    choose_head(inside, 1, 2)
    query = 7
    inside.locator(".look-token").nth(query).hover()
    row = seen["attention"][1][2][query]
    best = sorted(range(len(row)), key=lambda key: -row[key])[:6]
    bars = inside.locator(".look-bars li")
    assert shares(bars.locator(".look-bar > span")) == [row[key] for key in best]
    names = [unsigned(name) for name in bars.locator(".look-name").all_text_contents()]
    itself = [" (itself)" if key == query else "" for key in best]
    assert names == [seen["tokens"][key]["text"] + note for key, note in zip(best, itself, strict=True)]
    weights = inside.locator(".look-token").evaluate_all(
        "(all) => all.map((e) => +e.style.getPropertyValue('--weight'))"
    )
    assert weights == pytest.approx([weight**0.7 for weight in row])
    expect(inside.locator(".look-token[aria-current]")).to_have_text(seen["tokens"][query]["text"])


def test_the_map_is_drawn_from_the_weights_and_tells_what_is_pointed_at(inside: Page, seen: dict[str, Any]) -> None:
    choose_head(inside, 2, 0)
    matrix = seen["attention"][2][0]
    canvas = inside.locator(".bigmap canvas")
    alphas = canvas.evaluate(
        """(e) => [...e.getContext("2d").getImageData(0, 0, e.width, e.height).data].filter((_, at) => at % 4 === 3)"""
    )
    expected = [round(255 * weight**0.7) for row in matrix for weight in row]
    assert alphas == pytest.approx(expected, abs=1)
    size = len(matrix)
    box = inside.locator(".bigmap-field").bounding_box()
    assert box is not None
    query, key = size - 2, 1
    inside.locator(".bigmap-field").hover(
        position={"x": box["width"] * (key + 0.5) / size, "y": box["height"] * (query + 0.5) / size}
    )
    reading = unsigned(inside.locator(".bigmap-reading").text_content())
    assert reading.startswith(f"“{seen['tokens'][query]['text']}” looks at “{seen['tokens'][key]['text']}”: ")
    assert float(reading.rpartition(": ")[2].removesuffix(" %").removeprefix("< ")) == pytest.approx(
        100 * matrix[query][key], abs=0.5
    )
    expect(inside.locator(".look-token").nth(query)).to_have_attribute("aria-current", "true")


def test_all_heads_side_by_side_choose_one_with_the_keyboard(inside: Page, seen: dict[str, Any]) -> None:
    cells = inside.locator(".headgrid-cell")
    expect(cells).to_have_count(seen["layers"] * (seen["heads"] + 1))
    inside.get_by_role("button", name="Layer 1, mean of its heads").focus()
    inside.keyboard.press("ArrowRight")
    inside.keyboard.press("ArrowDown")
    inside.keyboard.press("ArrowDown")
    expect(inside.get_by_role("button", name="Layer 3, head 1")).to_be_focused()
    inside.keyboard.press("Enter")
    expect(inside.get_by_role("button", name="Layer 3, head 1")).to_have_attribute("aria-pressed", "true")
    expect(inside.get_by_label("Layer", exact=True)).to_have_value("2")
    expect(inside.get_by_label("Head", exact=True)).to_have_value("0")
    inside.keyboard.press("Home")
    inside.keyboard.press("Enter")
    expect(inside.get_by_label("Head", exact=True)).to_have_value("")
    heads = [head[5] for head in seen["attention"][2]]
    mean = [sum(weights) / len(weights) for weights in zip(*heads, strict=True)]
    inside.locator(".look-token").nth(5).focus()
    assert shares(inside.locator(".look-bars .look-bar > span"))[0] == pytest.approx(max(mean))


def test_tokens_are_gone_through_with_the_arrow_keys(inside: Page, seen: dict[str, Any]) -> None:
    items = inside.locator(".look-token")
    items.last.focus()
    inside.keyboard.press("ArrowLeft")
    inside.keyboard.press("ArrowLeft")
    expect(items.nth(len(seen["tokens"]) - 3)).to_have_attribute("aria-current", "true")
    inside.locator(".look-token").nth(2).dispatch_event("click")  # a tap, which gives no focus on some telephones
    expect(inside.locator(".look-token").nth(2)).to_have_attribute("aria-current", "true")
    inside.keyboard.press("Control+Home")
    expect(inside.locator(".look-bars")).to_contain_text("“The” looks at")
    assert shares(inside.locator(".look-bars .look-bar > span")) == [1]  # there is nothing else before it


def test_the_lens_has_every_layers_guess_behind_every_token(inside: Page, seen: dict[str, Any]) -> None:
    rows = inside.locator(".lens tbody tr")
    expect(rows).to_have_count(seen["layers"] + 1)
    ids = [token["id"] for token in seen["tokens"]]
    for layer, guesses in enumerate(seen["lens"]):
        shown = [unsigned(text) for text in rows.nth(layer).locator(".lens-guess").all_text_contents()]
        assert shown == [position[0]["text"] for position in guesses]
        right = [text.startswith("✓") for text in rows.nth(layer).locator(".lens-share").all_text_contents()]
        assert right == [
            position[0]["id"] == next_id for position, next_id in zip(guesses, [*ids[1:], None], strict=True)
        ]
    last = inside.locator(".lens-detail")
    expect(last).to_contain_text(f"After layer {seen['layers']}: the answer")
    assert shares(last.locator(".look-bar > span")) == [guess["probability"] for guess in seen["lens"][-1][-1]]

    inside.locator(".lens-cell[aria-pressed]").focus()
    inside.keyboard.press("ArrowUp")
    inside.keyboard.press("ArrowLeft")
    inside.keyboard.press("ArrowLeft")
    expect(last).to_contain_text(f"After layer {seen['layers'] - 1}, behind")
    assert shares(last.locator(".look-bar > span")) == [guess["probability"] for guess in seen["lens"][-2][-3]]


def test_the_last_row_is_what_the_model_really_says(inside: Page, web_server: Server) -> None:
    with web_server.client() as client:
        body = {"prompt": TEXT, "temperature": 0, "max_tokens": 1, "logprobs": 5}
        token = client.post("/generate", json=body).json()["logprobs"][0]["token"]
    assert unsigned(inside.locator(".lens tbody tr").last.locator(".lens-guess").last.text_content()) == token


def test_an_example_and_the_enter_key_look_too(open_page: Callable[..., Page], seen: dict[str, Any]) -> None:
    page = open_page("#inside")
    page.get_by_role("group", name="Examples").get_by_role("button").last.click()
    expect(page.locator(".lens")).to_be_visible()
    example = page.get_by_label("A short text").input_value()
    assert page.locator(".look-text").text_content() == example
    page.get_by_label("A short text").fill("Two words")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if request.url.endswith("/inspect") else None)
    for _ in range(3):  # held down
        page.keyboard.down("Enter")
    expect(page.locator(".look-text")).to_have_text("Two words")
    assert len(asked) == 1
    page.reload()
    expect(page.get_by_label("A short text")).to_have_value("Two words")
    page.get_by_text("How a transformer works").click()
    expect(page.get_by_text("never ahead", exact=False)).to_be_visible()


def test_one_token_and_parts_of_characters(inside: Page, web_server: Server) -> None:
    look(inside, "The")
    expect(inside.locator(".look-token")).to_have_count(1)
    look(inside, "海 ☃")
    expect(inside.locator(".look-token")).not_to_have_count(1)
    assert unsigned(inside.locator(".look-text").text_content()).replace("·", "") == "海 ☃"
    expect(inside.locator(".lens thead th").nth(1)).to_have_text(re.compile("^‹[0-9a-f ]+›$"))
    with web_server.client(timeout=120) as client:
        lens = client.post("/inspect", json={"text": "海 ☃"}).raise_for_status().json()["lens"]
    first = [guesses[0] for layer in lens for guesses in layer]
    names = inside.locator(".lens-guess").all_text_contents()
    parts = [(name, guess["bytes"]) for name, guess in zip(names, first, strict=True) if "\ufffd" in guess["text"]]
    assert parts, "no guess is a part of a character"
    assert all(name == f"‹{bytes(data).hex(' ')}›" for name, data in parts)


def test_what_is_wrong_is_told_and_what_was_seen_stays(inside: Page, troubles: Any) -> None:
    troubles.allow("status of 400|status of 504|ERR_FAILED|ERR_CONNECTION")
    text = inside.get_by_label("A short text")
    button = inside.get_by_role("button", name="Look inside", exact=True)
    text.fill("sea " * 200)
    button.click()
    alert = inside.locator(".inside").get_by_role("alert")
    expect(alert).to_contain_text("at most 128")
    expect(button).to_be_focused()
    expect(text).to_have_attribute("aria-invalid", "true")
    expect(inside.locator(".look-text")).to_have_text(TEXT)

    error = {"message": "It took longer than 60 s.", "type": "server_error", "param": None, "code": "timeout"}
    inside.route("**/inspect", lambda route: route.fulfill(status=504, json={"error": error}), times=1)
    text.fill(TEXT)
    button.click()
    expect(alert).to_contain_text("It took longer than 60 s.")
    inside.route("**/inspect", lambda route: route.abort("connectionrefused"), times=1)
    button.click()
    expect(alert).to_contain_text("can't be reached")
    look(inside)
    expect(alert).to_have_count(0)
    expect(text).not_to_have_attribute("aria-invalid", "true")


def test_layers_that_one_answer_has_no_room_for_come_when_they_are_chosen(
    open_page: Callable[..., Page], seen: dict[str, Any], troubles: Any
) -> None:
    troubles.allow("status of (400|429)")
    page = open_page("#inside")
    asked: list[Any] = []

    def answer(route: Route) -> None:
        body = route.request.post_data_json
        assert body is not None
        layers = body.get("layers")
        asked.append(layers)
        if layers is None:
            error = {"message": "layers: name at most 1 of them", "type": "invalid_request_error", "param": "layers"}
            route.fulfill(status=400, json={"error": error | {"code": "invalid_value"}})
        else:
            attention = [seen["attention"][layer] for layer in layers]
            route.fulfill(json=seen | {"attention_layers": layers, "attention": attention})

    page.route("**/inspect", answer)
    look(page)
    assert asked == [None, [0]]
    page.get_by_role("button", name="Layer 3, head 2").click()
    expect(page.get_by_role("button", name="Layer 3, head 2")).to_have_attribute("aria-pressed", "true")
    assert asked == [None, [0], [2]]
    page.locator(".look-token").nth(6).focus()
    assert shares(page.locator(".look-bars .look-bar > span"))[0] == max(seen["attention"][2][1][6])

    page.unroute("**/inspect")
    error = {"message": "The queue is full.", "type": "rate_limit_error", "param": None, "code": "queue_full"}
    page.route("**/inspect", lambda route: route.fulfill(status=429, json={"error": error}))
    page.get_by_label("Layer", exact=True).select_option(label="2")
    expect(page.get_by_role("alert").filter(has_text="Layer 2 can’t be shown: The queue is full.")).to_be_visible()
    expect(page.get_by_label("Layer", exact=True)).to_have_value("2")  # what is shown stays


def test_a_change_of_colours_repaints_the_maps(inside: Page) -> None:
    pixel = """(e) => [...e.getContext("2d").getImageData(0, 0, 1, 1).data]"""
    canvas = inside.locator(".bigmap canvas")
    light = canvas.evaluate(pixel)
    inside.get_by_role("button", name=re.compile("^Colours")).click()  # light, by choice
    assert canvas.evaluate(pixel) == light
    inside.get_by_role("button", name=re.compile("^Colours")).click()  # dark
    inside.wait_for_timeout(100)
    dark = canvas.evaluate(pixel)
    assert dark[:3] != light[:3]
    assert dark[3] == light[3] == 255  # the first token can only look at itself


@pytest.mark.parametrize("size", [(1200, 800), PHONE], ids=["wide", "phone"])
def test_it_is_accessible_and_fits(
    open_page: Callable[..., Page],
    check_accessible: Callable[[Page], None],
    check_fits: Callable[[Page], None],
    seen: dict[str, Any],
    size: tuple[int, int],
) -> None:
    page = open_page("#inside", size=size)
    check_accessible(page)
    page.get_by_text("How a transformer works").click()
    look(page)
    check_accessible(page)
    check_fits(page)
    look(page, "naïve 海 " + "A" * 40 + " the sea and the old man" * 10)  # more than has room for labels
    check_accessible(page)
    check_fits(page)


def test_habits_of_heads(open_page: Callable[..., Page]) -> None:
    page = open_page("#inside")
    run = "async ([name, ...args]) => (await import('/page/lib/heads.js'))[name](...args)"
    previous = [[1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0.25, 0, 0.5, 0.25]]
    found = page.evaluate(run, ["habits", previous, [7, 8, 9, 7]])
    assert found == {"first": 0.125, "previous": 0.75, "itself": 0.125, "repeat": None}
    induction = [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 1, 0, 0], [0.2, 0, 0, 0.8, 0]]
    found = page.evaluate(run, ["habits", induction, [5, 7, 8, 7, 8]])
    assert found["repeat"] == pytest.approx((1 + 0.8) / 2)
    assert page.evaluate(run, ["habits", [[1, 0], [0.5, 0.5]], [1, 2]]) is None
    assert page.evaluate(run, ["sharpness", previous]) == pytest.approx((1 + 0.5) / 2)
    assert page.evaluate(run, ["strongest", [0.1, 0.6, 0.0001, 0.3], 2]) == [
        {"key": 1, "weight": 0.6},
        {"key": 3, "weight": 0.3},
    ]
    assert page.evaluate(run, ["meanOf", [[[1, 0], [0.5, 0.5]], [[1, 0], [0, 1]]]]) == [[1, 0], [0.25, 0.75]]
