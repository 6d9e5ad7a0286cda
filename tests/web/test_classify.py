"""The classify tab with one text: own labels and a trained classifier, against real servers."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from classifying import LABELS, TEXT, add_labels, ask
from playwright.sync_api import Locator, Page, Route, expect
from serving import Server


@pytest.fixture
def tab(open_page: Callable[..., Page]) -> Page:
    """The tab, for a new visitor."""
    return open_page("#classify")


def shown_bars(bars: Locator) -> list[tuple[str, str]]:
    """Label and value of each."""
    expect(bars.get_by_role("listitem").first).to_be_visible()
    return [tuple(item.locator("> span").all_inner_texts()[::2]) for item in bars.get_by_role("listitem").all()]  # type: ignore[misc]


def expected_bars(scores: dict[str, float]) -> list[tuple[str, str]]:
    return [(label, f"{100 * score:.1f} %") for label, score in sorted(scores.items(), key=lambda pair: -pair[1])]


def scores_of(page: Page) -> list[tuple[str, str]]:
    return shown_bars(page.get_by_role("list", name="Labels by probability"))


def test_own_labels_by_keyboard_alone(tab: Page, web_server: Server) -> None:
    add_labels(tab)
    tab.keyboard.type("plants, ")  # a comma ends a label too
    expect(tab.get_by_role("list", name="Labels", exact=True).get_by_role("listitem")).to_have_count(4)
    tab.keyboard.press("Backspace")  # on the empty line: to the last label's cross
    expect(tab.get_by_role("button", name="Remove label plants")).to_be_focused()
    tab.keyboard.press("Enter")
    for _ in range(20):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.labels?.[0]?.textContent") == "Text":
            break
    tab.keyboard.type(TEXT)
    tab.keyboard.press("Control+Enter")
    template = tab.evaluate("(async () => (await import('/page/tabs/classify/wording.js')).TEMPLATE)()")
    answer = ask(web_server, [TEXT], labels=LABELS, template=template)[0]
    assert scores_of(tab) == expected_bars(answer["scores"])
    expect(tab.get_by_role("heading", name=answer["label"])).to_be_visible()


def test_examples_are_shown_to_the_model(tab: Page, web_server: Server) -> None:
    add_labels(tab)
    tab.get_by_label("Text", exact=True).fill("It was cold and wet.")
    tab.get_by_role("button", name="Classify", exact=True).click()
    plain = scores_of(tab)
    tab.get_by_label("The right label").select_option("weather")
    tab.get_by_role("button", name="Add as an example").click()
    tab.get_by_role("button", name="Add an example", exact=True).click()
    tab.keyboard.type(TEXT)
    tab.get_by_label("Label of example 2").select_option("animals")
    tab.get_by_text("Wording").click()
    tab.get_by_label("How a text is put to the model").fill("Words: {text}\nOf: {label}")
    tab.get_by_label("Text", exact=True).fill("She cooked.")
    with tab.expect_response("**/classify"):
        tab.get_by_role("button", name="Classify", exact=True).click()
    examples = [{"text": "It was cold and wet.", "label": "weather"}, {"text": TEXT, "label": "animals"}]
    answer = ask(web_server, ["She cooked."], labels=LABELS, examples=examples, template="Words: {text}\nOf: {label}")
    expect(tab.get_by_role("heading", name=answer[0]["label"])).to_be_visible()
    assert scores_of(tab) == expected_bars(answer[0]["scores"])
    assert scores_of(tab) != plain
    tab.reload()  # all of it is remembered
    expect(tab.get_by_label("Text of example 1")).to_have_value("It was cold and wet.")
    expect(tab.get_by_label("Label of example 2")).to_have_value("animals")
    expect(tab.get_by_label("How a text is put to the model")).to_have_value("Words: {text}\nOf: {label}")
    assert tab.get_by_role("list", name="Labels", exact=True).get_by_role("listitem").count() == 3


def test_a_trained_classifier(open_page: Callable[..., Page], star_server: Server) -> None:
    page = open_page("#classify", server=star_server)
    expect(page.get_by_label("Trained classifier")).to_be_checked()
    expect(page.get_by_label("Classifier", exact=True)).to_have_value("stars")
    page.get_by_label("Text", exact=True).fill(TEXT)
    page.get_by_role("button", name="Classify", exact=True).click()
    assert scores_of(page) == expected_bars(ask(star_server, [TEXT])[0]["scores"])
    page.get_by_label("Own labels").check()
    expect(page.get_by_text("This server has no language model")).to_be_visible()


def test_without_a_classifier_it_tells_how_to_make_one(tab: Page) -> None:
    tab.get_by_label("Trained classifier").check()
    expect(tab.get_by_text("homegrown finetune classify")).to_be_visible()
    tab.get_by_label("Text", exact=True).fill(TEXT)
    tab.get_by_role("button", name="Classify", exact=True).click()
    expect(tab.get_by_text("There is no classifier to ask")).to_be_visible()


def test_labels_that_are_numbers_keep_the_order_of_their_probabilities(tab: Page, web_server: Server) -> None:
    add_labels(tab, ["3", "1", "2"])
    tab.get_by_label("Text", exact=True).fill(TEXT)
    tab.get_by_role("button", name="Classify", exact=True).click()
    assert scores_of(tab) == expected_bars(ask(web_server, [TEXT], labels=["3", "1", "2"])[0]["scores"])


def test_mistakes_are_told_where_they_are(tab: Page, troubles: Any) -> None:
    troubles.allow("400")
    classify = tab.get_by_role("button", name="Classify", exact=True)
    field = tab.get_by_label("Labels", exact=True).and_(tab.locator("input"))
    classify.click()
    expect(tab.get_by_text("Name at least two labels")).to_be_visible()
    expect(field).to_be_focused()
    add_labels(tab, ["one"])
    classify.click()
    expect(tab.get_by_text("One label is no choice")).to_be_visible()
    add_labels(tab, ["two", "one"])
    expect(tab.get_by_text("“one” is there already.")).to_be_visible()
    field.fill("three")  # what is still being written counts
    classify.click()
    expect(tab.get_by_text("Write a text first.")).to_be_visible()
    expect(tab.get_by_role("button", name="Remove label three")).to_be_visible()
    tab.get_by_label("Text", exact=True).fill(TEXT)
    tab.get_by_text("Wording").click()
    wording = tab.get_by_label("How a text is put to the model")
    wording.fill("no place for a text")
    classify.click()
    expect(wording).to_have_attribute("aria-invalid", "true")
    expect(tab.get_by_text("must have {text} once and end in {label}")).to_be_visible()
    tab.get_by_role("button", name="Back to the usual").click()
    tab.get_by_text("Examples", exact=True).click()
    tab.get_by_role("button", name="Add an example", exact=True).click()
    classify.click()
    expect(tab.get_by_text("Example 1 has no text")).to_be_visible()
    tab.get_by_label("Text of example 1").fill("word " * 600)
    classify.click()
    expect(tab.get_by_text("maximum context length is 512 tokens")).to_be_visible()
    tab.get_by_role("button", name="Remove label one").click()
    classify.click()
    expect(tab.get_by_text("Example 1 needs one of the labels.")).to_be_visible()
    tab.get_by_role("button", name="Remove example 1").click()
    classify.click()
    expect(tab.get_by_role("list", name="Labels by probability")).to_be_visible()


def test_a_server_that_is_away_is_told_beside_the_text(tab: Page, troubles: Any) -> None:
    troubles.allow("Failed to load resource")
    add_labels(tab)
    tab.get_by_label("Text", exact=True).fill(TEXT)
    tab.route("**/classify", lambda route: route.abort())
    tab.get_by_role("button", name="Classify", exact=True).click()
    expect(tab.get_by_role("alert").filter(has_text="can't be reached")).to_be_visible()
    tab.unroute("**/classify")
    tab.get_by_role("button", name="Classify", exact=True).click()
    expect(tab.get_by_role("list", name="Labels by probability")).to_be_visible()


def test_an_answer_to_something_else_is_dropped_and_two_clicks_stop_nothing(tab: Page) -> None:
    held: list[Route] = []
    tab.route("**/classify", lambda route: held.append(route))
    add_labels(tab)
    tab.get_by_label("Text", exact=True).fill(TEXT)
    classify = tab.get_by_role("button", name="Classify", exact=True)
    stop = tab.get_by_role("button", name="Stop", exact=True)
    classify.dblclick()
    expect(stop).to_be_visible()
    tab.wait_for_timeout(200)
    expect(stop).to_be_visible()
    tab.get_by_role("button", name="mood").click()  # another question
    expect(classify).to_be_visible()
    tab.unroute("**/classify")
    classify.click()
    expect(tab.get_by_role("list", name="Labels by probability")).to_be_visible()
    tab.get_by_label("Trained classifier").check()
    expect(tab.get_by_role("list", name="Labels by probability")).to_have_count(0)


def test_a_text_that_is_too_long_says_that_it_was_cut(tab: Page) -> None:
    add_labels(tab)
    tab.get_by_label("Text", exact=True).fill("word " * 2000)
    tab.get_by_role("button", name="Classify", exact=True).click()
    expect(tab.get_by_text("its end was left out")).to_be_visible()


def test_the_chosen_model_is_asked(tab: Page, troubles: Any) -> None:
    """An adapter that the header's choice names goes into the request."""
    troubles.allow("Failed to load resource")

    def models(route: Route) -> None:
        answer = httpx.get(route.request.url).json()
        answer["data"].append({**answer["data"][0], "id": "pirate", "parent": "homegrown-base"})
        route.fulfill(status=200, content_type="application/json", body=json.dumps(answer))

    tab.route("**/v1/models", models)
    tab.reload()
    tab.get_by_label("Model", exact=True).select_option("pirate")
    expect(tab.get_by_text("Asked of pirate")).to_be_visible()
    add_labels(tab)
    tab.get_by_label("Text", exact=True).fill(TEXT)
    tab.route("**/classify", lambda route: route.abort())
    with tab.expect_request("**/classify") as request:
        tab.get_by_role("button", name="Classify", exact=True).click()
    assert json.loads(request.value.post_data or "")["model"] == "pirate"
