"""What happened in the last seconds and minutes, in bounded memory: for people who watch. (Prometheus counts for ever, and keeps
the history itself.) Times are of the monotonic clock, in seconds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

WINDOW = 300  # seconds
_SLICE = 15  # so many seconds are forgotten at once
_ERROR = 0.01  # of a percentile, relative
_GAMMA = (1 + _ERROR) / (1 - _ERROR)
_SCALE = 1 / math.log(_GAMMA)
_LEAST, _MOST = 1e-5, 1e5  # seconds: what lies beyond counts as these


@dataclass(frozen=True)
class Summary:
    """How often something was measured, and for each share asked for what that share of the values didn't pass; None: none was."""

    count: int
    percentiles: list[float | None]


class RecentTimes:
    """Durations of the last WINDOW seconds, and their percentiles within 1 % of the true ones.

    Buckets whose bounds grow by a constant factor (DDSketch; Masson et al., 2019), one set for each slice of the window: at most
    about 1,150 numbers in each.
    """

    def __init__(self) -> None:
        self._slices: dict[int, dict[int, int]] = {}
        self._newest, self._newest_ends = dict[int, int](), -math.inf
        self._value, self._bucket = -1.0, 0  # the last one's: all streams of a step share its time

    def observe(self, value: float, now: float, times: int = 1) -> None:
        """Count `value` seconds, `times` times. Calls come in the order of `now`."""
        if now >= self._newest_ends:
            period = int(now / _SLICE)
            self._newest, self._newest_ends = self._slices.setdefault(period, {}), (period + 1) * _SLICE
            self._forget(period)
        if value != self._value:
            self._value = value
            self._bucket = math.ceil(math.log(min(max(value, _LEAST), _MOST)) * _SCALE)
        self._newest[self._bucket] = self._newest.get(self._bucket, 0) + times

    def summary(self, now: float, shares: Sequence[float]) -> Summary:
        """What is left of the window at `now`; `shares` from 0 to 1, rising."""
        self._forget(int(now / _SLICE))
        merged: dict[int, int] = {}
        for counts in self._slices.values():
            for bucket, count in counts.items():
                merged[bucket] = merged.get(bucket, 0) + count
        total = sum(merged.values())
        if not total:
            return Summary(0, [None] * len(shares))
        found: list[float | None] = []
        so_far, left = 0, list(shares)
        for bucket in sorted(merged):
            so_far += merged[bucket]
            while left and so_far >= left[0] * total:
                left.pop(0)
                found.append(2 * _GAMMA**bucket / (_GAMMA + 1))  # no value in the bucket is further off than the error
        return Summary(total, found)

    def _forget(self, period: int) -> None:
        oldest = period - WINDOW // _SLICE
        for gone in [each for each in self._slices if each <= oldest]:
            del self._slices[gone]


class RecentCount:
    """How many there were in each of the last 60 whole seconds."""

    SECONDS = 60

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._second = -1

    def add(self, count: int, now: float) -> None:
        """Count so many. Calls come in the order of `now`."""
        second = int(now)
        if second != self._second:
            self._second = second
            for gone in [each for each in self._counts if each < second - self.SECONDS]:
                del self._counts[gone]
        self._counts[second] = self._counts.get(second, 0) + count

    def history(self, now: float) -> list[int]:
        """SECONDS numbers, the oldest first; the second that `now` lies in is not over, and not among them."""
        second = int(now)
        return [self._counts.get(each, 0) for each in range(second - self.SECONDS, second)]


class Recent:
    """All that is remembered of the last minutes."""

    def __init__(self) -> None:
        self.prompt_tokens, self.generation_tokens = RecentCount(), RecentCount()
        self.first_token, self.inter_token, self.whole = RecentTimes(), RecentTimes(), RecentTimes()
