"""Requests for the simulation: when they come, and how long they are. All from one seed."""

import math
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np

from benchmarks.scale.replica import Request


@dataclass(frozen=True)
class Lengths:
    """Tokens of prompts or answers, log-normal: median, sigma of the logarithm, and the most there can be. Sigma 0: constant."""

    median: float
    sigma: float
    most: int

    @property
    def mean(self) -> float:
        """Of what is drawn: cut at `most`, rounded up."""
        if self.sigma == 0:
            return math.ceil(self.median)
        return float(self._of(_quantiles()).mean())

    def draw(self, n: int, random: np.random.Generator) -> np.ndarray:
        """[n] of them, at least 1."""
        return self._of(random.standard_normal(n))

    def _of(self, normal: np.ndarray) -> np.ndarray:
        return np.clip(np.ceil(self.median * np.exp(self.sigma * normal)), 1, self.most).astype(int)


@dataclass(frozen=True)
class Traffic:
    """Requests of `seconds`, `rate` a second in the mean. `burst` b: the rate changes between 1 + b and 1 - b times the mean, each
    phase lasting `phase` seconds in the mean (0: Poisson). `surge`: (from, to, factor) multiplies the rate for a while. `groups`:
    conversations or templates that share a prefix, drawn by Zipf's law."""

    rate: float
    seconds: float
    prompt: Lengths
    answer: Lengths
    burst: float = 0.0
    phase: float = 10.0
    surge: tuple[float, float, float] | None = None
    groups: int = 1
    geometric: bool = False  # answers geometric with the median's value for a mean: memoryless, for the checks

    def draw(self, seed: int) -> list[Request]:
        """The requests, in order of arrival."""
        random = np.random.default_rng(seed)
        times = self._times(random)
        n = len(times)
        prompts = self.prompt.draw(n, random)
        answers = random.geometric(1 / self.answer.median, n) if self.geometric else self.answer.draw(n, random)
        weights = 1 / np.arange(1, self.groups + 1)
        groups = random.choice(self.groups, n, p=weights / weights.sum())
        rows = zip(times.tolist(), prompts.tolist(), answers.tolist(), groups.tolist(), strict=True)
        return [Request(i, *row) for i, row in enumerate(rows)]

    def _times(self, random: np.random.Generator) -> np.ndarray:
        """Arrivals: a Poisson process of rate 1 on a clock that runs as fast as the rate is."""
        edges, rates = self._rates(random)
        clock = np.concatenate([[0.0], np.cumsum(rates * np.diff(edges))])
        n = int(clock[-1] + 8 * math.sqrt(clock[-1]) + 16)
        ticks = np.cumsum(random.exponential(size=n))
        return np.interp(ticks[ticks < clock[-1]], clock, edges)

    def _rates(self, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The rate as steps: edges [n + 1] in seconds, rates [n]."""
        edges = {0.0, self.seconds}
        if self.surge:
            edges |= {min(at, self.seconds) for at in self.surge[:2]}
        turns: list[float] = []
        if self.burst:
            at = random.exponential(self.phase)
            while at < self.seconds:
                turns.append(at)
                at += random.exponential(self.phase)
        cuts = np.array(sorted(edges | set(turns)))
        middles = (cuts[1:] + cuts[:-1]) / 2
        rates = np.full(len(middles), float(self.rate))
        if self.burst:
            rates *= 1 + self.burst * np.where(np.searchsorted(np.array(turns), middles) % 2 == 0, 1, -1)
        if self.surge:
            begin, end, factor = self.surge
            rates[(middles >= begin) & (middles < end)] *= factor
        return cuts, rates


@cache
def _quantiles() -> np.ndarray:
    """The standard normal distribution as equally likely values."""
    normal, n = NormalDist(), 5_000
    return np.array([normal.inv_cdf((i + 0.5) / n) for i in range(n)])
