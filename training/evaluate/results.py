"""What an evaluation says: figures with their conventions, baselines beside them; as a table and as JSON."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np

Z95 = 1.959963984540054  # the standard normal distribution's 97.5 % point


@dataclass(frozen=True)
class Figure:
    """One measure of a model. `convention` says how it was taken; `low`, `high` the 95 % interval where there is one; `share`:
    a part of 1, shown in per cent."""

    name: str
    value: float
    convention: str
    low: float | None = None
    high: float | None = None
    share: bool = False

    @property
    def shown(self) -> str:
        """The value for a table."""
        return percent(self.value) if self.share else plain(self.value)

    @property
    def interval(self) -> str:
        """The interval for a table; empty where there is none."""
        return "" if self.low is None or self.high is None else _range(self.low, self.high, share=self.share)


@dataclass(frozen=True)
class Baseline:
    """What something simpler reaches: its figures by the names that the model's have, and how it was made. `intervals`: the 95 %
    intervals of those that have one. `differences`: the model's figures less these, taken row by row, with their intervals."""

    name: str
    values: dict[str, float]
    convention: str
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    differences: list[Figure] = field(default_factory=list)

    @classmethod
    def of(cls, name: str, figures: Sequence[Figure], convention: str, differences: Sequence[Figure] = ()) -> Self:
        """A baseline whose figures and intervals are those of `figures`."""
        values = {figure.name: figure.value for figure in figures}
        found = {f.name: (f.low, f.high) for f in figures if f.low is not None and f.high is not None}
        return cls(name, values, convention, found, list(differences))

    def shown(self, figure: Figure) -> str:
        """What it has of a model's figure, for a table, the interval behind it; empty where it has nothing."""
        value = self.values.get(figure.name)
        if value is None:
            return ""
        interval = self.intervals.get(figure.name)
        text = percent(value) if figure.share else plain(value)
        return f"{text} ({_range(*interval, share=figure.share)})" if interval else text

    @property
    def difference_text(self) -> str:
        """The differences as a sentence without its full stop; empty where there are none."""
        if not self.differences:
            return ""
        parts = [f"{d.name} {100 * d.value:+.2f} points{_points(d)}" for d in self.differences]
        return f"this model less {self.name}: {', '.join(parts)}; {self.differences[0].convention}"


@dataclass(frozen=True)
class Result:
    """A model's measures on one set of data. `total` is more than `items` when a limit was set; `notes`: what was left out or cut;
    `details`: what plots and readers of the JSON want beyond the figures."""

    task: str
    data: str
    items: int
    total: int
    unit: str
    figures: list[Figure]
    baselines: list[Baseline] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def figure(self, name: str) -> Figure:
        """The figure of that name. KeyError when it wasn't taken."""
        return next((f for f in self.figures if f.name == name), None) or _missing(name)

    def rows(self) -> list[tuple[Figure, list[str]]]:
        """Each figure with what the baselines have of it, shown for a table; empty where one has nothing."""
        return [(figure, [baseline.shown(figure) for baseline in self.baselines]) for figure in self.figures]

    @property
    def has_intervals(self) -> bool:
        """Whether any figure has one."""
        return any(figure.interval for figure in self.figures)

    def baseline_conventions(self) -> list[tuple[str, str]]:
        """(names, convention) of the baselines that have one, those of one convention together."""
        names: dict[str, list[str]] = {}
        for baseline in self.baselines:
            names.setdefault(baseline.convention, []).append(baseline.name)
        return [(", ".join(those), convention) for convention, those in names.items() if convention]

    def to_json(self) -> dict[str, Any]:
        """The result as JSON's own types; a number that JSON has none for (infinite, not a number) becomes null."""
        return finite(asdict(self) | {"limited": self.items < self.total})


