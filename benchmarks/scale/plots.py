"""The picture of docs/scale.md: cost over nodes, and how late first tokens are over load."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.scale.shapes import SHAPES
from benchmarks.scale.training_tables import spread
from training.curves import LIGHT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLORS = (LIGHT.line, LIGHT.mark, "#6b7783")


def draw(loads: Sequence[Mapping[str, str | float]], out: Path) -> None:
    """Write the picture. `loads`: rows of the scenario of that name."""
    from matplotlib.figure import Figure  # not pyplot: no window system, no state between figures

    figure = Figure(figsize=(9.2, 3.4), dpi=130, facecolor=LIGHT.background, layout="constrained")
    cost, late = figure.subplots(1, 2)
    _cost(cost)
    _late(late, loads)
    for axes in (cost, late):
        axes.tick_params(colors=LIGHT.ink, labelsize=8)
        axes.grid(color=LIGHT.grid, linewidth=0.6)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        axes.legend(fontsize=8, frameon=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)


def _cost(axes: "Axes") -> None:
    """Each model's cost, with its range."""
    nodes = [2**i for i in range(11)]
    for shape, color in zip(SHAPES, _COLORS, strict=True):
        runs = [spread(shape, n) for n in nodes]
        axes.fill_between(
            nodes, [low.dollars for _, low, _ in runs], [high.dollars for *_, high in runs], color=color, alpha=0.12
        )
        axes.plot(nodes, [run.dollars for run, *_ in runs], color=color, label=shape.name)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(nodes[::2], [f"{n:,}" for n in nodes[::2]])
    axes.set_xlabel("GPU nodes", fontsize=8, color=LIGHT.ink)
    axes.set_title("300 B tokens, $ (bands: ranges)", fontsize=9, loc="left", color=LIGHT.ink)


def _late(axes: "Axes", loads: Sequence[Mapping[str, str | float]]) -> None:
    """p99 of the first token."""
    share = [100 * float(row["load"]) for row in loads]
    for key, name, color in (("p99", "Poisson", _COLORS[0]), ("bursts p99", "in bursts", _COLORS[1])):
        axes.plot(share, [float(row[key]) / 1e3 for row in loads], color=color, marker="o", markersize=3, label=name)
    axes.set_yscale("log")
    axes.set_xlabel("load, % of what the replicas bear", fontsize=8, color=LIGHT.ink)
    axes.set_title("first token p99, seconds (two-core replicas, simulated)", fontsize=9, loc="left", color=LIGHT.ink)
