"""Tokenised texts with labels -> batches for a classifier."""

from collections.abc import Sequence

import numpy as np
import torch

from training.data.batch import LabelBatch

_POOL = 32  # batches within which rows of like length come together
_WIDTH = 8  # batches are a multiple of this many tokens wide: fewer shapes


class LabelledRows:
    """Batches of tokenised rows; see training.data.batch.Source. Rows of like length are batched together, so that little is
    padding, in an order that is a pure function of (seed, epoch).

    `rows`: token ids; `labels` [n] int64; `weights` [n] float32; `batch_rows`: how many make an update; `context`: the model's,
    which no batch is wider than.
    """

    def __init__(
        self,
        rows: Sequence[np.ndarray],
        labels: np.ndarray,
        weights: np.ndarray,
        *,
        context: int,
        seed: int,
        batch_rows: int,
    ) -> None:
        self.samples_per_epoch = len(rows)
        self._rows, self._context, self._seed, self._batch_rows = rows, context, seed, batch_rows
        self._labels, self._weights = torch.from_numpy(labels), torch.from_numpy(weights)
        self._lengths = np.array([len(row) for row in rows], np.int64)
        self._orders: dict[int, np.ndarray] = {}  # of the epochs of the last batch

    def batch(self, cursor: int, rows: int) -> LabelBatch:
        """Rows `cursor` to `cursor` + `rows` - 1 of the endless sequence, padded on the right with token 0."""
        samples = [divmod(sample, self.samples_per_epoch) for sample in range(cursor, cursor + rows)]
        self._orders = {epoch: self._order(epoch) for epoch in {epoch for epoch, _ in samples}}
        chosen = np.array([self._orders[epoch][place] for epoch, place in samples])
        lengths = self._lengths[chosen]
        width = min(-(-int(lengths.max()) // _WIDTH) * _WIDTH, self._context)
        tokens = np.zeros((rows, width), np.int64)
        for line, i in zip(tokens, chosen, strict=True):
            line[: self._lengths[i]] = self._rows[i]
        index = torch.from_numpy(chosen)
        return LabelBatch(
            torch.from_numpy(tokens), torch.from_numpy(lengths), self._labels[index], self._weights[index]
        )

    def _order(self, epoch: int) -> np.ndarray:
        """Every row once: shuffled, sorted by length within pools of some batches, the batches of a pool shuffled."""
        if epoch in self._orders:
            return self._orders[epoch]
        n, size = self.samples_per_epoch, self._batch_rows
        random = np.random.Generator(np.random.Philox(key=[self._seed, epoch]))
        order = random.permutation(n)
        begun = min(-epoch * n % size, n)  # rows that fill the last epoch's last batch
        pieces = [order[:begun]]
        for start in range(begun, n, _POOL * size):
            pool = order[start : start + _POOL * size]
            pool = pool[np.argsort(self._lengths[pool], kind="stable")]
            whole = len(pool) // size
            batches = pool[: whole * size].reshape(whole, size)[random.permutation(whole)]
            pieces += [batches.reshape(-1), pool[whole * size :]]
        return np.concatenate(pieces)
