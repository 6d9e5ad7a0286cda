"""Results as pictures (PNG): bars beside baselines, calibration, confusion."""

import io
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from training.curves import LIGHT, Theme
from training.evaluate.results import Figure, Result, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PALE = "#b9c0c8"  # baselines
_COLUMNS = 3


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
    figures = result.figures
    size = (
        3.2 * min(_COLUMNS, len(figures)),
        (0.75 + 0.3 * (1 + len(result.baselines))) * -(-len(figures) // _COLUMNS),
    )

    def draw(i: int) -> "Callable[[Axes], None]":
        return lambda axes: _bar(axes, result, figures[i], named=i % _COLUMNS == 0)

    return _picture(size, [draw(i) for i in range(len(figures))])


def _bar(axes: "Axes", result: Result, figure: Figure, *, named: bool) -> None:
    """One measure: the model's bar on top, a baseline's in each row below, with the intervals that there are."""
    scale = 100 if figure.share else 1
    names = ["this model", *(baseline.name for baseline in result.baselines)]
    found = [figure.value, *(baseline.values.get(figure.name) for baseline in result.baselines)]
    values = {row: scale * value for row, value in enumerate(found) if value is not None and math.isfinite(value)}
    ends = dict(values)
    axes.barh(
        list(values), list(values.values()), color=[LIGHT.line if row == 0 else _PALE for row in values], height=0.62
    )
    for row, (low, high) in _intervals(result, figure).items():
        axes.plot([scale * low, scale * high], [row, row], color=LIGHT.mark, linewidth=1.6)
        ends[row] = max(ends.get(row, 0.0), scale * high)
    if ends and max(ends.values()) > 30 * min(values.values()) > 0 and not figure.share:
        axes.set_xscale("log")
    for row, value in values.items():
        axes.annotate(
            f"{value:.1f}" if figure.share else plain(value), (ends[row], row), (4, 0), textcoords="offset points",
            va="center", fontsize=8, color=LIGHT.ink,
        )  # fmt: skip
    axes.set_yticks(range(len(names)), names if named else [""] * len(names))
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.margins(x=0.25)
    axes.grid(visible=False, axis="y")
    axes.set_title(f"{figure.name}{', %' if figure.share else ''}", fontsize=9, loc="left", color=LIGHT.ink)


def _intervals(result: Result, figure: Figure) -> dict[int, tuple[float, float]]:
    """By row of the bars, the model's first: the intervals that there are."""
    found = [(figure.low, figure.high), *(b.intervals.get(figure.name, (None, None)) for b in result.baselines)]
    return {
        row: (low, high)
        for row, (low, high) in enumerate(found)
        if low is not None and high is not None and math.isfinite(high)
    }


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

    columns = min(_COLUMNS, len(draws))
    canvas = Canvas(figsize=size, dpi=140, facecolor=theme.background, layout="constrained")
    places = canvas.subplots(-(-len(draws) // columns), columns, squeeze=False).ravel()
    for axes in places[len(draws) :]:
        axes.remove()
    for axes, draw in zip(places, draws, strict=False):
        axes.grid(color=theme.grid, linewidth=0.7)
        axes.set_axisbelow(True)
        draw(axes)
        axes.tick_params(colors=theme.ink, labelsize=8, length=0, which="both")
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set(color=theme.ink, fontsize=9)
        for spine in axes.spines.values():
            spine.set_visible(False)
    buffer = io.BytesIO()
    canvas.savefig(buffer, format="png")
    return buffer.getvalue()
