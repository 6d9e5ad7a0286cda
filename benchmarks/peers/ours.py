"""This project's engine as a whole: client, messages, scheduler, steps. In this process, or (--process) in one of its own."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from app.engine.client import EngineClient
from app.engine.local import WorkerThread
from app.engine.messages import EngineLimits, EngineSpec
from app.engine.process import Worker, WorkerProcess
from benchmarks.peers import Job
from benchmarks.peers.machine import memory, resident_reserve
from model.sampling_params import SamplingParams

T = TypeVar("T")

_FOREVER = 1e9
_FORMATS = {
    "float32": ("float32", "none"),
    "bfloat16": ("bfloat16", "none"),
    "int8": ("float32", "int8"),
    "int4": ("float32", "int4"),
}
_CACHE_MB = 100.0  # larger than what the allocator reserves for a thread: of that size only the cache is


class Ours:
    """See Engine. Speculation is off: random weights repeat themselves, so every draft would be right."""

    def __init__(self, job: Job, *, speculate: bool = False) -> None:
        self._job = job
        dtype, quantize = _FORMATS[job.of.variant]
        self.spec = EngineSpec(
            model=str(job.source), dtype=dtype, quantize=quantize, device=job.device, backend=job.backend, threads=job.threads,
            max_slots=max(job.streams), context=job.context, speculate=speculate, log_level="warning",
        )  # fmt: skip
        self.cached = 0  # prompt tokens that a figure got for nothing: there must be none
        if not job.process:
            import torch  # noqa: F401 (so that what it holds is known apart from what the engine takes)

            self._imports_mb = memory()["now"]
        launch: Callable[[EngineSpec], Worker] = WorkerProcess if job.process else WorkerThread
        limits = EngineLimits(max_queue=1 << 20, max_queue_wait=_FOREVER, request_timeout=_FOREVER)
        self._loop = asyncio.new_event_loop()
        self.client = EngineClient(self.spec, limits, launch=launch)
        self.run(self._start())

    async def _start(self) -> None:
        await self.client.start()
        await self.client.wait_ready()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine of this engine's to its end."""
        return self._loop.run_until_complete(work)

    def generate(self, prompts: list[list[int]], n_new: int) -> list[list[int]]:
        """See Engine."""
        times = self.run(self.all(prompts, [n_new] * len(prompts)))
        return [ids for ids, _ in times]

    async def all(
        self, prompts: Sequence[list[int]], lengths: Sequence[int], **options: Any
    ) -> list[tuple[list[int], list[float]]]:
        """`answer` for all prompts, handed in at once."""
        return await asyncio.gather(*(self.answer(p, n, **options) for p, n in zip(prompts, lengths, strict=True)))

    async def answer(self, prompt: list[int], n_new: int, **options: Any) -> tuple[list[int], list[float]]:
        """One request's tokens, and when each arrived, on the performance counter."""
        ids: list[int] = []
        times: list[float] = []
        params = SamplingParams(temperature=0.0, ignore_eos=True)
        async for delta in self.client.generate(prompt, params, n_new, **options):
            ids += [token.id for token in delta.tokens]
            times += [time.perf_counter()] * len(delta.tokens)
            if delta.finish is not None:
                self.cached += delta.finish.timings.cached
        return ids, times

    async def stamps(self, prompt: list[int], n_new: int) -> AsyncIterator[float]:
        """When each token of an answer arrived; leaving the loop gives the request up."""
        params = SamplingParams(temperature=0.0, ignore_eos=True)
        async with self.client.generate(prompt, params, n_new) as stream:
            async for delta in stream:
                now = time.perf_counter()
                for _ in delta.tokens:
                    yield now

    def about(self) -> dict[str, Any]:
        """See Engine."""
        info = self.client.info
        facts = {"kernels": info.kernels, "dtype": info.dtype, "quantize": info.quantize, "slots": info.slots}
        if not self._job.process:
            facts |= {"imports_mb": self._imports_mb, "cache_mb": resident_reserve(_CACHE_MB)}
        return facts | {"cached_tokens": self.cached}

    def close(self) -> None:
        """End the engine."""
        self.run(self.client.close())
        self._loop.close()


load = Ours
