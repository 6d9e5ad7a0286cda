"""One row of logits -> its token, in numpy: what `model.sampling.sample` does on a CPU.

By the same rules as `model.sampling.sample_sorted`, and with the same result; but only those logits are sorted among which
the draw ends, and their ids not with them (numpy sorts plain numbers ten times faster: the one id that is wanted is looked
up by its value). numpy rather than torch: a row is too short to share between threads, and waiting for them costs more than
the work.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING, Literal

import numpy as np

from model.sampling_params import SamplingParams

if TYPE_CHECKING:
    from model.sampling import SamplingRow

BANNED = float("-inf")
_RANKS = (8192, 1024)  # where a row is parted: most draws fall among the first 1024


def adjust(logits: np.ndarray, row: "SamplingRow") -> np.ndarray:
    """Bans, biases and penalties: logits [V] float32 -> the same array when there are none, else a changed copy."""
    p, size = row.params, len(logits)
    if not row.edited:
        return logits
    logits = logits.copy()
    if len(row.output) < p.min_tokens:
        logits[[token for token in row.end_ids if token < size]] = BANNED
    if p.logit_bias:
        ids = [token for token in p.logit_bias if token < size]
        logits[ids] += np.array([p.logit_bias[token] for token in ids], np.float32)
    if p.repetition_penalty != 1.0:
        seen = _ids(row.seen())
        values, penalty = logits[seen], np.float32(p.repetition_penalty)
        logits[seen] = np.where(values > 0, values / penalty, values * penalty)
    if row.output and (p.presence_penalty or p.frequency_penalty):
        counts = row.counts()
        weights = np.fromiter(counts.values(), np.float32, len(counts))
        logits[_ids(counts)] -= np.float32(p.frequency_penalty) * weights + np.float32(p.presence_penalty)
    return logits


def draw(logits: np.ndarray, params: SamplingParams, point: float) -> int:
    """The token that `point` in [0, 1) falls on: logits [V] float32, adjusted; params not greedy."""
    scaled = logits / np.float32(max(params.temperature, 1e-6))
    best = scaled.max()
    head = scaled
    if 0 < params.top_k < len(scaled):
        head = np.partition(scaled, len(scaled) - params.top_k)[-params.top_k :]
    if params.min_p > 0:  # a little more than it leaves; the exact rule follows
        head = head[head - best >= np.float32(np.log(params.min_p) - 1e-3)]
        head = head[_weights(head, best) >= np.float32(params.min_p)]
    ranked = _Ranked(head, best)
    total, last = ranked.total, len(head) - 1
    if (top_p := np.float32(params.top_p)) < 1:
        last, _, total = ranked.reach(float(top_p) * total, "left")
    rank, value, _ = ranked.reach(point * total, "right")
    # Of tokens with equal logits the lower id stands first, as a stable sort has it.
    return int(np.flatnonzero(scaled == value)[min(rank, last) - np.count_nonzero(scaled > value)])


def _weights(scaled: np.ndarray, best: np.float32) -> np.ndarray:
    """Relative to the likeliest token, in float64."""
    return np.exp((scaled - best).astype(np.float64))


class _Ranked:
    """Logits dealt into parts by rank, the largest first; a part is sorted when it is looked into, which few are."""

    def __init__(self, scaled: np.ndarray, best: np.float32) -> None:
        self._parts: list[np.ndarray] = []
        for rank in _RANKS:  # one cut at a time: numpy makes several ten times slower
            if rank < len(scaled):
                cut = len(scaled) - rank
                scaled = np.partition(scaled, cut)
                self._parts.insert(0, scaled[:cut])
                scaled = scaled[cut:]
        self._parts.insert(0, scaled)
        self._best = best
        self._sums = np.cumsum([_weights(part, best).sum() for part in self._parts])
        self.total = float(self._sums[-1])

    def reach(self, target: float, side: Literal["left", "right"]) -> tuple[int, np.float32, float]:
        """Where the weights, from the largest down, add up to `target` (left) or to more (right): the token's rank from 0,
        its logit, and the sum with it."""
        at = min(int(np.searchsorted(self._sums, target, side)), len(self._parts) - 1)
        ordered = np.sort(self._parts[at])[::-1]
        weights = _weights(ordered, self._best)
        sums = (self._sums[at - 1] if at else 0.0) + weights.cumsum()
        found = int(np.searchsorted(sums, target, side))
        if found == len(sums):  # by the rounding of a target next to the end
            found = int(np.count_nonzero(weights)) - 1
        return sum(map(len, self._parts[:at])) + found, ordered[found], float(sums[found])


def _ids(tokens: Collection[int]) -> np.ndarray:
    return np.fromiter(tokens, np.int64, len(tokens))
