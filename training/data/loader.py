"""Token shards -> batches, in an order that is a pure function of (seed, position).

The cursor is one integer, the number of samples taken so far by all ranks together: a resumed run, or one on another number of
processes, sees the same samples in the same order.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.errors import DataError

IGNORE = -100  # a target that counts for nothing (PyTorch's own convention)


@dataclass(frozen=True)
class Batch:
    """`tokens` [B, T] int64 and `targets` [B, T] int64: the next token at each position, or IGNORE."""

    tokens: Tensor
    targets: Tensor

    def micro_batches(self, rows: int) -> list["Batch"]:
        """The batch cut into pieces of at most `rows` rows."""
        pieces = zip(self.tokens.split(rows), self.targets.split(rows), strict=True)
        return [Batch(tokens, targets) for tokens, targets in pieces]


class Windows:
    """Windows of `context` + 1 tokens over one run of tokens, shuffled anew each epoch.

    Documents lie end to end, parted by the end-of-text token; each epoch starts the windows at another offset, so that their
    borders fall elsewhere.
    """

    def __init__(self, tokens: np.ndarray, context: int, seed: int) -> None:
        self.tokens, self.context, self.seed = tokens, context, seed
        # One window fewer than would fit leaves room for the epoch's offset.
        self.per_epoch = (len(tokens) - 1) // context - 1
        if self.per_epoch < 1:
            raise DataError(
                f"{len(tokens)} tokens are too few for windows of {context}; give more text or a shorter context"
            )
        self._epoch, self._order, self._offset = -1, np.empty(0, np.int64), 0

    def batch(self, cursor: int, rows: int) -> Batch:
        """Samples `cursor` to `cursor` + `rows` - 1."""
        samples = np.stack([self._sample(cursor + i) for i in range(rows)])  # [rows, context + 1]
        tokens = torch.from_numpy(samples.astype(np.int64))
        return Batch(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())

    def _sample(self, index: int) -> np.ndarray:
        epoch, place = divmod(index, self.per_epoch)
        if epoch != self._epoch:
            random = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
            self._offset = int(random.integers(self.context))
            self._order = random.permutation(self.per_epoch)
            self._epoch = epoch
        start = self._offset + int(self._order[place]) * self.context
        return self.tokens[start : start + self.context + 1]
