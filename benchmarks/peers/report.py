"""From samples to tables: medians, what was too disturbed to count, ratios to the best peer, and the goals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.peers import SETTINGS
from benchmarks.peers.machine import median

Samples = dict[str, list[dict[str, Any] | None]]  # by setting: what its worker replied in each round; None: it failed
BITS = {"float32": 32.0, "bfloat16": 16.0, "int8": 8.0, "4-bit": 4.5}  # of a weight; 4-bit: with a scale for every 32
LOWER_IS_BETTER = ("first", "start", "memory")


@dataclass(frozen=True)
class Summary:
    """A figure over the rounds. `rounds` that count; `busy` ones in which others used too much of the machine."""

    median: float
    low: float
    high: float
    rounds: int
    busy: int
    foreign: float  # median, of the rounds that count

    def text(self, factor: float = 1.0, digits: int = 0) -> str:
        """Median and range."""
        middle, low, high = (f"{value * factor:,.{digits}f}" for value in (self.median, self.low, self.high))
        return f"{middle} ({low}-{high})" if self.rounds > 1 else middle


@dataclass(frozen=True)
class Goal:
    """What a figure of ours is to reach: `least` times the best peer's, or for times at most `most` of it."""

    figure: str
    precision: str
    least: float | None = None
    most: float | None = None


def goals(streams: Sequence[int]) -> list[Goal]:
    """The project's goals for these figures."""
    rates = [f"decode{n}" for n in streams] + ["prefill"]
    found = [Goal(rate, "int8", least=1.25 if rate == "decode1" else 1.2) for rate in rates]
    found += [Goal("first", "int8", most=0.8), Goal("decode1", "4-bit", least=1.1)]
    for precision in ("bfloat16", "float32"):
        found += [Goal(rate, precision, least=1.1) for rate in rates] + [Goal("first", precision, most=1 / 1.1)]
    return found


def summarise(samples: Samples, figure: str, setting: str, limit: float) -> Summary | None:
    """A setting's figure; None when it has none. With rounds = 0 all of its rounds were too disturbed."""
    found = [r["figures"][figure] for r in samples.get(setting, []) if r is not None and figure in r["figures"]]
    if not found:
        return None
    quiet = [one for one in found if one["foreign"] <= limit]
    values = [one["value"] for one in quiet] or [float("nan")]
    foreign = median([one["foreign"] for one in quiet or found])
    return Summary(median(values), min(values), max(values), len(quiet), len(found) - len(quiet), foreign)


def best_peer(samples: Samples, figure: str, precision: str, limit: float) -> tuple[str, Summary] | None:
    """The peer of that precision with the best median."""
    found = []
    for name in samples:
        setting = SETTINGS[name]
        if setting.ours or setting.precision != precision:
            continue
        summary = summarise(samples, figure, name, limit)
        if summary is not None and summary.rounds:
            found.append((name, summary))
    sign = 1 if figure in LOWER_IS_BETTER else -1
    return min(found, key=lambda item: sign * item[1].median, default=None)


def compare(samples: Samples, streams: Sequence[int], limit: float) -> list[dict[str, Any]]:
    """Ours against the best peer, for every goal that both have figures for."""
    rows = []
    for goal in goals(streams):
        ours = next((n for n in samples if n.startswith("ours:") and SETTINGS[n].precision == goal.precision), None)
        mine = summarise(samples, goal.figure, ours, limit) if ours else None
        peer = best_peer(samples, goal.figure, goal.precision, limit)
        if mine is None or not mine.rounds or peer is None:
            continue
        assert ours is not None
        name, theirs = peer
        ratio = mine.median / theirs.median
        held = ratio >= goal.least if goal.least is not None else ratio <= (goal.most or 0.0)
        rows.append(
            {
                "figure": goal.figure, "precision": goal.precision, "ours": mine.median, "peer": name,
                "theirs": theirs.median, "ratio": ratio, "by_round": _by_round(samples, goal.figure, ours, name, limit),
                "least": goal.least, "most": goal.most, "held": held,
            }
        )  # fmt: skip
    return rows


def _by_round(samples: Samples, figure: str, ours: str, peer: str, limit: float) -> list[float]:
    """The ratio within each round in which both count."""
    ratios = []
    for mine, theirs in zip(samples[ours], samples[peer], strict=False):
        if mine is None or theirs is None or figure not in mine["figures"] or figure not in theirs["figures"]:
            continue
        a, b = mine["figures"][figure], theirs["figures"][figure]
        if max(a["foreign"], b["foreign"]) <= limit:
            ratios.append(a["value"] / b["value"])
    return ratios


def agreement(samples: Samples) -> dict[str, float]:
    """For each setting, how many of its greedy tokens are those of a float32 one (transformers' where it was measured, else the
    first): whether all run the same model, and how much a format changes. Empty without one in float32."""
    answers = {name: r["answers"] for name, rounds in samples.items() for r in rounds if r is not None}
    exact = sorted(
        (n for n in answers if SETTINGS[n].precision == "float32"), key=lambda n: n != "transformers:float32"
    )
    if not exact:
        return {}
    reference = answers[exact[0]]
    flat = [token for answer in reference for token in answer]
    return {
        name: sum(a == b for a, b in zip((t for one in mine for t in one), flat, strict=True)) / len(flat)
        for name, mine in answers.items()
    }


