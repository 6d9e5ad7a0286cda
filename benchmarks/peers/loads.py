"""Loads that only a whole engine can be put under: prompts among decoding streams, adapters, speculation."""

import asyncio
import contextlib
import itertools
import math
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers import Job
from benchmarks.peers.machine import Watch, median, percentile

PROMPTS, ANSWERS = (16, 800), (8, 128)  # tokens, uniform
REQUESTS = 96
LONG_PROMPT = 800
ADAPTERS, RANK = 8, 8

Prompts = Callable[[int, int], list[list[int]]]


def measure(job: Job, engine: Any, prompts: Prompts) -> dict[str, dict[str, float]]:
    """The loads among the job's parts, each as named figures and the foreign use of the machine. What a small model is too fast for
    is left out."""
    parts = {"mixed": mixed, "gaps": gaps, "adapters": adapters, "speculation": speculation}
    results = {}
    for name in job.parts:
        if name in parts:
            watch = Watch()
            figures = parts[name](job, engine, prompts) | {"foreign": watch.read().foreign}
            results[name] = {key: value for key, value in figures.items() if math.isfinite(value)}
    return results


def mixed(job: Job, engine: Any, prompts: Prompts) -> dict[str, float]:
    """Prompts and answers of mixed lengths, as many at once as there are streams, against the time that the prompts alone
    and the decoding alone would take.

    The parts are measured on the same lengths: the prompts each with one new token; then all streams decoding after
    prompts of the mean length. The mix counts from its start until its last request is handed in, so that every place is
    always taken.
    """
    draw, width = random.Random(job.seed), max(job.streams)
    longest, most = _share(job, PROMPTS[1]), _share(job, ANSWERS[1])
    lengths = [draw.randint(min(PROMPTS[0], longest), longest) for _ in range(REQUESTS)]
    counts = [draw.randint(min(ANSWERS[0], most), most) for _ in range(REQUESTS)]

    def texts() -> list[list[int]]:
        return [prompts(1, length)[0] for length in lengths]

    begun = time.perf_counter()
    engine.run(_closed_loop(engine, texts(), [1] * REQUESTS, width))
    prefill_rate = sum(lengths) / (time.perf_counter() - begun)
    decode_rate = engine.run(_decode_rate(engine, prompts(width, sum(lengths) // REQUESTS), most))
    begun = time.perf_counter()
    answers, last = engine.run(_closed_loop(engine, texts(), counts, width))
    whole = time.perf_counter() - begun
    read = sum(length for length, (_, times) in zip(lengths, answers, strict=True) if times[0] <= last)
    written = sum(t <= last for _, times in answers for t in times)
    predicted = read / prefill_rate + written / decode_rate
    return {
        "ratio": predicted / (last - begun), "prefill_rate": prefill_rate, "decode_rate": decode_rate,
        "prompt_tokens": float(read), "new_tokens": float(written), "seconds": last - begun, "whole_seconds": whole,
        "new_tokens_per_second": written / (last - begun),
    }  # fmt: skip


async def _closed_loop(
    engine: Any, prompts: Sequence[list[int]], counts: Sequence[int], width: int
) -> tuple[list[tuple[list[int], list[float]]], float]:
    """All requests, `width` at a time; their answers, and when the last one was handed in."""
    waiting, last = iter(range(len(prompts))), 0.0
    answers: dict[int, Any] = {}

    async def stream() -> None:
        nonlocal last
        for i in waiting:
            last = time.perf_counter()
            answers[i] = await engine.answer(prompts[i], counts[i])

    await asyncio.gather(*(stream() for _ in range(width)))
    return [answers[i] for i in range(len(prompts))], last


async def _decode_rate(engine: Any, prompts: Sequence[list[int]], n_new: int) -> float:
    """Tokens a second while all streams decode: from the last one's first token to the first one's end."""
    await engine.all(prompts, [1] * len(prompts))  # an engine that keeps prompts begins all streams together then
    answers = await engine.all(prompts, [n_new] * len(prompts))
    begin, end = max(times[0] for _, times in answers), min(times[-1] for _, times in answers)
    if begin >= end:
        return float("nan")  # prompts took so long that the first stream was over before the last one began
    return sum(begin < t <= end for _, times in answers for t in times) / (end - begin)


def gaps(job: Job, engine: Any, prompts: Prompts) -> dict[str, float]:
    """Pauses of one running stream while another one's long prompt is read, against its median pause before; and with
    eight running streams. In milliseconds."""
    figures: dict[str, float] = {}
    for streams in (1, min(8, max(job.streams) - 1)):
        before: list[float] = []
        during: list[float] = []
        waits: list[float] = []
        for _ in range(2 * job.repeats + 1):
            alone, disturbed, wait = engine.run(_disturb(job, engine, prompts, streams))
            before, during, waits = [*before, *alone], [*during, *disturbed], [*waits, wait]
        usual, late = median(before), percentile(during, 0.99)
        figures |= {
            f"median_{streams}": usual * 1e3, f"p99_{streams}": late * 1e3, f"max_{streams}": percentile(during, 1.0) * 1e3,
            f"ratio_{streams}": late / (usual or math.nan), f"first_{streams}": median(waits) * 1e3,
        }  # fmt: skip
    return figures


async def _disturb(job: Job, engine: Any, prompts: Prompts, streams: int) -> tuple[list[float], list[float], float]:
    """Let `streams` streams run, hand in a long prompt midway; the pauses of the first one before that and until the
    prompt's first token, and how long that took."""
    times: list[float] = []
    warm, stop = 40, asyncio.Event()

    async def run(prompt: list[int], watched: bool) -> None:
        room = job.context - len(prompt)
        async with contextlib.aclosing(engine.stamps(prompt, room)) as stamps:
            async for stamp in stamps:
                if watched:
                    times.append(stamp)
                if stop.is_set():
                    return

    running = [asyncio.create_task(run(p, i == 0)) for i, p in enumerate(prompts(streams, _share(job, 64)))]
    while len(times) < warm and not running[0].done():
        await asyncio.sleep(0.002)
    handed = time.perf_counter()
    _, stamps = await engine.answer(prompts(1, _share(job, LONG_PROMPT))[0], 1)
    stop.set()
    await asyncio.gather(*running)
    pairs = list(itertools.pairwise(times[8:]))  # the first few see other streams being admitted
    before = [b - a for a, b in pairs if b <= handed]
    during = [b - a for a, b in pairs if b > handed and a <= stamps[0]]
    return before, during, stamps[0] - handed


def adapters(job: Job, engine: Any, prompts: Prompts) -> dict[str, float]:
    """Decoding by all streams with several LoRA adapters among them, against none."""
    width, names = max(job.streams), [f"bench-{i}" for i in range(ADAPTERS)]
    for name in names:
        engine.run(engine.client.load_adapter(name, str(Path(job.models) / "adapters" / name)))

    def rate(chosen: Sequence[str | None]) -> float:
        async def run() -> float:
            batch = prompts(width, _share(job, 64))
            answers = await asyncio.gather(
                *(engine.answer(p, 1 + job.new_tokens, adapter=a) for p, a in zip(batch, chosen, strict=True))
            )
            begin, end = max(t[0] for _, t in answers), max(t[-1] for _, t in answers)
            return sum(begin < t for _, times in answers for t in times) / ((end - begin) or math.nan)

        return engine.run(run())

    plain = [rate([None] * width) for _ in range(job.repeats)]
    mixed_in = [rate([names[i % ADAPTERS] for i in range(width)]) for _ in range(job.repeats)]
    return {"plain": median(plain), "adapters": median(mixed_in), "ratio": median(mixed_in) / median(plain)}


def speculation(job: Job, engine: Any, prompts: Prompts) -> dict[str, float]:
    """Decoding after a prompt that repeats a passage, with drafts from the prompt and without."""
    from benchmarks.peers.ours import Ours

    drafting, n_new = Ours(job, speculate=True), min(4 * job.new_tokens, job.context // 2)

    def rate(which: Any) -> float:
        passage = prompts(1, _share(job, 48))[0]
        ((_, times),) = which.run(which.all([passage * 3], [1 + n_new]))
        return n_new / max(
            times[-1] - times[0], 1e-6
        )  # many drafted tokens come at once: it takes an answer of some length

    rates = [(rate(engine), rate(drafting)) for _ in range(2 * job.repeats + 1)]
    plain, drafted = (median(list(side)) for side in zip(*rates, strict=True))
    drafting.close()
    return {"plain": plain, "drafted": drafted, "ratio": drafted / plain}


def _share(job: Job, tokens: int) -> int:
    """So many tokens of a context of 1,024, or as large a part of a smaller one."""
    return max(1, min(tokens, tokens * job.context // 1024))
