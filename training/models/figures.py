"""What the runs and measures say, as one JSON object (docs/models/figures.json): all that the page and the cards are made from.

Its parts: `base` (size, training, validation split), `curve` (lines of the run's log), `measures` (by name, what `homegrown
evaluate` wrote), `classifiers` and `instruct` (their runs' own), `samples`, `short` (runs of the recipe cut short), `rows`,
`commands` and `sizes`. Nothing in it is a path of the machine that it was made on.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from model.architectures import read_config
from model.errors import ConfigError
from model.files import read_json
from training.data.shards import read_manifest
from training.errors import DataError
from training.evaluate.results import Baseline, Figure, Result
from training.models.places import ADAPTERS, BASE, Places
from training.progress import LOG, read_log

Figures = dict[str, Any]
_POINTS = 300  # of the loss curve
_DETAILS = (
    "labels",
    "classes",
    "confusion",
    "examples",
    "prompt",
)  # of a result's; the rest is for pictures not drawn here
_ROW = re.compile(r"^\| \**(?P<name>[^|*]+?)\** \| \**(?P<loss>[\d.]+)\** \| \**(?P<bits>[\d.]+)\** \|$", re.M)


def collect(places: Places) -> Figures:
    """All figures but the sizes. DataError or ConfigError names what isn't there, and the step that makes it."""
    work = places.path("$WORK")
    log = _log(work / BASE)
    measures = {path.stem: _measured(path) for path in sorted((work / "measures").glob("*.json"))}
    if "base-text" not in measures:
        raise DataError(f"{work / 'measures'}: the base was not measured; do so with --only measure")
    measured = read_json(work / "measures" / "base-text.json", DataError)
    where = {name: value for name, value in measured["environment"].items() if name != "command"}
    about = {"parameters": measured["model"]["parameters"], "environment": where}
    found = {
        "base": about | _base(work / BASE, log),
        "curve": thinned(log),
        "stronger": places.stronger_name if any(name.startswith("stronger-") for name in measures) else None,
        "measures": measures,
        "classifiers": {name: _results(work / name / "evaluation.json") for name in ADAPTERS if name != "instruct"},
        "instruct": {"rows": _json(work / "instruct-data" / "report.json", "instruct-data")},
        "samples": [_json(path, "measure") for path in sorted((work / "samples").glob("*.json"))],
        "short": [_short(path, work) for path in sorted(work.glob("short-*"))],
        "rows": {name: _json(work / f"{name}-data" / "report.json", f"{name}-data") for name in ("sms", "sentiment")},
    }
    return places.scrubbed(found)


