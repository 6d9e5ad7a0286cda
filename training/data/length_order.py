"""An order of rows that brings rows of like length together in batches, so that little of a batch is padding."""

from collections.abc import Sequence

import numpy as np

_POOL = 32  # batches within which rows are sorted by length


class LengthOrder:
    """The endless sequence of epochs over rows of given lengths, a pure function of (seed, cursor). In each epoch every row comes
    once: they are shuffled, sorted by length within pools of some batches, and the batches of a pool are shuffled."""

    def __init__(self, lengths: Sequence[int] | np.ndarray, *, seed: int, batch_rows: int) -> None:
        """`batch_rows`: how many make an update; batches begin where these do, across epochs too."""
        self._lengths, self._seed, self._batch_rows = np.asarray(lengths, np.int64), seed, batch_rows
        self._orders: dict[int, np.ndarray] = {}  # of the epochs last asked for

    def places(self, cursor: int, rows: int) -> np.ndarray:
        """Which rows samples `cursor` to `cursor` + `rows` - 1 are, [rows] int64."""
        samples = [divmod(sample, len(self._lengths)) for sample in range(cursor, cursor + rows)]
        self._orders = {epoch: self._order(epoch) for epoch in {epoch for epoch, _ in samples}}
        return np.array([self._orders[epoch][place] for epoch, place in samples])

    def _order(self, epoch: int) -> np.ndarray:
        if epoch in self._orders:
            return self._orders[epoch]
        n, size = len(self._lengths), self._batch_rows
        random = np.random.Generator(np.random.Philox(key=[self._seed, epoch]))
        order = random.permutation(n)
        begun = min(-epoch * n % size, n)  # rows that fill the last batch of the epoch before
        pieces = [order[:begun]]
        for first in range(begun, n, _POOL * size):
            pool = order[first : first + _POOL * size]
            pool = pool[np.argsort(self._lengths[pool], kind="stable")]
            whole, left = divmod(len(pool), size)
            # The epoch's last, partial batch comes last, with rows of any length: were it always the longest, they would always
            # share a batch with rows of the next epoch.
            start = int(random.integers(whole + 1)) * size
            at = slice(start, start + left)
            batches = np.delete(pool, at).reshape(whole, size)[random.permutation(whole)]
            pieces += [batches.reshape(-1), pool[at]]
        return np.concatenate(pieces)
