"""One row of logits -> its token, in numpy: what `model.sampling.sample` does on a CPU.

By the same rules as `model.sampling.sample_sorted`, whose every step has its like here; only that ids are not sorted along
with the logits (numpy sorts plain numbers ten times faster: the one id that is wanted is looked up by its value), and that
with top_k or min_p no more is sorted than they leave. numpy rather than torch: a row is too short to share between threads,
and waiting for them costs more than the work.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from model.sampling_params import SamplingParams

if TYPE_CHECKING:
    from model.sampling import SamplingRow

BANNED = float("-inf")


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
    ordered = np.sort(head)[::-1]
    weights = np.exp((ordered - best).astype(np.float64))  # relative to the likeliest
    if params.min_p > 0:
        weights = weights[weights >= np.float32(params.min_p)]
    sums = weights.cumsum()
    top_p = np.float32(params.top_p)
    if top_p < 1:
        sums = sums[: np.count_nonzero(sums - weights < float(top_p) * sums[-1])]
    picked = min(int(np.searchsorted(sums, point * sums[-1], side="right")), np.count_nonzero(weights[: len(sums)]) - 1)
    # Of tokens with equal logits the lower id stands first, as a stable sort has it.
    first = len(ordered) - int(np.searchsorted(ordered[::-1], ordered[picked], side="right"))
    return int(np.flatnonzero(scaled == ordered[picked])[picked - first])


def _ids(tokens: Collection[int]) -> np.ndarray:
    return np.fromiter(tokens, np.int64, len(tokens))