def _base(run: Path, log: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    config = read_config(run / "model")
    manifest = read_manifest(run / "data" / "shards")
    last = next((row for row in reversed(log) if "seconds" in row), None)
    if last is None:
        raise DataError(f"{run / LOG}: names no time; is it the log of a finished run?")
    dropped = {reason: count["documents"] for reason, count in manifest.account.get("dropped", {}).items()}
    return {
        "layers": config.n_layer,
        "width": config.d_model,
        "heads": config.n_head,
        "context": config.context_length,
        "vocabulary": manifest.vocab_size,
        "updates": last["step"],
        "tokens": last["tokens_seen"],
        "minutes": round(last["seconds"] / 60),
        "passes": round(last["tokens_seen"] / manifest.splits["train"].tokens, 2),
        "splits": {
            name: {"documents": split.documents, "tokens": split.tokens, "bytes": split.bytes}
            for name, split in manifest.splits.items()
        },
        "dropped": dropped,
        "cut": manifest.account.get("cut", {}),
        "validation": card_measures(run / "model" / "README.md"),
    }


def card_measures(card: Path) -> list[dict[str, Any]]:
    """The rows of a pretraining card's table of its validation split, the model's first: name, loss (nats a token), bits a byte.
    DataError when it has none."""
    try:
        text = card.read_text("utf-8")
    except OSError as error:
        step = "base" if card.parents[1].name == BASE else "base-short"
        raise DataError(f"{card}: can't be read ({error.strerror}); the step {step} makes it") from None
    rows = [
        {"name": found["name"].split(",")[0], "loss": float(found["loss"]), "bits_per_byte": float(found["bits"])}
        for found in _ROW.finditer(text)
    ]
    if not rows or rows[0]["name"] != "this model":
        raise DataError(
            f"{card}: holds no table of measures on the validation split; it is to be a pretraining run's card"
        )
    return rows


def thinned(log: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A log's updates, at most some hundreds of them evenly spaced, and all its validations: what the curve is drawn from."""
    updates = [row for row in log if isinstance(row.get("loss"), float)]
    step = max(1, -(-len(updates) // _POINTS))
    chosen = [*updates[::-step][::-1], *(row for row in log if isinstance(row.get("validation_loss"), float))]
    kept = ("step", "tokens_seen", "loss", "validation_loss")
    rows = [{name: _rounded(row[name]) for name in kept if name in row} for row in chosen]
    return sorted(rows, key=lambda row: (row["step"], "validation_loss" in row))


def _rounded(value: float) -> float:
    return round(value, 4) if isinstance(value, float) else value


def _measured(path: Path) -> dict[str, Any]:
    """An evaluation's model and results, without what isn't shown."""
    content = read_json(path, DataError)
    return {"model": content["model"], "results": [_trimmed(result) for result in content["results"]]}


def _results(path: Path) -> list[dict[str, Any]]:
    return [_trimmed(result) for result in _json(path, path.parent.name)["results"]]


def _trimmed(result: Mapping[str, Any]) -> dict[str, Any]:
    details = {name: value for name, value in result["details"].items() if name in _DETAILS}
    return {name: value for name, value in result.items() if name not in ("seconds", "limited")} | {"details": details}


def _short(run: Path, work: Path) -> dict[str, Any]:
    validations = [row["validation_loss"] for row in _log(run) if isinstance(row.get("validation_loss"), float)]
    if not validations:
        raise DataError(f"{run / LOG}: holds no validation; go on with --only base-short")
    command = _json(work / "records" / f"{run.name}.json", "base-short").get("command", "")
    card = card_measures(run / "model" / "README.md")[0]
    return {"name": run.name, "command": command, "last_validation_loss": validations[-1], **card}


def _log(run: Path) -> list[dict[str, Any]]:
    log = read_log(run / LOG)
    if not log:
        raise DataError(f"{run / LOG}: no log of a run; the step base makes it")
    return log


def _json(path: Path, step: str) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(f"{path}: isn't there; make it with --only {step}")
    return read_json(path, DataError)


def result_of(content: Mapping[str, Any]) -> Result:
    """A result as it was before it became JSON."""
    baselines = [
        Baseline(
            each["name"],
            {name: value for name, value in each["values"].items() if value is not None},
            each["convention"],
            {name: (low, high) for name, (low, high) in each["intervals"].items()},
            [Figure(**figure) for figure in each["differences"]],
        )
        for each in content["baselines"]
    ]
    fields = {name: content[name] for name in ("task", "data", "items", "total", "unit", "notes", "details")}
    figures = [Figure(**(figure | _endless(figure))) for figure in content["figures"]]
    return Result(**fields, figures=figures, baselines=baselines)


def _endless(figure: Mapping[str, Any]) -> dict[str, float]:
    """JSON has no number for what is infinite."""
    return {"value": float("inf")} if figure["value"] is None else {}


def measure(figures: Mapping[str, Any], name: str, task: str) -> Result | None:
    """The result of one task in the measure `name`; None when it wasn't taken."""
    found: Iterable[Mapping[str, Any]] = figures["measures"].get(name, {"results": []})["results"]
    return next((result_of(result) for result in found if result["task"] == task), None)


def sizes(checkpoint: Path) -> dict[str, int]:
    """Bytes of a published model by part: "base", and each adapter by its name. DataError when there is none."""
    if not (checkpoint / "config.json").is_file():
        raise DataError(f"{checkpoint}: holds no model; put it there with --only publish")
    found = {"base": 0}
    for path in sorted(checkpoint.rglob("*")):
        if path.is_file():
            inside = path.relative_to(checkpoint).parts
            part = inside[1] if inside[0] == "adapters" and len(inside) > 2 else "base"
            found[part] = found.get(part, 0) + path.stat().st_size
    return found
