"""All tables by name: those computed at once, and those made of what the simulations found (`simulated.json` beside this file)."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.scale import constants as c
from benchmarks.scale import serving_tables, training_tables
from benchmarks.scale.markdown import count, metric, number, table
from benchmarks.scale.verdicts import verdicts

SIMULATED = Path(__file__).with_name("simulated.json")


def constants() -> str:
    """Every constant with its source."""
    rows = []
    for constant in c.constants():
        span = (
            ""
            if constant.low is None
            else f" ({_figure(constant, constant.low)} to {_figure(constant, constant.high)})"
        )
        rows.append((constant.what, f"{_figure(constant, constant.value)}{span}", constant.kind, constant.source))
    return table(("constant", "value (range)", "kind", "from"), rows)


def _figure(constant: c.Constant, value: float | None) -> str:
    assert value is not None
    if constant.unit in ("tokens", "tokens/s"):
        return f"{count(value)} {constant.unit}"
    if constant.unit in ("$/h", "1/day", "$/GB-month", ""):
        return f"{number(value)} {constant.unit}".strip()
    if constant.unit == "s":
        return metric(value, "s") if value >= 1 else f"{number(value * 1e3)} ms"
    return metric(value, constant.unit)


COMPUTED: dict[str, Callable[[], str]] = {
    "models": training_tables.models,
    "runs": training_tables.runs,
    "network": training_tables.network,
    "failures": training_tables.failures,
    "data": training_tables.data,
    "doubts": training_tables.doubts,
    "replicas": serving_tables.replicas,
    "fleets": serving_tables.fleets,
    "capacity": serving_tables.capacity,
    "verdicts": verdicts,
    "published": serving_tables.published,
    "gpu-doubts": serving_tables.doubts,
    "constants": constants,
}

_FROM_SIMULATION: dict[str, Callable[[Any], str]] = {
    "checks": serving_tables.checks,
    "loads": serving_tables.loads,
    "policies": serving_tables.policies,
    "queues": serving_tables.queues,
    "scaling": serving_tables.scaling,
    "deaths": serving_tables.deaths,
    "gpus": serving_tables.gpus,
}


def all_tables(simulated: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Name -> Markdown. `simulated`: scenario -> rows; None: those that were kept."""
    found = kept() if simulated is None else simulated
    return {name: make() for name, make in COMPUTED.items()} | {
        name: make(found[name]) for name, make in _FROM_SIMULATION.items() if name in found
    }


def kept() -> dict[str, Any]:
    """What the last `--simulate --write` found; nothing before there was one."""
    return json.loads(SIMULATED.read_text("utf-8")) if SIMULATED.is_file() else {}
