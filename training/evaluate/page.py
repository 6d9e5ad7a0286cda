"""An evaluation as a page to look at: `evaluation.html`, whole in one file; its pictures as PNG and its figures as JSON beside."""

import base64
from pathlib import Path

import jinja2

from model.errors import ConfigError
from model.files import write_json, write_whole
from training.evaluate.plots import pictures
from training.evaluate.suite import Evaluation

_TEMPLATE = Path(__file__).with_suffix(".html")


def write_page(evaluation: Evaluation, directory: Path) -> Path:
    """Write `evaluation.html`, `evaluation.json` and the pictures into `directory`, and return the page. Without matplotlib the
    page has no pictures and says so."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{directory}: can't be made: {error.strerror}") from None
    drawn: list[dict[str, str]] = []
    missing = False
    for n, result in enumerate(evaluation.results, 1):
        try:
            found = pictures(result)
        except ImportError:
            found, missing = {}, True
        for name, picture in found.items():
            write_whole(
                directory / f"{n}-{result.task}-{name}.png", lambda part, picture=picture: part.write_bytes(picture)
            )
        drawn.append({name: base64.b64encode(picture).decode("ascii") for name, picture in found.items()})
    write_json(directory / "evaluation.json", evaluation.to_json())
    frame = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    content = evaluation.to_json()
    page = frame.from_string(_TEMPLATE.read_text("utf-8")).render(
        model=content["model"],
        environment=content["environment"],
        results=list(zip(evaluation.results, drawn, strict=True)),
        paper=evaluation.paper,
        comparisons=evaluation.comparisons,
        missing=missing,
    )
    target = directory / "evaluation.html"
    write_whole(target, lambda part: part.write_text(page, "utf-8"))
    return target
