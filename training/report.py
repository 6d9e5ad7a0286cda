"""What a run leaves to look at: `report.html`, whole in one file, and its curves as PNG beside it.

Everything comes from the run's log and from what the task hands over, so a run that was killed and resumed has one report of all of
it.
"""

import base64
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from tqdm import tqdm

from model.files import write_whole
from training.curves import DARK, LIGHT, curves, points
from training.progress import LOG, read_log
from training.table import Table

_TEMPLATE = Path(__file__).with_suffix(".html")
_ALT = {
    "loss.png": "Training and validation loss against tokens seen",
    "learning_rate.png": "Learning rate against tokens seen",
    "gradient_norm.png": "Gradient norm against tokens seen",
    "throughput.png": "Tokens a second against tokens seen",
}


def write_report(
    directory: Path,
    title: str,
    *,
    settings: Mapping[str, Any],
    environment: Mapping[str, str],
    tables: Sequence[Table] = (),
    summary: str = "",
    references: Mapping[str, float] | None = None,
) -> Path:
    """Write `report.html` and the curves into a run's `directory`, and return the report.

    `settings`: as a recipe's model_dump gives them; `environment`: training.environment; `tables`: the task's data account and
    measures; `references`: losses (nats) that the run's is to be seen beside, by name. Without matplotlib the report has no
    curves and says so.
    """
    log = read_log(directory / LOG)
    try:
        light, dark = (curves(log, references=references, theme=theme) for theme in (LIGHT, DARK))
        missing = "The log has too few lines to draw."
    except ImportError:
        light, dark = {}, {}
        missing = "matplotlib is not installed, so there are no curves (pip install 'homegrown[train]')."
    for name, picture in light.items():
        write_whole(directory / name, lambda part, picture=picture: part.write_bytes(picture))
    page = _page(
        title=title,
        summary=summary,
        tiles=_tiles(log),
        pictures=[
            {"alt": _ALT[name], "wide": name == "loss.png", "light": _base64(light[name]), "dark": _base64(dark[name])}
            for name in light
        ],
        no_pictures=missing,
        tables=[*tables, *_validation_table(log)],
        samples=_samples(log),
        settings=_settings(settings),
        environment=list(environment.items()),
    )
    target = directory / "report.html"
    write_whole(target, lambda part: part.write_text(page, "utf-8"))
    return target


def _page(**values: Any) -> str:
    frame = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return frame.from_string(_TEMPLATE.read_text("utf-8")).render(**values)


def _tiles(log: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """The figures to see first."""
    if not log:
        return []
    tiles: list[tuple[str, str]] = []
    if validation := points(log, "validation_loss"):
        tiles.append(("validation loss at the end, nats", f"{validation[-1][1]:.4f}"))
        if min(value for _, value in validation) < validation[-1][1]:
            tiles.append(("lowest validation loss", f"{min(value for _, value in validation):.4f}"))
    tiles += [("updates", f"{log[-1]['step']:,}"), ("tokens", _short(log[-1]["tokens_seen"]))]
    if seconds := points(log, "seconds"):
        tiles.append(("time", tqdm.format_interval(seconds[-1][1])))
    for key, name, show in (
        ("tokens_per_second", "tokens a second (median)", _short),
        ("mfu", "of the device's peak (median)", lambda share: f"{share:.0%}"),
        ("memory_mb", "memory (most)", lambda mb: f"{mb / 1024:.1f} GiB"),
    ):
        if values := [value for _, value in points(log, key)]:
            tiles.append((name, show(max(values) if key == "memory_mb" else statistics.median(values))))
    return tiles


def _validation_table(log: list[dict[str, Any]]) -> list[Table]:
    rows = [row for row in log if "validation_loss" in row]
    if not rows:
        return []
    keys = [key for key in rows[0] if key not in ("step", "tokens_seen", "seconds")]
    known = [i for i, row in enumerate(rows) if row["validation_loss"] is not None]
    best = min(known, key=lambda i: rows[i]["validation_loss"]) if known else None
    kept = _thinned(len(rows), best)
    cells = [
        [
            f"{rows[i]['step']:,}",
            f"{rows[i]['tokens_seen']:,}",
            *("not a number" if rows[i].get(key) is None else f"{rows[i][key]:.4f}" for key in keys),
            tqdm.format_interval(rows[i]["seconds"]) if "seconds" in rows[i] else "",
        ]
        for i in kept
    ]
    note = "The lowest loss stands out."
    if len(kept) < len(rows):
        note += f" {len(kept)} of {len(rows)} validations, evenly spaced; all are in the log."
    header = ["step", "tokens", *(key.replace("_", " ") for key in keys), "time"]
    return [Table("Validation on the way", header, cells, note, strong=kept.index(best) if best is not None else None)]


def _thinned(n: int, always: int | None, limit: int = 25) -> list[int]:
    """At most about `limit` of n places, evenly spaced, the last and `always` among them."""
    step = max(1, -(-n // limit))
    return sorted({*range(n - 1, -1, -step), *([] if always is None else [always])})


def _samples(log: list[dict[str, Any]], limit: int = 12) -> list[dict[str, Any]]:
    """Samples by step, the newest first; of many steps some, evenly spaced."""
    groups: dict[int, dict[str, Any]] = {}
    for row in log:
        if isinstance(row.get("sample"), str):
            group = groups.setdefault(row["step"], {"step": row["step"], "tokens": row["tokens_seen"], "texts": []})
            group["texts"].append(row["sample"])
    every = list(groups.values())
    return [every[i] for i in reversed(_thinned(len(every), 0, limit))] if every else []


def _settings(settings: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Sections of (field, value): plain fields first, then each table of the recipe."""
    plain = [(name, _shown(value)) for name, value in settings.items() if not isinstance(value, Mapping)]
    sections = [(name, _flat(value)) for name, value in settings.items() if isinstance(value, Mapping)]
    return [*([("", plain)] if plain else []), *((name, pairs) for name, pairs in sections if pairs)]


def _flat(section: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for name, value in section.items():
        if isinstance(value, Mapping) and value:
            pairs += _flat(value, f"{prefix}{name}.")
        else:
            pairs.append((prefix + name, _shown(value)))
    return pairs


def _shown(value: Any) -> str:
    if value is None or value in ("", (), [], {}):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(_shown(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _short(value: float) -> str:
    return tqdm.format_sizeof(value)


def _base64(picture: bytes) -> str:
    return base64.b64encode(picture).decode("ascii")
