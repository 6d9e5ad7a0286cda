"""The mean of hidden states over a prompt that comes in chunks, the same to the last bit however it is cut."""

import torch
from torch import Tensor

_BLOCK = 64


class Mean:
    """The mean over positions of rows [T, D] that are added in order.

    Rows are summed in blocks at fixed positions, the blocks in order, in float64: so the order of the additions does not depend
    on the chunks. Holds one block.
    """

    def __init__(self, width: int) -> None:
        self._block = torch.empty(_BLOCK, width, dtype=torch.float64)
        self._sum = torch.zeros(width, dtype=torch.float64)
        self._count = 0

    def add(self, rows: Tensor) -> None:
        """Take in the next rows [T, D], float32, on any device."""
        at = 0
        while at < len(rows):
            begin = self._count % _BLOCK
            n = min(len(rows) - at, _BLOCK - begin)
            self._block[begin : begin + n] = rows[at : at + n]
            self._count += n
            at += n
            if self._count % _BLOCK == 0:
                self._sum += self._block.sum(0)

    def result(self) -> Tensor:
        """The mean [D], float32, on the CPU. FloatingPointError when it is not finite."""
        mean = (self._sum + self._block[: self._count % _BLOCK].sum(0)) / self._count
        if not bool(torch.isfinite(mean).all()):
            raise FloatingPointError("the model's hidden states are not finite")
        return mean.float()
