"""Pairs of a better and a worse answer -> batches for preference tuning."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from training.data.batch import PreferenceBatch
from training.data.examples import Example, TooLong, collate, examples_sha256, fit_to_context
from training.data.length_order import LengthOrder


@dataclass(frozen=True, eq=False)
class Pair:
    """Two answers to one prompt, each behind it; the prompt's tokens don't count."""

    chosen: Example
    rejected: Example

    @property
    def positions(self) -> int:
        """How many positions the longer of the two takes."""
        return max(self.chosen.positions, self.rejected.positions)


@dataclass(frozen=True)
class FittedPairs:
    """What was kept of some pairs, and how many were `truncated` (kept in part), `too_long` or `alike` (dropped)."""

    pairs: list[Pair]
    truncated: int
    too_long: int
    alike: int

    @property
    def dropped(self) -> dict[str, int]:
        """What happened to the rest, in words, where anything did."""
        counts = {
            "cut to the context": self.truncated,
            "dropped, longer than the context": self.too_long,
            "dropped, both answers the same": self.alike,
        }
        return {reason: count for reason, count in counts.items() if count}


def fit_pairs(pairs: Iterable[Pair], context: int, too_long: TooLong) -> FittedPairs:
    """The pairs whose answers both fit a model of `context` positions (see fit_to_context), and differ there."""
    kept: list[Pair] = []
    truncated = dropped = alike = 0
    for pair in pairs:
        sides = [fit_to_context([example], context, too_long) for example in (pair.chosen, pair.rejected)]
        if not all(side.examples for side in sides):
            dropped += 1
            continue
        fitted = Pair(*(side.examples[0] for side in sides))
        if np.array_equal(fitted.chosen.tokens, fitted.rejected.tokens):
            alike += 1
            continue
        kept.append(fitted)
        truncated += any(side.truncated for side in sides)
    return FittedPairs(kept, truncated, dropped, alike)


def collate_pairs(pairs: Sequence[Pair], reference: np.ndarray) -> PreferenceBatch:
    """One row a pair, padded on the right to the longest of all answers. `reference` [n, 2] float32: the log-probabilities of the
    chosen and of the rejected answers under the model before tuning."""
    both = collate([*(pair.chosen for pair in pairs), *(pair.rejected for pair in pairs)])
    tokens, targets = both.tokens.chunk(2), both.targets.chunk(2)
    before = torch.from_numpy(np.ascontiguousarray(reference.T))
    return PreferenceBatch(tokens[0], targets[0], tokens[1], targets[1], before[0], before[1])


class PairRows:
    """Batches of pairs, those of like length together; see training.data.batch.Source."""

    def __init__(self, pairs: Sequence[Pair], reference: np.ndarray, *, seed: int, batch_rows: int) -> None:
        """`reference`: as for collate_pairs, of all pairs; `batch_rows`: how many pairs make an update."""
        self.samples_per_epoch = len(pairs)
        self._pairs, self._reference = pairs, reference
        self._order = LengthOrder([pair.positions for pair in pairs], seed=seed, batch_rows=batch_rows)

    def batch(self, cursor: int, rows: int) -> PreferenceBatch:
        """Pairs `cursor` to `cursor` + `rows` - 1 of the endless sequence."""
        chosen = self._order.places(cursor, rows)
        return collate_pairs([self._pairs[place] for place in chosen], self._reference[chosen])


def pairs_sha256(pairs: Iterable[Pair]) -> str:
    """A digest of pairs in their order."""
    return examples_sha256(example for pair in pairs for example in (pair.chosen, pair.rejected))
