"""Failures and saved states: how often to save, what is left of the time, how many spare machines.

Young (1974): an interval of sqrt(2 x cost of a state x mean time between failures). Daly (2006): the expected time of a run with
exponential failures, exactly. Both take failures to be independent, which failures of a switch or of the power aren't.
"""

import math

import numpy as np


def between_failures(nodes: int, rate: float) -> float:
    """Mean seconds between failures of any of `nodes`, each failing `rate` times a day."""
    return 86400 / (nodes * rate)


def best_interval(cost: float, between: float) -> float:
    """Young's interval between saved states that take `cost` seconds each, in seconds of computing."""
    return math.sqrt(2 * cost * between)


def goodput(interval: float, cost: float, between: float, restart: float) -> float:
    """Share of the time that computes what is kept (Daly, 2006): a state of `cost` seconds after each `interval` seconds of
    computing, failures every `between` seconds in the mean, also during the `restart`."""
    spent = between * math.exp(restart / between) * math.expm1((interval + cost) / between)
    return interval / spent


def simulated_goodput(
    interval: float, cost: float, between: float, restart: float, *, intervals: int = 2000, seed: int = 0
) -> float:
    """The same by playing `intervals` intervals through, failure by failure."""
    random = np.random.default_rng(seed)
    spent = 0.0
    for _ in range(intervals):
        while (life := random.exponential(between)) < interval + cost:
            spent += life
            while (life := random.exponential(between)) < restart:
                spent += life
            spent += restart
        spent += interval + cost
    return intervals * interval / spent


def spares(needed: int, rate: float, repair_hours: float, promise: float = 0.9999) -> int:
    """The fewest machines beyond `needed` with which, at any moment, `needed` of all are up with a chance of `promise`; each
    fails `rate` times a day and is replaced after `repair_hours`. At least 1: N - 1 at the peak."""
    mean_down = rate * repair_hours / 24
    down = mean_down / (1 + mean_down)
    extra = 1
    while _at_most(extra, needed + extra, down) < promise:
        extra += 1
    return extra


def _at_most(k: int, n: int, chance: float) -> float:
    """The chance that at most `k` of `n` independent machines are down."""
    return sum(math.comb(n, i) * chance**i * (1 - chance) ** (n - i) for i in range(k + 1))
