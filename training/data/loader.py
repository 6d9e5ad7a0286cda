"""Token shards -> batches, in an order that is a pure function of (seed, position).

The cursor is one integer, the number of samples taken so far by all ranks together: a resumed run, or one on another number of
processes, sees the same samples in the same order.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from training.data.batch import TokenBatch, epoch_order
from training.errors import DataError


class TokenArray(Protocol):
    """What is cut into windows: an array [n] of integers, or what slices like one (`shards.TokenView`)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice, /) -> np.ndarray: ...


class Windows:
    """Windows of `context` + 1 tokens over one run of tokens, shuffled anew each epoch: a `Source` of TokenBatch.

    Documents lie end to end, each behind an end-of-text token; each epoch starts the windows at another offset, so that their
    borders fall elsewhere. With `eot`, the id of that token, batches say in `documents` which tokens belong together: it begins
    a document, so it is the first token that the document's others see, and it is still the target of the token before it.
    """

    def __init__(self, tokens: TokenArray, context: int, seed: int, *, eot: int | None = None) -> None:
        """Raises DataError when `tokens` [n] make fewer than two windows."""
        self.tokens, self.context, self.seed, self.eot = tokens, context, seed, eot
        # One window fewer than would fit leaves room for the epoch's offset.
        self.samples_per_epoch = (len(tokens) - 1) // context - 1
        if self.samples_per_epoch < 1:
            raise DataError(
                f"{len(tokens)} tokens are too few for windows of {context}; give more text or a shorter context"
            )
        self._epoch, self._order, self._offset = -1, np.empty(0, np.int64), 0

    def batch(self, cursor: int, rows: int) -> TokenBatch:
        """Samples `cursor` to `cursor` + `rows` - 1: `tokens` and `targets` [rows, context]; `documents` likewise when `eot`
        is set, else None."""
        width = self.context + 1
        samples = np.empty((rows, width), np.int64)
        for row, start in enumerate(self._starts(cursor, rows)):
            samples[row] = self.tokens[start : start + width]
        block = torch.from_numpy(samples)
        tokens = block[:, :-1].contiguous()
        documents = None if self.eot is None else (tokens == self.eot).cumsum(1)
        return TokenBatch(tokens, block[:, 1:].contiguous(), documents)

    def _starts(self, cursor: int, rows: int) -> Sequence[int]:
        """Where each sample's window begins, [rows]; a batch may run on into the next epoch."""
        starts: list[int] = []
        while len(starts) < rows:
            epoch, place = divmod(cursor + len(starts), self.samples_per_epoch)
            self._enter(epoch)
            places = self._order[place : place + rows - len(starts)]
            starts += (self._offset + places * self.context).tolist()
        return starts

    def _enter(self, epoch: int) -> None:
        if epoch != self._epoch:
            self._order = np.asarray(epoch_order(self.seed, epoch, self.samples_per_epoch))
            self._offset = int(np.random.default_rng([self.seed, epoch]).integers(self.context))
            self._epoch = epoch
