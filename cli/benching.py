"""A short benchmark of the engine in this process. (benchmarks/ measures it beside others, with more care and more time.)"""

import os
import platform
import random
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cli.local import LocalEngine, choose, explained
from model.architectures import read_config
from model.errors import ConfigError, HomegrownError

_BUSY = 0.25  # processors that others may use before it is said
_FIGURES = ("prompt_tokens_per_second", "decode_tokens_per_second", "first_token_ms")
_TICK = os.sysconf("SC_CLK_TCK")


def measure(
    model: str | None,
    spec: dict[str, Any],
    *,
    streams: Sequence[int],
    prompt_tokens: int,
    new_tokens: int,
    rounds: int,
) -> dict[str, Any]:
    """All figures, as JSON has them. ConfigError when prompt and answer don't fit the model; HomegrownError for one that can't be
    loaded, or can't generate."""
    chosen = choose(model)
    config = read_config(chosen.directory)
    if config.labels:
        raise HomegrownError(f"{chosen.name}: is a classifier; only models that generate are measured")
    if prompt_tokens + new_tokens > config.context_length:
        raise ConfigError(
            f"{prompt_tokens} prompt tokens and {new_tokens} new ones don't fit the model's {config.context_length}; "
            "lower --prompt-tokens or --new-tokens"
        )
    begun = time.perf_counter()
    context = min(config.context_length, prompt_tokens + new_tokens)
    with LocalEngine(chosen.directory, max_slots=max(streams), context=context, adapters={}, **spec) as engine:
        loaded = time.perf_counter() - begun
        info = engine.info
        watch = _OtherUse()
        runs = _Runs(engine, prompt_tokens, new_tokens)
        with explained():
            figures = _all_streams(runs, streams, rounds)
        return {
            "model": chosen.name,
            "parameters": _parameters(config),
            "device": info.device,
            "dtype": info.dtype,
            "quantize": info.quantize,
            "kernels": info.kernels,
            "threads": info.threads,
            "processor": processor(),
            "prompt_tokens": prompt_tokens,
            "new_tokens": new_tokens,
            "rounds": rounds,
            "load_seconds": round(loaded, 3),
            "others_busy": watch.read(),
            "streams": figures,
        }


def _all_streams(runs: "_Runs", streams: Sequence[int], rounds: int) -> list[dict[str, Any]]:
    """The figures of each number of streams, medians with their ranges."""
    figures = []
    with tqdm(total=len(streams) * (rounds + 1), desc="measuring", unit="run", disable=None, file=sys.stderr) as bar:
        for width in streams:
            bar.set_postfix_str(f"{width} stream{'s' * (width > 1)}")
            runs.once(width)  # buffers grow, pages are touched, kernels warm up
            bar.update()
            found = []
            for _ in range(rounds):
                found.append(runs.once(width))
                bar.update()
            medians = {name: _spread([one[name] for one in found]) for name in _FIGURES}
            figures.append({"streams": width, **medians, "memory_mb": _peak_mb()})
    return figures


class _Runs:
    """Repetitions of a load on one engine, each with prompts of its own."""

    def __init__(self, engine: LocalEngine, prompt_tokens: int, new_tokens: int) -> None:
        self._engine, self._prompt_tokens, self._new_tokens = engine, prompt_tokens, new_tokens
        self._draw = random.Random(0)

    def once(self, width: int) -> dict[str, float]:
        """The prompts with one new token each; then others with all of them. What those take more is the decoding."""
        short = self._engine.arrivals(self._prompts(width), 1)
        whole = self._engine.arrivals(self._prompts(width), self._new_tokens)
        prompts = max(times[-1] for times in short)
        decoding = max(times[-1] for times in whole) - prompts
        if decoding <= 0:  # so few tokens that the clock, or another program, decides
            raise HomegrownError("the answers are too short to be timed here; raise --new-tokens")
        rates = width * self._prompt_tokens / prompts, width * (self._new_tokens - 1) / decoding
        first = 1000 * statistics.median(times[0] for times in short)
        return dict(zip(_FIGURES, (*rates, first), strict=True))

    def _prompts(self, width: int) -> list[list[int]]:
        size = self._engine.info.vocab_size
        return [[self._draw.randrange(size) for _ in range(self._prompt_tokens)] for _ in range(width)]


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 2),
        "lowest": round(min(values), 2),
        "highest": round(max(values), 2),
    }


def _peak_mb() -> float:
    """The most memory that this process had so far, Python and PyTorch included; on a GPU, what the model took there."""
    import torch

    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return round(torch.cuda.max_memory_allocated() / 2**20, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB, on macOS bytes
    return round(peak / 2 ** (20 if sys.platform == "darwin" else 10), 1)


def _parameters(config: Any) -> int:
    from model.checkpoint import empty_model

    return sum(parameter.numel() for parameter in empty_model(config).parameters())


class _OtherUse:
    """Processors that other programs keep busy, from now on."""

    def __init__(self) -> None:
        self._begun, self._busy, self._own = time.perf_counter(), _busy_seconds(), time.process_time()

    def read(self) -> float | None:
        """How many since then, on average; None where the system doesn't tell."""
        if self._busy is None or (now := _busy_seconds()) is None:
            return None
        own = time.process_time() - self._own
        return round(max(0.0, now - self._busy - own) / (time.perf_counter() - self._begun), 2)


def _busy_seconds() -> float | None:
    """Processor seconds of all programs since the machine started, what a hypervisor took away included."""
    try:
        fields = [int(field) for field in Path("/proc/stat").read_text("ascii").split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return None
    return (sum(fields) - fields[3] - fields[4]) / _TICK  # all but idle, and waiting for the disk


def processor() -> str:
    """The processor's name as far as the system tells, and how many there are."""
    from model.processors import available_cpus

    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {available_cpus()} to use"


def table(found: dict[str, Any]) -> str:
    """The figures for a person."""
    weights = found["dtype"] if found["quantize"] == "none" else found["quantize"]
    lines = [
        f"{found['model']}: {found['parameters'] / 1e6:.1f} M parameters, {found['device']} {weights}, {found['kernels']} "
        f"kernels, {found['threads']} thread{'s' * (found['threads'] != 1)}, loaded in {found['load_seconds']:.1f} s",
        found["processor"],
        f"prompts of {found['prompt_tokens']} tokens, answers of {found['new_tokens']}; medians of {found['rounds']} "
        "(lowest - highest)",
        "",
        f"{'streams':>7}  {'prompt tokens/s':>24}  {'decoded tokens/s':>24}  {'first token ms':>22}  {'peak MB':>8}",
    ]
    for row in found["streams"]:
        prompt, decode, first = (_shown(row[name]) for name in _FIGURES)
        lines.append(f"{row['streams']:>7}  {prompt:>24}  {decode:>24}  {first:>22}  {row['memory_mb']:>8,.0f}")
    busy = found["others_busy"]
    if busy is not None and busy > _BUSY:
        lines.append(f"\nOther programs kept {busy:.1f} processors busy meanwhile: alone the model is faster.")
    return "\n".join(lines)


def _shown(spread: dict[str, float]) -> str:
    digits = 0 if spread["median"] >= 100 else 1
    low, high = (f"{spread[name]:,.{digits}f}" for name in ("lowest", "highest"))
    return f"{spread['median']:,.{digits}f} ({low} - {high})"
