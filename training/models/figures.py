"""What the runs and measures say, as one JSON object (docs/models/figures.json): all that the page and the cards are made from.

Its parts: `base` (size, training, validation split), `curve` (lines of the run's log), `measures` (by name, what `homegrown
evaluate` wrote), `classifiers` and `instruct` (their runs' own), `samples`, `short` (runs of the recipe cut short: name, seed and
command), `rows`, `commands` and `sizes`. Nothing in it is a path of the machine that it was made on.
"""

import statistics
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
_DETAILS = ("labels", "confusion", "examples", "prompt")  # of a result's; the rest is for pictures not drawn here


def collect(places: Places, commands: Mapping[str, str]) -> Figures:
    """All figures but the sizes. `commands`: of the course's tasks, by name: measures that no task takes now, as of an earlier
    course, don't count. DataError or ConfigError names what isn't there, and the step that makes it."""
    work = places.path("$WORK")
    log = _log(work / BASE)
    found = sorted(path for path in (work / "measures").glob("*.json") if path.stem in commands)
    measures = {path.stem: _measured(path) for path in found}
    if "base-text" not in measures:
        raise DataError(f"{work / 'measures'}: the base was not measured; do so with --only measure")
    about = {
        "parameters": measures["base-text"]["model"]["parameters"],
        "validation": _json(work / "validation" / "report.json", "measure"),
    }
    found = {
        "base": about | _base(work / BASE, log),
        "curve": thinned(log),
        "stronger": places.stronger_name if any(name.startswith("stronger-") for name in measures) else None,
        "measures": measures,
        "classifiers": {name: _results(work / name / "evaluation.json") for name in ADAPTERS if name != "instruct"},
        "instruct": {"rows": _json(work / "instruct-data" / "report.json", "instruct-data")},
        "samples": [_json(path, "measure") for path in sorted((work / "samples").glob("*.json"))],
        "short": [
            {"name": name, "command": line, "seed": int(line.partition("--seed ")[2].split(" ")[0])}
            for name, line in commands.items()
            if name.startswith("short-") and f"{name}-text" in measures
        ],
        "commands": dict(commands),
        "rows": {name: _json(work / f"{name}-data" / "report.json", f"{name}-data") for name in ("sms", "sentiment")},
    }
    return places.scrubbed(found)


def _base(run: Path, log: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    config = read_config(run / "model")
    manifest = read_manifest(run / "data" / "shards")
    last = next((row for row in reversed(log) if "tokens_per_second" in row), None)
    if last is None:
        raise DataError(f"{run / LOG}: names no speed; is it the log of a finished run?")
    return {
        "layers": config.n_layer,
        "width": config.d_model,
        "heads": config.n_head,
        "context": config.context_length,
        "vocabulary": manifest.vocab_size,
        "updates": last["step"],
        "tokens": last["tokens_seen"],
        "tokens_per_second": round(
            statistics.median(row["tokens_per_second"] for row in log if "tokens_per_second" in row)
        ),
        "passes": round(last["tokens_seen"] / manifest.splits["train"].tokens, 2),
        "splits": {
            name: {"documents": split.documents, "tokens": split.tokens, "bytes": split.bytes}
            for name, split in manifest.splits.items()
        },
        "cut": manifest.account.get("cut", {}),
    }


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
    model = {name: content["model"][name] for name in ("parameters", "context", "arithmetic")}
    return {"model": model, "results": [_trimmed(result) for result in content["results"]]}


def _results(path: Path) -> list[dict[str, Any]]:
    return [_trimmed(result) for result in _json(path, path.parent.name)["results"]]


def _trimmed(result: Mapping[str, Any]) -> dict[str, Any]:
    details = {name: value for name, value in result["details"].items() if name in _DETAILS}
    return {name: value for name, value in result.items() if name not in ("seconds", "limited")} | {"details": details}


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


def measure(figures: Mapping[str, Any], name: str, task: str, data: str = "") -> Result | None:
    """The result of one task in the measure `name`, on the data whose place has `data` in it; None when it wasn't taken."""
    found: Iterable[Mapping[str, Any]] = figures["measures"].get(name, {"results": []})["results"]
    return next((result_of(result) for result in found if result["task"] == task and data in result["data"]), None)


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
