"""Continuous batching. Knows no HTTP. The rest of `app` uses `app.engine.client` and `app.engine.messages` only.

    from app.engine import Engine, SamplingParams

is the engine without a server (app.engine.offline). Names are looked up when they are first used: what the HTTP process doesn't
need, it doesn't import.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.engine.messages import Grammar
    from app.engine.offline import Answer, Engine
    from model.sampling_params import SamplingParams

_HOMES = {
    "Answer": "app.engine.offline",
    "Engine": "app.engine.offline",
    "Grammar": "app.engine.messages",
    "SamplingParams": "model.sampling_params",
}
__all__ = ["Answer", "Engine", "Grammar", "SamplingParams"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
