"""Results as pictures (PNG): bars beside baselines, calibration, confusion."""

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from training.curves import LIGHT, Theme
from training.evaluate.results import Figure, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PALE = "#b9c0c8"  # baselines


def pictures(result: Result) -> dict[str, bytes]:
    """Pictures of a result by name (without .png): `bars` always, `calibration` and `confusion` of a classification. Raises
    ImportError where matplotlib isn't installed."""
    found = {"bars": _bars(result)}
    if result.details.get("reliability"):
        found["calibration"] = _picture((3.6, 3.4), [lambda axes: _calibration(axes, result.details)])
    if result.details.get("confusion"):
        side = 2.2 + 0.45 * len(result.details["labels"])
        found["confusion"] = _picture((side + 0.6, side), [lambda axes: _confusion(axes, result.details)])
    return found


def _bars(result: Result) -> bytes:
    figures = result.figures[:6]
    rows = 1 + len(result.baselines)
    size = (3.1 * len(figures), 1.1 + 0.32 * rows)

    def draw(i: int) -> "Callable[[Axes], None]":
        return lambda axes: _bar(axes, result, figures[i], named=i == 0)

    return _picture(size, [draw(i) for i in range(len(figures))])


def _bar(axes: "Axes", result: Result, figure: Figure, *, named: bool) -> None:
    """One measure: the model's bar on top with its interval, a baseline's in each row below."""
    scale = 100 if figure.share else 1
    names = ["this model", *(baseline.name for baseline in result.baselines)]
    values = [figure.value, *(baseline.values.get(figure.name) for baseline in result.baselines)]
    for row, value in enumerate(values):
        if value is None:
            continue
        axes.barh(row, scale * value, color=LIGHT.line if row == 0 else _PALE, height=0.62)
        axes.annotate(
            f"{scale * value:.3g}", (scale * value, row), (4, 0), textcoords="offset points", va="center", fontsize=8,
            color=LIGHT.ink,
        )  # fmt: skip
    if figure.low is not None and figure.high is not None:
        axes.plot([scale * figure.low, scale * figure.high], [0, 0], color=LIGHT.mark, linewidth=1.6)
    axes.set_yticks(range(len(names)), names if named else [""] * len(names))
    axes.invert_yaxis()
    axes.margins(x=0.18)
    axes.set_title(f"{figure.name}{', %' if figure.share else ''}", fontsize=9, loc="left", color=LIGHT.ink)


def _calibration(axes: "Axes", details: dict[str, Any]) -> None:
    bins = details["reliability"]
    axes.plot([0, 1], [0, 1], color=LIGHT.ink, linewidth=0.9, linestyle=(0, (4, 3)), alpha=0.7)
    axes.plot([b["confidence"] for b in bins], [b["accuracy"] for b in bins], color=LIGHT.line, linewidth=1.2)
    most = max(b["rows"] for b in bins)
    sizes = [12 + 90 * b["rows"] / most for b in bins]
    axes.scatter([b["confidence"] for b in bins], [b["accuracy"] for b in bins], s=sizes, color=LIGHT.line)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="probability of the likeliest label", ylabel="share that is right")
    axes.set_title("calibration; dots by number of rows", fontsize=9, loc="left", color=LIGHT.ink)


def _confusion(axes: "Axes", details: dict[str, Any]) -> None:
    counts, labels = details["confusion"], details["labels"]
    shares = [[cell / max(1, sum(row)) for cell in row] for row in counts]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(labels) <= 20:
        for i, row in enumerate(counts):
            for j, cell in enumerate(row):
                ink = "#ffffff" if shares[i][j] > 0.6 else LIGHT.ink
                axes.annotate(f"{cell:,}", (j, i), ha="center", va="center", fontsize=8, color=ink)
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlabel="said", ylabel="true")
    axes.set_title("rows; shade: share of the true label", fontsize=9, loc="left", color=LIGHT.ink)
    axes.grid(visible=False)


def _picture(size: tuple[float, float], draws: "Sequence[Callable[[Axes], None]]", theme: Theme = LIGHT) -> bytes:
    from matplotlib.figure import Figure as Canvas  # not pyplot: no window system, no state between figures

    canvas = Canvas(figsize=size, dpi=140, facecolor=theme.background, layout="constrained")
    for axes, draw in zip(canvas.subplots(1, len(draws), squeeze=False)[0], draws, strict=True):
        axes.grid(color=theme.grid, linewidth=0.7)
        axes.set_axisbelow(True)
        draw(axes)
        axes.tick_params(colors=theme.ink, labelsize=8, length=0)
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set(color=theme.ink, fontsize=9)
        for spine in axes.spines.values():
            spine.set_visible(False)
    buffer = io.BytesIO()
    canvas.savefig(buffer, format="png")
    return buffer.getvalue()
