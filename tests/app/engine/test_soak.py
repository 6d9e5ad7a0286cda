"""Thousands of random requests through a real engine: nothing leaks, memory stays flat, the engine finds itself in order."""

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest
from oracle import make_adapters

from app.engine.client import EngineClient
from app.engine.messages import EngineLimits, EngineSpec, Grammar, GrammarError, RequestCancelled
from app.engine.process import WorkerProcess
from model.sampling_params import SamplingParams

_AT_ONCE = 48
# Bytes that a process may grow by after the first quarter of the requests: the allocator's slack. In a run of 24,000 it is 1 MB.
_GROWTH = 12 << 20


def resident(pid: int | str) -> int:
    """Bytes of memory that a process has."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))


class Soak:
    """Random requests to one engine, several at once, and what came of them."""

    def __init__(self, engine: EngineClient, n: int, seed: int = 0) -> None:
        self.engine, self.left, self.rng = engine, n, random.Random(seed)
        self.ends: Counter[str] = Counter()
        shared = self.rng.choices(range(257), k=120)
        self.beginnings = [shared[:length] for length in (0, 0, 20, 60, 120)]

    async def run(self) -> None:
        """All of them."""

        async def worker() -> None:
            while self.left > 0:
                self.left -= 1
                self.ends[await self.one()] += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(worker())

    def prompt(self) -> list[int]:
        """Often with a beginning that others have too."""
        return self.rng.choice(self.beginnings) + self.rng.choices(range(257), k=self.rng.randint(1, 40))

    async def one(self) -> str:
        """A request of a random kind; how it ended."""
        rng, engine = self.rng, self.engine
        adapter = rng.choice([None, None, "one", "two"])
        kind = rng.random()
        if kind < 0.06:
            await engine.embed(self.prompt(), adapter=adapter)
            return "embedded"
        if kind < 0.12:
            await engine.classify(self.prompt(), adapter="mood")
            return "classified"
        grammar = Grammar("regex", "[a-d]+") if kind < 0.16 else Grammar("regex", "(") if kind < 0.165 else None
        params = SamplingParams(
            temperature=rng.choice([0.0, 1.0]), seed=rng.randint(0, 9), repetition_penalty=rng.choice([1.0, 1.1]),
            ignore_eos=rng.random() < 0.2,
        )  # fmt: skip
        leave = rng.choice([None, None, None, 0, 1, 2])
        stream = engine.generate(
            self.prompt(), params, rng.randint(0, 14), stop=["e"] * rng.randint(0, 1), adapter=adapter, grammar=grammar,
            logprobs=rng.choice([None, None, 2]), prompt_logprobs=0 if kind > 0.94 else None,
        )  # fmt: skip
        try:
            async with stream:
                if leave == 0:
                    await asyncio.sleep(0)
                    return "left"
                n = 0
                async for delta in stream:
                    n += 1
                    if delta.finish is not None:
                        return delta.finish.reason
                    if n == leave:
                        return "left"
        except GrammarError:
            return "refused"
        except RequestCancelled:
            return "left"
        raise AssertionError("a stream without an end")


async def soak(model_dir: Path, paths: dict[str, Path], n: int) -> None:
    workers: list[WorkerProcess] = []

    def launch(spec: EngineSpec) -> WorkerProcess:
        workers.append(WorkerProcess(spec))
        return workers[-1]

    adapters = {name: str(path) for name, path in paths.items()}
    spec = EngineSpec(model=str(model_dir), threads=1, max_slots=24, context=256, prefill_chunk=128, adapters=adapters)
    engine = EngineClient(spec, EngineLimits(max_queue=100), launch=launch)
    await engine.start()
    await engine.wait_ready()
    try:
        first = Soak(engine, n // 4)
        await first.run()
        before = resident(workers[0].pid), resident("self")
        rest = Soak(engine, n - n // 4, seed=1)
        await rest.run()
        ends = first.ends + rest.ends
        assert ends.total() == n
        assert ends.keys() == {"embedded", "classified", "length", "stop", "left", "refused"}
        while engine.status.running or engine.status.waiting:
            await asyncio.sleep(0.01)
        assert engine.status.in_flight == 0
        after = resident(workers[0].pid), resident("self")
        assert after[0] - before[0] < _GROWTH, f"the engine grew from {before[0] >> 20} to {after[0] >> 20} MB"
        assert after[1] - before[1] < _GROWTH, f"the client grew from {before[1] >> 20} to {after[1] >> 20} MB"
        # Idle, the engine has looked itself over: it would have ended, and another would run.
        await asyncio.sleep(1.2)
        assert len(workers) == 1
        assert engine.status.state == "ready"
    finally:
        await engine.close()


@pytest.fixture(scope="module")
def paths(model_dir, tmp_path_factory):
    pytest.importorskip("llguidance")
    return make_adapters(model_dir, tmp_path_factory.mktemp("adapters"))


def test_many_random_requests_leak_nothing(loop, model_dir, paths):
    loop.run(soak(model_dir, paths, 1500))


@pytest.mark.slow
def test_very_many_random_requests_leak_nothing(loop, model_dir, paths):
    loop.run(soak(model_dir, paths, 24_000))
