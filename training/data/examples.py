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


def make_source(examples: Sequence[Example], layout: Layout, context: int, seed: int) -> Source:
    """Training batches of examples that fit the context. A sample is a row: of one example, or of several, packed."""
    return Packed(examples, context, seed) if layout == "packed" else Padded(examples, seed)


class Padded:
    """One example a row, rows as wide as the longest of their batch."""

    def __init__(self, examples: Sequence[Example], seed: int) -> None:
        self.samples_per_epoch = len(examples)
        self._examples, self._seed = examples, seed

    def batch(self, cursor: int, rows: int) -> TokenBatch:
        """Examples `cursor` to `cursor` + `rows` - 1 of the endless sequence."""
        places = epoch_places(self._seed, cursor, rows, self.samples_per_epoch)
        return collate([self._examples[place] for _, place in places])


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
        self._ranked: dict[int, np.ndarray] = {}  # of the epochs of the last batch: examples by length, longest first

    def batch(self, cursor: int, rows: int) -> TokenBatch:
        """Rows `cursor` to `cursor` + `rows` - 1 of the endless sequence."""
        shape = (rows, self._width)
        tokens, targets = np.zeros(shape, np.int64), np.full(shape, IGNORE, np.int64)
        documents = np.zeros(shape, np.int64)
        places = epoch_places(self._seed, cursor, rows, self.samples_per_epoch)
        ranked = {epoch: self._rank(epoch) for epoch in {epoch for epoch, _ in places}}
        self._ranked = ranked
        for row, (epoch, place) in enumerate(places):
            start = 0
            for number, rank in enumerate(self._rows[place]):
                example = self._examples[ranked[epoch][rank]]
                end = start + example.positions
                _put(example, tokens[row, start:end], targets[row, start:end])
                documents[row, start:end] = number
                documents[row, end:] = number + 1  # of the next one, or of the padding
                start = end
        return TokenBatch(torch.from_numpy(tokens), torch.from_numpy(targets), torch.from_numpy(documents))

    def _rank(self, epoch: int) -> np.ndarray:
        if epoch in self._ranked:
            return self._ranked[epoch]
        order = np.asarray(epoch_order(self._seed, epoch, len(self._examples)))
        return order[np.argsort(-self._lengths[order], kind="stable")]


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


def epoch_places(seed: int, cursor: int, rows: int, n: int) -> list[tuple[int, int]]:
    """Where samples `cursor` to `cursor` + `rows` - 1 of the endless, shuffled sequence stand: (epoch, place among the `n`)."""
    orders: dict[int, np.ndarray] = {}
    places = []
    for sample in range(cursor, cursor + rows):
        epoch, index = divmod(sample, n)
        if epoch not in orders:
            orders[epoch] = np.asarray(epoch_order(seed, epoch, n))
        places.append((epoch, int(orders[epoch][index])))
    return places


def _put(example: Example, tokens: np.ndarray, targets: np.ndarray) -> None:
    """Write an example to the beginning of a row of inputs and one of targets."""
    n = example.positions
    tokens[:n] = example.tokens[:-1]
    targets[:n] = np.where(example.counted[1:], example.tokens[1:], IGNORE)
