"""What the tests of the page's classify tab share: a classifier, the API's own answers, and a person's hands."""

from pathlib import Path
from typing import Any

from playwright.sync_api import Page
from serving import ROOT, Server

LABELS = ["animals", "weather", "food"]
STARS = ["1 star", "2 stars", "3 stars"]
TEXT = "The dog chased the cat and the horse."


def save_classifier(directory: Path) -> None:
    """The bundled model with a head of random weights."""
    import torch

    from model.checkpoint import load_model, save_model
    from model.classifier import as_classifier
    from model.tokenizer import Tokenizer

    torch.set_num_threads(1)
    base = ROOT / "checkpoints" / "homegrown-base"
    model = as_classifier(load_model(base), STARS, seed=3)
    with torch.no_grad():
        model.score.weight.mul_(5)
    save_model(model, directory)
    Tokenizer.from_directory(base).save(directory)


def ask(server: Server, texts: list[str], **body: Any) -> list[dict[str, Any]]:
    """The API's own answers."""
    with server.client() as client:
        response = client.post("/classify", json={"input": texts, **body})
    assert response.status_code == 200, response.text
    return response.json()["data"]


def add_labels(page: Page, labels: list[str] = LABELS) -> None:
    """Type them, as a person would."""
    page.get_by_label("Labels", exact=True).and_(page.locator("input")).focus()
    for label in labels:
        page.keyboard.type(label)
        page.keyboard.press("Enter")