def table(result: Result) -> str:
    """A result as lines of text: each figure with its interval and the baselines' beside it, then the conventions."""
    scope = f"{result.items:,} {result.unit}"
    if result.items < result.total:
        scope += f" of {result.total:,} (--limit): a part, not the figures of the whole"
    head = ["", "value", "95 % interval", *(baseline.name for baseline in result.baselines)]
    rows = [head, *([f.name, f.shown, f.interval, *cells] for f, cells in result.rows())]
    if not result.has_intervals:
        rows = [[*row[:2], *row[3:]] for row in rows]
    lines = [f"{result.task}: {result.data}", f"{scope}, {result.seconds:.1f} s", "", *_columns(rows), ""]
    lines += [f"{figure.name}: {figure.convention}." for figure in result.figures if figure.convention]
    lines += [f"{names}: {convention}." for names, convention in result.baseline_conventions()]
    lines += [f"{baseline.difference_text}." for baseline in result.baselines if baseline.differences]
    lines += [f"note: {note}." for note in result.notes]
    if prompt := result.details.get("prompt"):
        lines += [
            "",
            "the first row's prompt, and the labels to choose from:",
            *(f"  | {line}" for line in prompt.split("\n")),
        ]
    return "\n".join(lines)


def wilson(right: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share of `right` in `n` (Wilson, 1927): good for small n and for shares near 0 and 1."""
    if n == 0:
        return 0.0, 1.0
    share, z2 = right / n, Z95**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def share_figure(name: str, hits: Sequence[bool] | np.ndarray, convention: str) -> Figure:
    """The share of hits with its Wilson interval."""
    right, n = int(np.sum(hits)), len(hits)
    low, high = wilson(right, n)
    return Figure(name, right / n, convention, low, high, share=True)


def mean_figure(name: str, values: np.ndarray, convention: str, *, share: bool = False) -> Figure:
    """The mean of `values` [n], each item's own, with the normal distribution's interval; a share's ends at 0 and 1. One item
    alone has no interval."""
    low, high = mean_interval(float(values.mean()), _half_width(values), share=share)
    return Figure(name, float(values.mean()), convention, low, high, share)


def mean_interval(mean: float, half: float | None, *, share: bool) -> tuple[float | None, float | None]:
    """From `half` below the mean to `half` above it, a share's within 0 and 1; (None, None) without `half`."""
    if half is None:
        return None, None
    return (max(0.0, mean - half), min(1.0, mean + half)) if share else (mean - half, mean + half)


def perplexity_figure(name: str, nats: np.ndarray, convention: str) -> Figure:
    """e to the mean of `nats` [n], each item's own; the interval is that of the mean, taken to the same power."""
    low, high = mean_interval(float(nats.mean()), _half_width(nats), share=False)
    if low is None or high is None:
        return Figure(name, exp(float(nats.mean())), convention)
    return Figure(name, exp(float(nats.mean())), convention, exp(low), exp(high))


def exp(nats: float) -> float:
    """e to the nats, infinite where that is larger than a number can be: a broken model's perplexity."""
    return math.exp(nats) if nats < 700 else math.inf


def percent(value: float) -> str:
    """A share in per cent: 0.4599 -> "45.99 %"."""
    return f"{100 * value:.2f} %"


def plain(value: float) -> str:
    """A number with about four figures that matter."""
    if not math.isfinite(value):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.2f}" if abs(value) >= 10 else f"{value:.4f}"


def _half_width(values: np.ndarray) -> float | None:
    return Z95 * float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None


def _range(low: float, high: float, *, share: bool) -> str:
    return f"{100 * low:.2f} to {percent(high)}" if share else f"{plain(low)} to {plain(high)}"


def _points(difference: Figure) -> str:
    if difference.low is None or difference.high is None:
        return ""
    return f" (95 % interval {100 * difference.low:+.2f} to {100 * difference.high:+.2f})"


def _columns(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return lines


def _missing(name: str) -> Figure:
    raise KeyError(name)


def finite(value: Any) -> Any:
    """A value of dicts, lists and numbers as JSON can hold it: tuples as lists, null for what is infinite or not a number."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