def engine_table(samples: Samples, streams: Sequence[int], limit: float, bandwidth: float, weights: int) -> str:
    """All settings, as Markdown. `weights`: parameters that a decoded token reads; `bandwidth` in bytes a second."""
    heads = [f"decode, {n}" for n in streams]
    lines = [
        f"| setting | {' | '.join(heads)} | prefill | first token, ms | peak memory, MB | start, s | of the bandwidth "
        "| agrees | others' cores | rounds |",
        "|---" * (len(heads) + 9) + "|",
    ]
    same = agreement(samples)
    for name in samples:
        cells = [_cell(samples, f"decode{n}", name, limit) for n in streams]
        cells.append(_cell(samples, "prefill", name, limit))
        cells += [_cell(samples, "first", name, limit, 1e3, 1), _cell(samples, "memory", name, limit)]
        cells.append(_cell(samples, "start", name, limit, 1, 1))
        one = summarise(samples, "decode1", name, limit)
        size = weights * BITS[SETTINGS[name].precision] / 8
        cells.append(f"{one.median * size / bandwidth:.2f}" if one is not None and one.rounds else "")
        cells.append(f"{same[name]:.2f}" if name in same else "")
        known = [s for f in _figures(samples, name) if (s := summarise(samples, f, name, limit)) is not None]
        cells.append(f"{max(s.foreign for s in known):.2f}" if known else "")
        cells.append(f"{sum(r is not None for r in samples[name])}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _figures(samples: Samples, name: str) -> list[str]:
    return sorted({figure for r in samples[name] if r is not None for figure in r["figures"]})


def _cell(samples: Samples, figure: str, name: str, limit: float, factor: float = 1.0, digits: int = 0) -> str:
    summary = summarise(samples, figure, name, limit)
    if summary is None:
        return ""
    if not summary.rounds:
        return f"busy ({summary.foreign:.1f} cores)"
    return summary.text(factor, digits) + (f" [{summary.busy} busy]" if summary.busy else "")


def goal_table(rows: Sequence[dict[str, Any]]) -> str:
    """`compare`'s result as Markdown."""
    lines = ["| figure | precision | ours | best peer | ratio (by round) | goal | |", "|---" * 7 + "|"]
    for row in rows:
        factor, digits = (1e3, 1) if row["figure"] in LOWER_IS_BETTER else (1.0, 0)
        unit = " ms" if row["figure"] == "first" else ""
        goal = f">= {row['least']:.2f}" if row["least"] is not None else f"<= {row['most']:.2f}"
        rounds = row["by_round"]
        spread = f" ({min(rounds):.2f}-{max(rounds):.2f})" if len(rounds) > 1 else ""
        lines.append(
            f"| {row['figure']} | {row['precision']} | {row['ours'] * factor:,.{digits}f}{unit} "
            f"| {row['peer']} {row['theirs'] * factor:,.{digits}f}{unit} | {row['ratio']:.3f}{spread} | {goal} "
            f"| {'held' if row['held'] else 'MISSED'} |"
        )
    return "\n".join(lines)


def load_table(samples: Samples, limit: float) -> str:
    """The loads of our engine, medians over the rounds, as Markdown; empty when there were none."""
    lines = []
    for name, rounds in samples.items():
        loads = [r["loads"] for r in rounds if r is not None and r.get("loads")]
        for load in sorted({load for one in loads for load in one}):
            found = [one[load] for one in loads if load in one]
            quiet = [one for one in found if one["foreign"] <= limit]
            keys = dict.fromkeys(key for one in quiet for key in one if key != "foreign")
            values = {key: median([one[key] for one in quiet if key in one]) for key in keys}
            text = ", ".join(f"{key} {value:.4g}" for key, value in values.items()) or "busy"
            lines.append(f"| {name} | {load} | {text} | {len(quiet)} of {len(found)} |")
    head = ["| setting | load | figures | rounds |", "|---" * 4 + "|"]
    return "\n".join(head + lines) if lines else ""


def memory_table(samples: Samples, parameters: int, per_token: int, tokens: int, reserved: int) -> str:
    """Peak memory of ours beside what weights and cache need, in MB. `parameters`: all weights; `per_token`: elements of
    cache that one position holds; `tokens`: positions that one figure used at most; `reserved`: those of all slots. What
    finished prompts left in their slots stays in memory, for the next that begins alike: where it was measured it counts."""
    lines = [
        "| setting | peak | imports alone | weights | cache, used | cache, reserved | peak / (weights + reserved) "
        "| (peak - imports) / (weights + used) |",
        "|---" * 8 + "|",
    ]
    for name, rounds in samples.items():
        found = [r for r in rounds if r is not None and SETTINGS[name].engine == "ours"]
        if not found:
            continue
        precision = SETTINGS[name].precision
        peak = median([r["figures"]["memory"]["value"] for r in found])
        imports = median([r["about"].get("imports_mb") or 0.0 for r in found])
        weights = parameters * BITS[precision] / 8 / 2**20
        element = 4 if precision == "float32" else 2
        used, whole = (per_token * n * element / 2**20 for n in (tokens, reserved))
        used = median([r["about"].get("cache_mb") or used for r in found])
        cells = [f"{value:,.0f}" for value in (peak, imports, weights, used, whole)]
        cells += [f"{peak / (weights + whole):.2f}", f"{(peak - imports) / (weights + used):.2f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)
