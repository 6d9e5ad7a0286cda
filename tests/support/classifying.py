"""What the tests of the page's classify tab share: a classifier, the API's own answers, and a person's hands."""

import csv
import io
import re
from pathlib import Path
from typing import Any

from playwright.sync_api import Page
from serving import ROOT, Server

LABELS = ["animals", "weather", "food"]
STARS = ["1 star", "2 stars", "3 stars"]
TEXT = "The dog chased the cat and the horse."
TEXTS = [TEXT, "It rained all night.", 'He said "eat".\nThen he ate, and ate.', "", "Ünder the 😀 tree"]


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


def write_csv(path: Path, texts: list[str] = TEXTS, encoding: str = "utf-8") -> Path:
    """A file of three columns, with everything in it that CSV allows."""
    out = io.StringIO(newline="")
    csv.writer(out).writerows([["id", "review", "label"], *([str(i), text, "old"] for i, text in enumerate(texts))])
    path.write_bytes(out.getvalue().encode(encoding))
    return path


def begin_job(page: Page, path: Path) -> None:
    """Choose the file and start."""
    page.get_by_label("Many texts").check()
    page.locator("input[type=file]").set_input_files(path)
    page.get_by_role("button", name=re.compile(r"^Classify [\d,]+ rows?$")).click()


def downloaded(page: Page) -> tuple[str, str]:
    """Name and content of the CSV."""
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download CSV").click()
    return waiting.value.suggested_filename, waiting.value.path().read_bytes().decode()


def rows_of(content: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content, newline=""), strict=True))
