import asyncio
import itertools
import math
import time

import pytest

from benchmarks.peers import traffic
from benchmarks.peers.http import Outcome


def test_spans() -> None:
    assert traffic.Span.parse("64") == traffic.Span(64, 64)
    assert traffic.Span.parse("16-800") == traffic.Span(16, 800)
    for wrong in ("", "x", "0", "9-3", "-4"):
        with pytest.raises(ValueError):  # noqa: PT011 (argparse asks for no more)
            traffic.Span.parse(wrong)


def test_requests_are_the_seeds_and_their_lengths_in_the_span() -> None:
    words = [f" w{i}" for i in range(50)]
    make = lambda seed: traffic.make_asks(words, 20, traffic.Span(3, 9), traffic.Span(2, 4), seed)  # noqa: E731
    assert make("a") == make("a")
    assert make("a") != make("b")
    assert {len(ask.prompt.split()) for ask in make("a")} <= set(range(3, 10))
    assert {ask.max_tokens for ask in make("a")} == {2, 3, 4}


def test_closed_loop_keeps_so_many_under_way() -> None:
    running = most = 0

    async def send(_: traffic.Ask) -> Outcome:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return Outcome(0.0)

    outcomes = asyncio.run(traffic.closed_loop(send, [traffic.Ask("", 1)] * 10, 3))
    assert len(outcomes) == 10
    assert most == 3


def test_open_loop_does_not_wait_for_answers() -> None:
    begun: list[float] = []
    gate: list[asyncio.Event] = []

    async def send(_: traffic.Ask) -> Outcome:
        gate[0:] = gate or [asyncio.Event()]
        begun.append(time.perf_counter())
        if len(begun) == 20:
            gate[0].set()
        await gate[0].wait()  # nobody is answered before the last one has come
        return Outcome(0.0)

    outcomes = asyncio.run(traffic.open_loop(send, [traffic.Ask("", 1)] * 20, 2000.0, "seed"))
    assert len(outcomes) == 20
    gaps = [b - a for a, b in itertools.pairwise(begun)]
    assert len({round(gap, 7) for gap in gaps}) > 5  # at random, not at a beat


def outcome(began: float, *events: float, tokens: int, status: str = "200") -> Outcome:
    return Outcome(began, status, list(events), events[-1] if events else 0.0, 10, tokens)


def test_figures() -> None:
    outcomes = [
        outcome(0.0, 0.1, 0.2, 0.4, tokens=4),
        outcome(1.0, 1.3, 1.5, 2.0, tokens=3),
        Outcome(1.0, "429"),
        Outcome(1.0, "cut short", [1.1]),
    ]
    found = traffic.figures(outcomes)
    assert found["tokens_per_second"] == 3.5
    assert found["failed"] == 2
    assert found["errors"] == {"429": 1, "cut short": 1}
    assert math.isclose(found["first_p50"], 200.0)
    assert math.isclose(found["gap_p50"], 200.0)
    assert math.isclose(found["per_token_p50"], (100 + 350) / 2)
    assert found["events_per_token"] == 6 / 7
    assert traffic.figures(outcomes[2:])["failed"] == 2  # and no rates of nothing


def test_rounds_together() -> None:
    rounds = [traffic.figures([outcome(0.0, 0.5, 1.0, tokens=n), Outcome(0.0, "503")]) for n in (2, 4, 9)]
    found = traffic.over_rounds(rounds)
    assert found["tokens_per_second"] == 4
    assert (found["lowest"], found["highest"]) == (2, 9)
    assert found["failed"] == 3
    assert found["errors"] == {"503": 3}
