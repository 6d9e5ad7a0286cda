"""The tables of docs/scale.md on serving; and those of the simulations, from what scenarios.py found."""

from collections.abc import Mapping, Sequence

from benchmarks.scale import constants as c
from benchmarks.scale.markdown import count, dollars, metric, number, percent, seconds, table
from benchmarks.scale.scenarios import LOAD
from benchmarks.scale.serving import CHAT, bears, fleet, gpu_kind, kinds
from benchmarks.scale.shapes import LARGE, LLAMA_8B

Rows = Sequence[Mapping[str, str | float]]


def replicas() -> str:
    """What one replica holds and bears."""
    head = (
        "replica", "speed from", "requests of", "slots", "cache of a slot", "a step, 1 row / all",
        "decode, all slots", "prompts", "bears", "limited by",
    )  # fmt: skip
    rows = []
    for kind in kinds():
        speed, ask = kind.speed, kind.ask
        by_http = bears(kind) * ask.answer.mean >= 0.999 * c.HTTP_MOST.value
        rows.append(
            (
                kind.name, "measured" if kind.measured else "data sheets",
                f"{ask.prompt.mean:,.0f} + {ask.answer.mean:,.0f} tokens", str(speed.slots), metric(kind.shape.slot_bytes(), "B"),
                f"{seconds(speed.decode[1])} / {seconds(speed.decode[-1])}", f"{count(kind.token_rate)} tokens/s",
                f"{count(1 / speed.token)} tokens/s", f"{number(bears(kind))}/s", "HTTP process" if by_http else "engine",
            )
        )  # fmt: skip
    return table(head, rows)


def fleets() -> str:
    """1 M requests an hour."""
    head = (
        "replica", f"for the peak, at {LOAD:.0%} of what it bears", "nodes, spare", "$/h",
        "$ a million requests", "nodes that fail in a month", "requests that one cuts off", "streams out",
    )  # fmt: skip
    rows = []
    for kind in kinds():
        made = fleet(kind, LOAD)
        rows.append(
            (
                kind.name, f"{made.needed} replicas", f"{made.nodes}, {made.spare} of them spare", dollars(made.hourly),
                dollars(made.per_million), number(made.deaths), number(made.lost), f"{metric(8 * made.stream, 'bit/s')}",
            )
        )  # fmt: skip
    return table(head, rows)


def capacity() -> str:
    """What so many nodes bear, in requests an hour."""
    head = ("replica", "replicas a node", *(f"{n:,} node{'s' if n > 1 else ''}" for n in c.NODES))
    rows = []
    for kind in kinds():
        hourly = bears(kind) * LOAD * kind.per_node * 3600
        rows.append((kind.name, str(kind.per_node), *(f"{count(n * hourly)}/h" for n in c.NODES)))
    return table(head, rows)


def published() -> str:
    """The formula behind the GPU rows beside a figure of others."""
    kind = gpu_kind(LLAMA_8B, CHAT)
    tokens = kind.ask.answer.mean * bears(kind)
    return table(
        ("Llama 3.1 8B, one H100", "tokens of answers a second"),
        [
            (f"our formula, decoding alone, all {kind.speed.slots} slots", number(kind.token_rate)),
            ("our formula, with the prompts of `chat`", number(tokens)),
            ("published", number(c.VLLM.value)),
        ],
    )


def doubts() -> str:
    """How many H100s the 7 B takes when one assumption alone is at the ends of its range."""
    base = bears(gpu_kind(LARGE, CHAT))
    (slow, _, fast), (light, _, heavy) = c.HBM_SHARE.range, c.STEP_COST.range
    cases = (
        ("share of the memory's bandwidth", gpu_kind(LARGE, CHAT, share=fast), gpu_kind(LARGE, CHAT, share=slow)),
        ("a step's own time", gpu_kind(LARGE, CHAT, own=light), gpu_kind(LARGE, CHAT, own=heavy)),
    )
    rows = [(name, *(f"x {number(base / bears(kind))}" for kind in ends)) for name, *ends in cases]
    return table(("H100s for the 7 B's chats", "at one end", "at the other"), rows)


