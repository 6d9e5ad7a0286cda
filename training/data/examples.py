"""Fine-tuning examples -> batches: padded, one example a row, or packed, several to a row that never see each other.

Both orders are a pure function of (seed, cursor), and each example comes exactly once an epoch. An example of n tokens takes
n - 1 positions: each token but the first is a target, each but the last an input.
"""

import hashlib
from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from training.data.batch import IGNORE, Source, TokenBatch, epoch_order
from training.data.length_order import LengthOrder

TooLong = Literal["drop", "truncate"]
Layout = Literal["packed", "padded"]


@dataclass(frozen=True, eq=False)
class Example:
    """`tokens` [n] int32; `counted` [n] bool: which of them the model is to learn to say (the answers, not the prompt)."""

    tokens: np.ndarray
    counted: np.ndarray

    @property
    def positions(self) -> int:
        """How many positions of a row it takes."""
        return len(self.tokens) - 1

    @property
    def n_targets(self) -> int:
        """How many tokens of it count."""
        return int(self.counted[1:].sum())


@dataclass(frozen=True)
class Fitted:
    """What was kept of some examples, and how many were `truncated` (kept in part), `too_long` (dropped), or `unanswered`
    (dropped: no token of theirs counts)."""

    examples: list[Example]
    truncated: int
    too_long: int
    unanswered: int

    @property
    def dropped(self) -> dict[str, int]:
        """What happened to the rest, by its name in words, where anything did."""
        counts = {
            "cut to the context": self.truncated,
            "dropped, longer than the context": self.too_long,
            "dropped, no answer to learn": self.unanswered,
        }
        return {reason: count for reason, count in counts.items() if count}


def fit_to_context(examples: Iterable[Example], context: int, too_long: TooLong) -> Fitted:
    """The examples that a model of `context` positions can learn from. One that is longer is dropped, or with "truncate" cut
    at the end, and dropped if nothing that counts is left of it."""
    kept: list[Example] = []
    truncated = dropped = unanswered = 0
    for example in examples:
        fits = example.positions <= context
        if not fits and too_long == "truncate":
            example = Example(example.tokens[: context + 1], example.counted[: context + 1])
        if not fits and (too_long == "drop" or not example.n_targets):
            dropped += 1
        elif not example.n_targets:
            unanswered += 1
        else:
            kept.append(example)
            truncated += not fits
    return Fitted(kept, truncated, dropped, unanswered)


def collate(examples: Sequence[Example], width: int | None = None) -> TokenBatch:
    """One row an example, padded on the right to `width` positions (None: those of the longest)."""
    width = width or max(example.positions for example in examples)
    tokens = np.zeros((len(examples), width), np.int64)
    targets = np.full((len(examples), width), IGNORE, np.int64)
    for row, example in enumerate(examples):
        _put(example, tokens[row], targets[row])
    return TokenBatch(torch.from_numpy(tokens), torch.from_numpy(targets))


def examples_sha256(examples: Iterable[Example]) -> str:
    """A digest of examples in their order."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(len(example.tokens).to_bytes(8, "little") + example.tokens.tobytes() + example.counted.tobytes())
    return digest.hexdigest()


def make_source(examples: Sequence[Example], layout: Layout, context: int, *, seed: int, batch_rows: int) -> Source:
    """Training batches of examples that fit the context. A sample is a row: of one example, or of several, packed. `batch_rows`:
    how many make an update."""
    return Packed(examples, context, seed) if layout == "packed" else Padded(examples, seed, batch_rows)


class Padded:
    """One example a row, rows as wide as the longest of their batch; examples of like length come together."""

    def __init__(self, examples: Sequence[Example], seed: int, batch_rows: int) -> None:
        self.samples_per_epoch = len(examples)
        self._examples = examples
        self._order = LengthOrder([example.positions for example in examples], seed=seed, batch_rows=batch_rows)

    def batch(self, cursor: int, rows: int) -> TokenBatch:
        """Examples `cursor` to `cursor` + `rows` - 1 of the endless sequence."""
        return collate([self._examples[int(place)] for place in self._order.places(cursor, rows)])


class Packed:
    """Rows of `width` positions, filled with several examples each: `documents` of the batch tells them apart.

    The lengths alone decide how rows are filled, best fit, longest first, so every epoch has the same number of rows; which
    example of a length goes where, and the order of the rows, is drawn anew in each.
    """

    def __init__(self, examples: Sequence[Example], width: int, seed: int) -> None:
        self._examples, self._width, self._seed = examples, width, seed
        self._lengths = np.array([example.positions for example in examples], np.int64)
        self._rows = pack_lengths(np.sort(self._lengths)[::-1].tolist(), width)
        self.samples_per_epoch = len(self._rows)
        nothing = np.empty(0, np.int64)
        self._known = -1, (nothing, nothing)  # the last epoch asked for

    def batch(self, cursor: int, rows: int) -> TokenBatch:
        """Rows `cursor` to `cursor` + `rows` - 1 of the endless sequence."""
        shape = (rows, self._width)
        tokens, targets = np.zeros(shape, np.int64), np.full(shape, IGNORE, np.int64)
        documents = np.zeros(shape, np.int64)
        for row in range(rows):
            epoch, place = divmod(cursor + row, self.samples_per_epoch)
            order, ranked = self._epoch(epoch)
            start = 0
            for number, rank in enumerate(self._rows[int(order[place])]):
                example = self._examples[int(ranked[rank])]
                end = start + example.positions
                _put(example, tokens[row, start:end], targets[row, start:end])
                documents[row, start:end] = number
                documents[row, end:] = number + 1  # of the next one, or of the padding
                start = end
        return TokenBatch(torch.from_numpy(tokens), torch.from_numpy(targets), torch.from_numpy(documents))

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The order of an epoch's rows, and its examples by length, the longest first."""
        if epoch != self._known[0]:
            order = np.asarray(epoch_order(self._seed, epoch, len(self._examples)))
            ranked = order[np.argsort(-self._lengths[order], kind="stable")]
            self._known = epoch, (np.asarray(epoch_order(self._seed, epoch, len(self._rows))), ranked)
        return self._known[1]


def pack_lengths(lengths: Sequence[int], width: int) -> list[list[int]]:
    """Put items of falling length into rows of `width`, each into the fullest one that has room for it (best fit
    decreasing: at most 11/9 of the fewest rows possible; Johnson, 1974); returns the items' indices by row."""
    rows: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (room, row) of those with room, sorted
    for item, length in enumerate(lengths):
        at = bisect_left(free, (length, -1))
        if at < len(free):
            room, row = free.pop(at)
            rows[row].append(item)
        else:
            room, row = width, len(rows)
            rows.append([item])
        if room > length:
            insort(free, (room - length, row))
    return rows


def _put(example: Example, tokens: np.ndarray, targets: np.ndarray) -> None:
    """Write an example to the beginning of a row of inputs and one of targets."""
    n = example.positions
    tokens[:n] = example.tokens[:-1]
    targets[:n] = np.where(example.counted[1:], example.tokens[1:], IGNORE)
