"""Charts of what engine.py and server.py measured: bars with the rounds' range.

python benchmarks/engine.py --peers --json engine.json
python benchmarks/plots.py engine.json --out docs/images/engine.png
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.peers import SETTINGS  # noqa: E402
from benchmarks.peers.report import Samples, summarise  # noqa: E402
from training.curves import LIGHT  # noqa: E402

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PALE = "#b9c0c8"  # the peers
_NAMES = {
    "prefill": ("prompt of 512, tokens/s", 1.0),
    "first": ("first token after 128, ms (less is better)", 1e3),
    "memory": ("peak memory, MB (less is better)", 1.0),
}
_ENGINES = {"ours": "Homegrown", "llama_cpp": "llama.cpp", "openvino": "OpenVINO"}
_COLUMNS = 3
_SERVER = (
    ("tokens/s", "tokens_per_second", ("lowest", "highest")),
    ("first token, ms: p50, mark p99", "first_p50", ("first_p50", "first_p99")),
    ("between tokens, ms: p50, mark p99", "gap_p50", ("gap_p50", "gap_p99")),
)


@dataclass(frozen=True)
class Bar:
    """A bar and the range that is marked on it; `ours`: in our colour."""

    name: str
    value: float
    low: float
    high: float
    ours: bool


@dataclass(frozen=True)
class Panel:
    """A figure of several settings, those first that come first in the measurement."""

    title: str
    bars: tuple[Bar, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of its bars."""
        return tuple(bar.name for bar in self.bars)


def panels(measured: Mapping[str, Any], foreign: float = 0.15) -> list[Panel]:
    """The panels of a JSON file of engine.py or server.py; rounds in which others used more than `foreign` cores don't count.
    ValueError for another file, or for one in which nothing counts."""
    if "samples" in measured:
        limit = measured.get("job", {}).get("foreign_limit", foreign)
        found = _engine(measured["samples"], measured.get("job", {}).get("streams", (1, 8, 32)), limit)
    elif "results" in measured:
        found = _server(measured["results"])
    else:
        raise ValueError("it is not of benchmarks/engine.py or server.py: it has neither samples nor results")
    if not found:
        raise ValueError("no round in it counts: others used the machine, or everything failed")
    return found


def _engine(samples: Samples, streams: Sequence[int], limit: float) -> list[Panel]:
    titles = {f"decode{n}": (f"{n} stream{'s' if n > 1 else ''}, tokens/s", 1.0) for n in streams} | _NAMES
    found = []
    for figure, (title, factor) in titles.items():
        bars = []
        for setting in samples:
            summary = summarise(samples, figure, setting, limit)
            if summary is not None and summary.rounds:
                values = (factor * value for value in (summary.median, summary.low, summary.high))
                bars.append(Bar(_called(setting), *values, ours=SETTINGS[setting].ours))
        if bars:
            found.append(Panel(title, tuple(bars)))
    return found


def _called(setting: str) -> str:
    engine, _, precision = setting.partition(":")
    return f"{_ENGINES.get(engine, engine)} {precision}"


def _server(results: Sequence[Mapping[str, Any]]) -> list[Panel]:
    """One panel for each measure; a bar for each load, the engine's own without a server in pale."""
    cases = {row["case"] for row in results}
    found = []
    for title, key, (low, high) in _SERVER:
        bars = tuple(
            Bar(
                row["load"] if len(cases) == 1 else f"{row['load']}, {row['case']}",
                row[key], row.get(low, row[key]), row.get(high, row[key]), ours=not row["load"].endswith("no HTTP"),
            )
            for row in results
            if isinstance(row.get(key), int | float)
        )  # fmt: skip
        if bars:
            found.append(Panel(title, bars))
    return found


def draw(shown: Sequence[Panel], out: Path) -> None:
    """Write the panels as one picture; its kind is that of the name (.png, .svg, .pdf)."""
    from matplotlib.figure import Figure  # not pyplot: no window system, no state between figures

    columns = min(_COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    tallest = max(len(panel.bars) for panel in shown)
    figure = Figure(
        figsize=(3.6 * columns + 1.2, rows * (0.6 + 0.21 * tallest)), dpi=140, facecolor=LIGHT.background,
        layout="constrained",
    )  # fmt: skip
    places = figure.subplots(rows, columns, squeeze=False).ravel()
    for place in places[len(shown) :]:
        place.remove()
    for i, (axes, panel) in enumerate(zip(places, shown, strict=False)):
        _draw_panel(axes, panel, named=i % columns == 0 or shown[i - 1].names != panel.names)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)


def _draw_panel(axes: "Axes", panel: Panel, *, named: bool) -> None:
    rows = range(len(panel.bars))
    axes.barh(
        rows, [b.value for b in panel.bars], color=[LIGHT.line if b.ours else _PALE for b in panel.bars], height=0.7
    )
    for row, bar in enumerate(panel.bars):
        if bar.high > bar.low:
            axes.plot([bar.low, bar.high], [row, row], color=LIGHT.mark, linewidth=1.4)
        text = f"{bar.value:,.0f}" if bar.value >= 20 else f"{bar.value:.1f}"
        axes.annotate(
            text, (max(bar.value, bar.high), row), (4, 0), textcoords="offset points", va="center", fontsize=7.5,
            color=LIGHT.ink,
        )  # fmt: skip
    axes.set_yticks(rows, [b.name for b in panel.bars] if named else [""] * len(panel.bars))
    axes.set_ylim(len(panel.bars) - 0.5, -0.5)
    axes.margins(x=0.18)
    axes.set_xticks([])
    axes.tick_params(colors=LIGHT.ink, labelsize=8, length=0)
    axes.set_title(panel.title, fontsize=9, loc="left", color=LIGHT.ink)
    for spine in axes.spines.values():
        spine.set_visible(False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw; 1, with the reason on standard error, when the file can't be drawn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", type=Path, help="what engine.py or server.py wrote with --json")
    parser.add_argument("--out", type=Path, required=True, help="the picture to write: .png, .svg or .pdf")
    options = parser.parse_args(arguments)
    try:
        shown = panels(json.loads(options.figures.read_text("utf-8")))
        draw(shown, options.out)
    except (OSError, ValueError) as error:
        print(f"{options.figures}: {error}", file=sys.stderr)
        return 1
    print(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
