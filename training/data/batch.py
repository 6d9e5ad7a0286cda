"""What an update is computed from: rows of tensors, cut into micro-batches and brought to a device.

A batch's `weight` is what its summed loss is divided by (valid tokens, class weights, pairs): across micro-batches and ranks the
sums and the weights are added, so the cut changes nothing.
"""

from dataclasses import dataclass, fields
from typing import Protocol, Self

import numpy as np
import torch
from torch import Tensor

IGNORE = -100  # a target that counts for nothing (PyTorch's own convention)


@dataclass(frozen=True)
class Batch:
    """Tensors whose first dimension is the rows; a field may be None. Subclasses name the fields and say the weight."""

    @property
    def weight(self) -> float:
        """What the batch's summed loss is divided by; 0 when nothing in it counts."""
        raise NotImplementedError

    @property
    def n_tokens(self) -> int:
        """Tokens computed with, padding left out: for rates."""
        raise NotImplementedError

    def tensors(self) -> dict[str, Tensor | None]:
        """The fields by name: the keyword arguments of the objective's forward."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __len__(self) -> int:
        return next(len(tensor) for tensor in self.tensors().values() if tensor is not None)

    def rows(self, start: int, end: int) -> Self:
        """Rows `start` to `end` - 1, as far as there are any."""
        return type(self)(**{k: None if t is None else t[start:end] for k, t in self.tensors().items()})

    def to(self, device: torch.device | str) -> Self:
        """The same batch on a device."""
        return type(self)(**{k: None if t is None else t.to(device) for k, t in self.tensors().items()})


@dataclass(frozen=True)
class TokenBatch(Batch):
    """Next-token prediction. `tokens` [B, T] int64; `targets` [B, T] int64, the next token at each position or IGNORE;
    `documents` [B, T] int64, the number of the document (or example) each token lies in, counted within its row, when rows hold
    several that must not see each other; None when a row is one."""

    tokens: Tensor
    targets: Tensor
    documents: Tensor | None = None

    @property
    def weight(self) -> float:
        """The number of valid targets."""
        return float((self.targets != IGNORE).sum())

    @property
    def n_tokens(self) -> int:
        """All of them: rows are packed, or their padding is computed too."""
        return self.tokens.numel()


@dataclass(frozen=True)
class LabelBatch(Batch):
    """Sequence classification. `tokens` [B, T] int64, padded on the right; `lengths` [B] int64, at least 1; `labels` [B]
    int64; `weights` [B] float32, the class weight of each row."""

    tokens: Tensor
    lengths: Tensor
    labels: Tensor
    weights: Tensor

    @property
    def weight(self) -> float:
        """The sum of the rows' class weights."""
        return float(self.weights.double().sum())

    @property
    def n_tokens(self) -> int:
        """Without padding."""
        return int(self.lengths.sum())


@dataclass(frozen=True)
class PreferenceBatch(Batch):
    """Pairs of a better and a worse answer to one prompt. `*_tokens` and `*_targets` [B, T] int64 as in TokenBatch, with IGNORE
    on the prompt; `reference_*` [B] float32: the summed log-probability of the answer under the model before tuning."""

    chosen_tokens: Tensor
    chosen_targets: Tensor
    rejected_tokens: Tensor
    rejected_targets: Tensor
    reference_chosen: Tensor
    reference_rejected: Tensor

    @property
    def weight(self) -> float:
        """The number of pairs that have both answers."""
        both = (self.chosen_targets != IGNORE).any(1) & (self.rejected_targets != IGNORE).any(1)
        return float(both.sum())

    @property
    def n_tokens(self) -> int:
        """Of both answers, padding included."""
        return self.chosen_tokens.numel() + self.rejected_tokens.numel()


class Source(Protocol):
    """Where batches come from: a pure function of the cursor, so that nothing but the cursor needs saving."""

    samples_per_epoch: int

    def batch(self, cursor: int, rows: int) -> Batch:
        """Samples `cursor` to `cursor` + `rows` - 1 of the endless, shuffled sequence of epochs."""
        ...


def epoch_order(seed: int, epoch: int, n: int) -> np.ndarray:
    """The order of `n` samples in an epoch, [n] int64: a pure function of (seed, epoch)."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(n)
