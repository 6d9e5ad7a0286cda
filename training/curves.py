"""A run's log -> its curves, as PNG: loss, learning rate, gradient norm, throughput, each against the tokens seen."""

import io
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Log = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Theme:
    """Colours of a figure."""

    background: str
    ink: str
    grid: str
    line: str  # the run's own curve
    pale: str  # the same before smoothing
    mark: str  # validation


LIGHT = Theme("#ffffff", "#3d3d3a", "#e6e6e2", "#2563b0", "#b9d0ec", "#c2570c")
DARK = Theme("#1d1f21", "#c8c8c4", "#34373a", "#6ea8ee", "#32506f", "#f0934a")
_SMOOTHING = 30  # a point of the smoothed curve is of this part of the run


def curves(log: Log, *, references: Mapping[str, float] | None = None, theme: Theme = LIGHT) -> dict[str, bytes]:
    """Pictures by file name (PNG), those for which the log has at least two points. `references`: losses (nats) to draw beside
    the run's, by name. Raises ImportError where matplotlib isn't installed."""
    loss, validation = points(log, "loss"), points(log, "validation_loss")
    drawings: dict[str, tuple[tuple[float, float], Callable[[Axes], None]]] = {}
    if len(loss) > 1 or len(validation) > 1:
        drawings["loss.png"] = (8.6, 3.9), lambda axes: _draw_loss(axes, loss, validation, references or {}, theme)
    for name, key, label in (
        ("learning_rate.png", "lr_factor", "learning rate, share of its peak"),
        ("gradient_norm.png", "grad_norm", "gradient norm, before clipping"),
        ("throughput.png", "tokens_per_second", "tokens a second"),
    ):
        if len(points(log, key)) > 1:
            drawings[name] = (3.6, 2.4), lambda axes, key=key, label=label: _draw_plain(axes, log, key, label, theme)
    return {name: _picture(size, draw, theme) for name, (size, draw) in drawings.items()}


def points(log: Log, key: str) -> list[tuple[int, float]]:
    """(tokens seen, value) of every line that has a number for `key`."""
    return [(row["tokens_seen"], row[key]) for row in log if isinstance(row.get(key), int | float)]


def smoothed(values: Sequence[float]) -> list[float]:
    """The median of each value and its neighbours: single spikes leave no trace. At the begin, where a loss falls fast, no more
    neighbours after than before, so that the curve doesn't run ahead."""
    reach = len(values) // _SMOOTHING // 2
    spans = (min(reach, i) for i in range(len(values)))
    return [statistics.median(values[i - span : i + span + 1]) for i, span in enumerate(spans)]


def _draw_loss(
    axes: "Axes",
    loss: list[tuple[int, float]],
    validation: list[tuple[int, float]],
    references: Mapping[str, float],
    theme: Theme,
) -> None:
    if loss:
        tokens, values = zip(*loss, strict=True)
        axes.plot(tokens, values, color=theme.pale, linewidth=0.8)
        axes.plot(tokens, smoothed(values), color=theme.line, linewidth=1.6, label="training")
        # The first updates' loss is far above the rest; without them the differences that matter can be seen.
        later = [*values[len(values) // 25 :], *(value for _, value in validation), *sorted(references.values())[:1]]
        low, high = min(later), max(later)
        axes.set_ylim(low - 0.05 * (high - low + 1e-6), high + 0.05 * (high - low + 1e-6))
    if validation:
        tokens, values = zip(*validation, strict=True)
        dots = "o" if len(values) <= 60 else ""
        axes.plot(tokens, values, color=theme.mark, linewidth=1.4, marker=dots, markersize=3.2, label="validation")
        axes.annotate(
            f"{values[-1]:.3f}", (tokens[-1], values[-1]), (5, 0), textcoords="offset points", va="center",
            color=theme.mark, fontsize=9, annotation_clip=False,
        )  # fmt: skip
    _draw_references(axes, references, theme)
    axes.set_ylabel("loss, nats")
    axes.legend(
        facecolor=theme.background, edgecolor="none", framealpha=1, labelcolor=theme.ink, fontsize=9, loc="upper right"
    )


def _draw_references(axes: "Axes", references: Mapping[str, float], theme: Theme) -> None:
    """The lowest first; one whose label would lie on another's, or that is out of sight, is left out."""
    bottom, top = axes.get_ylim()
    drawn: list[float] = []
    for name, value in sorted(references.items(), key=lambda pair: pair[1]):
        if not bottom < value < top or any(abs(value - other) < 0.05 * (top - bottom) for other in drawn):
            continue
        drawn.append(value)
        axes.axhline(value, color=theme.ink, linewidth=0.9, linestyle=(0, (4, 3)), alpha=0.7)
        axes.annotate(
            f"{name} {value:.3f}", (0, value), (4, 3), xycoords=("axes fraction", "data"), textcoords="offset points",
            color=theme.ink, fontsize=8, bbox={"facecolor": theme.background, "edgecolor": "none", "alpha": 0.8, "pad": 1},
        )  # fmt: skip


def _draw_plain(axes: "Axes", log: Log, key: str, label: str, theme: Theme) -> None:
    tokens, values = zip(*points(log, key), strict=True)
    if key == "lr_factor":
        axes.plot(tokens, values, color=theme.line, linewidth=1.6)
        axes.set_ylim(0, 1.05)
    else:
        axes.plot(tokens, values, color=theme.pale, linewidth=0.8)
        axes.plot(tokens, smoothed(values), color=theme.line, linewidth=1.6)
        # A single spike should not flatten the rest.
        axes.set_ylim(0, 1.15 * sorted(values)[min(len(values) - 1, math.ceil(0.99 * len(values)))])
    axes.set_title(label, fontsize=9, color=theme.ink, loc="left")
    if key == "tokens_per_second":
        _number_axis(axes.yaxis)
        per_token = [row["mfu"] / row[key] for row in log if row.get("mfu") and row.get(key)]
        if per_token:  # MFU is the rate times a constant: the same curve on another scale
            share = sorted(per_token)[len(per_token) // 2]
            second = axes.secondary_yaxis(
                "right", functions=(lambda rate: rate * (100 * share), lambda mfu: mfu / (100 * share))
            )
            second.set_ylabel("MFU, %", color=theme.ink, fontsize=9)
            second.tick_params(colors=theme.ink, labelsize=8, length=0)
            second.spines["right"].set_visible(False)


def _number_axis(axis: Any) -> None:
    from matplotlib.ticker import EngFormatter

    axis.set_major_formatter(EngFormatter(sep=""))


def _picture(size: tuple[float, float], draw: Callable[["Axes"], None], theme: Theme) -> bytes:
    from matplotlib.figure import Figure  # not pyplot: no window system, no state between figures

    figure = Figure(figsize=size, dpi=160, facecolor=theme.background, layout="constrained")
    axes = figure.add_subplot(facecolor=theme.background)
    draw(axes)
    axes.set_xlabel("tokens seen", color=theme.ink, fontsize=9)
    axes.yaxis.label.set_color(theme.ink)
    axes.yaxis.label.set_fontsize(9)
    axes.tick_params(colors=theme.ink, labelsize=8, length=0)
    axes.grid(color=theme.grid, linewidth=0.7)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)
    _number_axis(axes.xaxis)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