def _ms(row: Mapping[str, str | float], key: str) -> str:
    return seconds(float(row[key]) / 1e3)


def checks(rows: Rows) -> str:
    """The simulation beside formulas."""
    return table(
        ("case", "simulated", "formula", "off by", "allowed"),
        [
            (
                str(r["case"]), number(float(r["simulated"]), 3), number(float(r["formula"]), 3), percent(float(r["off"])),
                percent(float(r["allowed"])) if float(r["allowed"]) > 1e-3 else "rounding",
            )
            for r in rows
        ],
    )  # fmt: skip


def loads(rows: Rows) -> str:
    """First tokens by load."""
    return table(
        (
            "load", "replicas", "first token p50", "p95", "p99", "between tokens", "slots in use", "computing",
            "in bursts: p50", "p99", "refused",
        ),
        [
            (
                percent(float(r["load"])), f"{r['replicas']}", _ms(r, "p50"), _ms(r, "p95"), _ms(r, "p99"), _ms(r, "pace"),
                percent(float(r["slots"])), percent(float(r["busy"])), _ms(r, "bursts p50"), _ms(r, "bursts p99"),
                percent(float(r["bursts refused"])),
            )
            for r in rows
        ],
    )  # fmt: skip


def policies(rows: Rows) -> str:
    """Routing."""
    return table(
        (
            "policy", "first token p50", "p99", "whole answer p99", "loads up to 0.5 s old: p99", "refused",
            "shared prefixes: p50", "p99", "prompt tokens saved",
        ),
        [
            (
                str(r["policy"]), _ms(r, "p50"), _ms(r, "p99"), _ms(r, "whole p99"), _ms(r, "stale p99"),
                percent(float(r["stale refused"])), _ms(r, "shared p50"), _ms(r, "shared p99"), percent(float(r["unread"])),
            )
            for r in rows
        ],
    )  # fmt: skip


def queues(rows: Rows) -> str:
    """Waiting or refusing."""
    return table(
        ("places in a queue", "answered", "refused", "first token p50", "p99", "of those answered, later than 2 s"),
        [
            (
                f"{r['queue']}", percent(float(r["served"])), percent(float(r["refused"])), _ms(r, "p50"), _ms(r, "p99"),
                percent(float(r["late"])),
            )
            for r in rows
        ],
    )  # fmt: skip


def scaling(rows: Rows) -> str:
    """Autoscaling."""
    return table(
        ("replicas", "replica-hours", "at most", "first token p50", "p95", "p99", "refused"),
        [
            (
                str(r["start"]), number(float(r["hours"]), 3), f"{r['peak']}", _ms(r, "p50"), _ms(r, "p95"), _ms(r, "p99"),
                percent(float(r["refused"])),
            )
            for r in rows
        ],
    )  # fmt: skip


def deaths(rows: Rows) -> str:
    """Replicas that die."""
    return table(
        (
            "replicas that die", "requests lost", "sent again", "refused", "first token p99, afterwards",
            "whole answer p99",
        ),
        [
            (
                str(r["dying"]), number(float(r["failed"])), number(float(r["sent again"])), percent(float(r["refused"])),
                _ms(r, "p99"), _ms(r, "whole p99"),
            )
            for r in rows
        ],
    )  # fmt: skip


def gpus(rows: Rows) -> str:
    """The 7 B on H100s."""
    return table(
        ("load", "H100s", "first token p50", "p99", "between tokens", "slots in use", "refused"),
        [
            (
                percent(float(r["load"])), f"{r['replicas']}", _ms(r, "p50"), _ms(r, "p99"), _ms(r, "pace"),
                percent(float(r["slots"])), percent(float(r["refused"])),
            )
            for r in rows
        ],
    )  # fmt: skip
