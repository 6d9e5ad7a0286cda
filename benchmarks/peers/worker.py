"""One setting in a process of its own: `python -m benchmarks.peers.worker JOB`. Replies with a line of JSON.

Times are of whole calls, from token ids to token ids. A decode rate is the time of a call with many new tokens less that of a
call with one, so it leaves the prompt out. All prompts are random tokens, and no two of a process or round are alike.
"""

import importlib
import json
import os
import random
import sys
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.peers import Engine, Job
from benchmarks.peers.machine import Timing, median, memory, timed

MARK = '{"bench"'  # begins the reply; libraries may print what they like before
AGREEMENT = (12, 24, 4)  # prompts, tokens of each, new tokens: for the answers that are compared


def main() -> None:
    """Do the job that the command line brings."""
    job = Job.from_json(sys.argv[1])
    module = importlib.import_module(f"benchmarks.peers.{job.of.engine}")
    if job.task == "prepare":
        job.artifact.parent.mkdir(parents=True, exist_ok=True)
        module.prepare(job)
        reply({})
    else:
        reply(measure(job, module.load(job)))
    sys.stdout.flush()
    os._exit(0)  # taking libraries apart is nobody's figure, and some of them fail at it


def reply(values: dict[str, Any]) -> None:
    """The line that the starter waits for."""
    print(json.dumps({"bench": values}), flush=True)


class Prompts:
    """Random prompts by length; each is new."""

    def __init__(self, seed: int | str, vocab_size: int) -> None:
        self._random, self._vocab_size = random.Random(seed), vocab_size

    def __call__(self, count: int, length: int) -> list[list[int]]:
        # The last token of GPT-2's kind of vocabulary ends texts.
        return [[self._random.randrange(self._vocab_size - 1) for _ in range(length)] for _ in range(count)]


def measure(job: Job, engine: Engine) -> dict[str, Any]:
    """All the figures that the job asks for, each as {"value", "foreign"}."""
    prompts = Prompts(job.seed, job.vocab_size)
    engine.generate(prompts(1, 16), 1)
    start = time.monotonic() - job.spawned
    figures: dict[str, dict[str, float]] = {"start": {"value": start, "foreign": 0.0}}
    figures |= dict(_figures(job, engine, prompts))
    count, length, n_new = AGREEMENT
    compared, width = Prompts("agreement", job.vocab_size)(count, length), max(job.streams)
    answers = [a for i in range(0, count, width) for a in engine.generate(compared[i : i + width], n_new)]
    peak = _peak(job)
    figures["memory"] = {"value": peak, "foreign": 0.0}
    result = {"figures": figures, "answers": answers, "about": engine.about()}
    if job.of.engine == "ours":
        from benchmarks.peers import loads

        result["loads"] = loads.measure(job, engine, prompts)
    return result


def _figures(job: Job, engine: Engine, prompts: Prompts) -> Iterator[tuple[str, dict[str, float]]]:
    if "first" in job.parts:
        yield "first", _first(job, engine, prompts, _length(job, 128))
    if "prefill" in job.parts:
        length = _length(job, 512)
        figure = _first(job, engine, prompts, length)
        yield "prefill", {"value": length / figure["value"], "foreign": figure["foreign"]}
    if "decode" in job.parts:
        for streams in job.streams:
            figure = _decode(job, engine, prompts, streams)
            if figure is not None:
                yield f"decode{streams}", figure


def _length(job: Job, tokens: int) -> int:
    """So many, or what a small model's context leaves for them."""
    return min(tokens, job.context - job.new_tokens - 1)


def _first(job: Job, engine: Engine, prompts: Prompts, length: int) -> dict[str, float]:
    """Seconds to one token after a prompt; a few more repetitions than usual, for they are soon over."""
    engine.generate(prompts(1, length), 1)
    timings = [_timed(job, engine, prompts, (1, length), 1) for _ in range(2 * job.repeats + 1)]
    return {"value": median([t.seconds for t in timings]), "foreign": median([t.foreign for t in timings])}


def _decode(job: Job, engine: Engine, prompts: Prompts, streams: int) -> dict[str, float] | None:
    """Tokens a second over `streams` prompts of 128 (one stream) or 64 tokens; None when others disturbed it so much that the
    difference says nothing."""
    length = _length(job, 128 if streams == 1 else 64)
    engine.generate(prompts(streams, length), 2)

    pairs = [
        tuple(_timed(job, engine, prompts, (streams, length), n_new) for n_new in (1, 1 + job.new_tokens))
        for _ in range(job.repeats)
    ]
    seconds = median([long.seconds for _, long in pairs]) - median([short.seconds for short, _ in pairs])
    foreign = median([max(long.foreign, short.foreign) for short, long in pairs])
    return {"value": streams * job.new_tokens / seconds, "foreign": foreign} if seconds > 0 else None


def _timed(job: Job, engine: Engine, prompts: Prompts, shape: tuple[int, int], n_new: int) -> Timing:
    """One call over so many prompts of such a length."""
    return timed(lambda: prompts(*shape), lambda batch: engine.generate(batch, n_new), limit=job.foreign_limit)


def _peak(job: Job) -> float:
    """The most memory that was held so far, in MB; on a GPU, the GPU's, where PyTorch allocates it."""
    if job.device == "cuda" and "torch" in sys.modules:
        import torch

        return torch.cuda.max_memory_allocated() / 2**20
    return memory()["peak"]


if __name__ == "__main__":
    main()
