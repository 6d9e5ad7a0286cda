"""Requests to put a server under load with, the two ways to send them, and what their outcomes amount to."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.peers.http import Outcome
from benchmarks.peers.machine import median, percentile


@dataclass(frozen=True)
class Span:
    """A number of tokens, drawn evenly from `low` to `high`; written 64 or 16-800."""

    low: int
    high: int

    @classmethod
    def parse(cls, text: str) -> "Span":
        """What the command line says. ValueError for anything else."""
        low, _, high = text.partition("-")
        span = cls(int(low), int(high or low))
        if not 1 <= span.low <= span.high:
            raise ValueError(text)
        return span

    def draw(self, rng: random.Random) -> int:
        """One of them."""
        return rng.randint(self.low, self.high)


@dataclass(frozen=True)
class Ask:
    """A request: a text of about so many tokens (its words are one token each), and how many to add."""

    prompt: str
    max_tokens: int


def make_asks(words: Sequence[str], count: int, prompts: Span, answers: Span, seed: str) -> list[Ask]:
    """Requests of random words; another seed, other requests, so that no server has seen their beginnings."""
    rng = random.Random(seed)
    return [Ask("".join(rng.choice(words) for _ in range(prompts.draw(rng))), answers.draw(rng)) for _ in range(count)]


Send = Callable[[Ask], Coroutine[Any, Any, Outcome]]


async def closed_loop(send: Send, asks: Sequence[Ask], streams: int) -> list[Outcome]:
    """So many clients, each of which sends its next request when its last one is answered."""
    waiting = iter(asks)
    outcomes: list[Outcome] = []

    async def client() -> None:
        for ask in waiting:
            outcomes.append(await send(ask))

    await asyncio.gather(*(client() for _ in range(streams)))
    return outcomes


async def open_loop(send: Send, asks: Sequence[Ask], rate: float, seed: str) -> list[Outcome]:
    """Requests arrive at random, `rate` a second on average (Poisson), whether earlier ones are answered or not."""
    rng = random.Random(seed)
    tasks: list[asyncio.Task[Outcome]] = []
    due = time.perf_counter()
    for ask in asks:
        due += rng.expovariate(rate)
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(send(ask)))
    return list(await asyncio.gather(*tasks))


SHARES = (0.5, 0.95, 0.99)


def figures(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Rates over the whole time, and percentiles in milliseconds. "gap": between two pieces of text of one answer, which may
    hold several tokens or wait for the rest of a character; "per_token": an answer's mean time from token to token."""
    good = [outcome for outcome in outcomes if outcome.complete]
    statuses = Counter(outcome.status for outcome in outcomes if not outcome.complete)
    if not good:
        return {"requests": len(outcomes), "failed": sum(statuses.values()), "errors": dict(statuses)}
    begun, ended = min(o.began for o in outcomes), max(o.ended for o in good)
    tokens = sum(o.new_tokens for o in good)
    times = {
        "first": [o.events[0] - o.began for o in good],
        "gap": [b - a for o in good for a, b in zip(o.events, o.events[1:], strict=False)],
        "per_token": [(o.ended - o.events[0]) / (o.new_tokens - 1) for o in good if o.new_tokens > 1],
        "whole": [o.ended - o.began for o in good],
    }
    return {
        "requests": len(outcomes), "failed": sum(statuses.values()), "errors": dict(statuses), "seconds": ended - begun,
        "tokens_per_second": tokens / (ended - begun), "requests_per_second": len(good) / (ended - begun),
        "prompt_tokens": sum(o.prompt_tokens for o in good), "new_tokens": tokens,
        "events_per_token": sum(len(o.events) for o in good) / max(1, tokens),
    } | {
        f"{name}_p{round(share * 100)}": percentile(values, share) * 1e3 for name, values in times.items() for share in SHARES
    }  # fmt: skip


def over_rounds(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians of the figures of several rounds, counts and errors summed up."""
    summed = ("requests", "failed", "prompt_tokens", "new_tokens")
    names = {name for one in rounds for name in one if name != "errors"}
    result: dict[str, Any] = {}
    for name in names:
        values = [one[name] for one in rounds if name in one]
        result[name] = sum(values) if name in summed else median(values)
    errors: Counter[str] = Counter()
    for one in rounds:
        errors.update(one.get("errors", {}))
    rates = [one["tokens_per_second"] for one in rounds if "tokens_per_second" in one]
    spread = {"lowest": min(rates), "highest": max(rates)} if rates else {}
    return result | spread | {"errors": dict(errors), "rounds": len(rounds)}
