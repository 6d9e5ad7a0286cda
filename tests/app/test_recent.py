"""Percentiles and rates of the last minutes: near the truth, and in bounded memory."""

import random

import pytest

from app.recent import WINDOW, RecentCount, RecentTimes

SHARES = (0.5, 0.95, 0.99)


@pytest.mark.parametrize("spread", [0.1, 2.0])
def test_percentiles_are_near_the_true_ones(spread):
    rng, times, values = random.Random(1), RecentTimes(), []
    for number in range(5000):
        values.append(rng.lognormvariate(-4, spread))
        times.observe(values[-1], 100 + number / 100)
    values.sort()
    summary = times.summary(150, SHARES)
    assert summary.count == 5000
    for share, found in zip(SHARES, summary.percentiles, strict=True):
        true = values[int(share * 5000) - 1]
        assert found == pytest.approx(true, rel=0.0101)


def test_one_value_counted_many_times_is_every_percentile():
    times = RecentTimes()
    times.observe(0.25, 7.0, 1000)
    summary = times.summary(7.5, SHARES)
    assert summary.count == 1000
    assert summary.percentiles == [pytest.approx(0.25, rel=0.01)] * 3


def test_what_is_older_than_the_window_is_forgotten():
    times = RecentTimes()
    times.observe(9.0, 1000.0)
    times.observe(0.1, 1000.0 + WINDOW / 2)
    assert times.summary(1000.0 + WINDOW / 2, (1.0,)).percentiles == [pytest.approx(9.0, rel=0.01)]
    assert times.summary(1000.0 + WINDOW + 20, (1.0,)).percentiles == [pytest.approx(0.1, rel=0.01)]
    nothing = times.summary(1000.0 + 3 * WINDOW, SHARES)
    assert (nothing.count, nothing.percentiles) == (0, [None] * 3)
    times.observe(0.2, 1000.0 + 3 * WINDOW)  # and it goes on counting
    assert times.summary(1000.0 + 3 * WINDOW, SHARES).count == 1


def test_memory_is_bounded_whatever_is_measured():
    rng, times = random.Random(2), RecentTimes()
    for second in range(3000):
        for value in (0.0, -1.0, 1e-300, 1e300, float("inf"), 10 ** rng.uniform(-9, 9)):
            times.observe(value, float(second))
    assert len(times._slices) <= WINDOW // 15 + 1
    assert max(map(len, times._slices.values())) < 1200
    assert all(value is not None for value in times.summary(3000.0, SHARES).percentiles)


def test_counts_by_the_second():
    count = RecentCount()
    for now, number in ((10.0, 1), (10.9, 2), (12.5, 5), (13.0, 100)):
        count.add(number, now)
    history = count.history(13.5)
    assert len(history) == 60
    assert history[-3:] == [3, 0, 5]  # the second that has begun is left out
    assert count.history(14.0)[-1] == 100
    assert sum(count.history(71.0)) == 105
    assert sum(count.history(200.0)) == 0
    for second in range(1000, 2000):
        count.add(1, float(second))
    assert len(count._counts) <= 61
