"""Tokenised texts with labels -> batches for a classifier."""

from collections.abc import Sequence

import numpy as np
import torch

from training.data.batch import LabelBatch
from training.data.length_order import LengthOrder

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
        self._rows, self._context = rows, context
        self._labels, self._weights = torch.from_numpy(labels), torch.from_numpy(weights)
        self._lengths = np.array([len(row) for row in rows], np.int64)
        self._order = LengthOrder(self._lengths, seed=seed, batch_rows=batch_rows)

    def batch(self, cursor: int, rows: int) -> LabelBatch:
        """Rows `cursor` to `cursor` + `rows` - 1 of the endless sequence, padded on the right with token 0."""
        chosen = self._order.places(cursor, rows)
        lengths = self._lengths[chosen]
        width = min(-(-int(lengths.max()) // _WIDTH) * _WIDTH, self._context)
        tokens = np.zeros((rows, width), np.int64)
        for line, i in zip(tokens, chosen, strict=True):
            line[: self._lengths[i]] = self._rows[i]
        index = torch.from_numpy(chosen)
        return LabelBatch(
            torch.from_numpy(tokens), torch.from_numpy(lengths), self._labels[index], self._weights[index]
        )
