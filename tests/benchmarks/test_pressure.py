"""Figures of a server under pressure, from outcomes whose times are known."""

import asyncio

import pytest

from benchmarks.peers.http import Outcome
from benchmarks.peers.pressure import impatient_loop, overload_figures, sentences
from benchmarks.peers.traffic import Ask


def taken(first: float, began: float = 10.0) -> Outcome:
    return Outcome(began, "200", [began + first], began + first + 1, 5, 5)


def refused(after: float) -> Outcome:
    return Outcome(10.0, "429", ended=10.0 + after)


def test_figures_of_overload():
    saturated = [taken(0.1)] * 20
    crowded = [taken(0.15)] * 30 + [refused(0.01)] * 10 + [refused(0.03)]
    found = overload_figures(saturated, crowded)
    assert found["full_first_p95"] == pytest.approx(100)
    assert found["crowd_first_p95"] == pytest.approx(150)
    assert found["crowd_ratio"] == pytest.approx(1.5)
    assert (found["refused"], found["lost"]) == (11, 0)
    assert found["refused_p50"] == pytest.approx(10)
    assert found["refused_max"] == pytest.approx(30)


def test_what_is_neither_answered_nor_refused_is_lost():
    broken = Outcome(10.0, "silence")
    assert overload_figures([taken(0.1), broken], [taken(0.1), refused(0.1), broken])["lost"] == 2


def test_who_is_refused_asks_again_until_all_are_answered():
    places = asyncio.Semaphore(2)

    async def send(one: Ask) -> Outcome:
        if places.locked():
            return refused(0.0)
        async with places:
            await asyncio.sleep(0.01)
            return taken(0.01)

    asks = [Ask(str(number), 1) for number in range(12)]
    outcomes = asyncio.run(impatient_loop(send, asks, 6, 0.0, (0.001, 0.002)))
    statuses = [outcome.status for outcome in outcomes]
    assert statuses.count("200") == 12
    assert statuses.count("429") >= 4


def test_sentences_have_all_figures():
    row = overload_figures([taken(0.1)], [taken(0.2), refused(0.01)])
    row |= {
        "idle_percent": 0.2,
        "idle_http_percent": 0.1,
        "http_mb": 99.0,
        "clients": 16.0,
        "freed_p50": 4.0,
        "freed_max": 9.0,
    }
    text = sentences("as it is", row)
    for part in (
        "0.20 %",
        "0.10 %",
        "99 MB",
        "100 ms with 16",
        "200 ms with 4",
        "2.00 times",
        "1 refusals",
        "after 4 ms, at most 9",
    ):
        assert part in text
