"""Engines in a thread of the test's own process."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.engine.client import EngineClient
from app.engine.local import local_engine
from app.engine.messages import EngineLimits, EngineSpec


@pytest.fixture(scope="module")
def make_engine(loop, model_dir: Path) -> Iterator[Callable[..., EngineClient]]:
    """Starts engines on the module's loop, over PyTorch unless told otherwise; they are closed with it."""
    engines: list[EngineClient] = []

    def make(
        *, max_queue: int = 64, max_queue_wait: float = 60.0, request_timeout: float = 600.0, **spec: Any
    ) -> EngineClient:
        limits = EngineLimits(max_queue=max_queue, max_queue_wait=max_queue_wait, request_timeout=request_timeout)
        defaults = {"model": str(model_dir), "max_slots": 4, "backend": "torch"}
        engine = local_engine(EngineSpec(threads=1, **{**defaults, **spec}), limits)
        engines.append(engine)
        loop.run(engine.start())
        loop.run(engine.wait_ready())
        return engine

    yield make
    for engine in engines:
        loop.run(engine.close())


@pytest.fixture(scope="module")
def engine(make_engine: Callable[..., EngineClient]) -> EngineClient:
    """4 slots, prefill in chunks of 16."""
    return make_engine(prefill_chunk=16)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For short rows: PyTorch's threads would only wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
