"""What a training run tells a script (`--json`)."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.plan import Plan


def done_fields(model: Path, out: Path) -> dict[str, Any]:
    """The result of a run in directory `out`: where the model is, how far it went, and what was measured last on held-out data."""
    from training.progress import LOG

    last: dict[str, Any] = {}
    with (out / LOG).open(encoding="utf-8") as lines:
        for line in lines:
            fields = json.loads(line)
            if "validation_loss" in fields:
                last = fields
    reached = {name: last.pop(name, None) for name in ("step", "tokens_seen", "seconds")}
    return {"model": model, "log": str(out / LOG), **reached, "measures": last}


def plan_fields(plan: "Plan") -> dict[str, Any]:
    """What `--dry-run` found out, in bytes, seconds and FLOPs."""
    return {
        "name": plan.name,
        "parameters": plan.parameters.total,
        "trained_parameters": plan.parameters.trainable,
        "updates": plan.updates,
        "tokens": plan.tokens,
        "epochs": plan.epochs,
        "flops": plan.flops,
        "seconds": plan.seconds,
        "tokens_per_second": plan.speed.tokens_per_second,
        "memory": plan.memory.total,
        "memory_free": plan.memory_free,
        "disk": plan.disk,
        "disk_free": plan.disk_free,
        "device": plan.device,
        "warnings": plan.warnings,
    }
