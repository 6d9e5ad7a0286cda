"""Keys and values of past positions, preallocated in fixed slots: [layer, slot, kv_head, position, head_dim]."""

import math

import numpy as np
import torch
from torch import Tensor

from model.config import ModelConfig
from model.errors import ConfigError


class KVCache:
    """`n_slots` sequences of up to `context` positions each; a slot's content is valid up to the length its owner
    tracks.

    `keys`, `values`: [n_layer, n_slots, n_kv_head, context, head_dim] of `dtype`. Nothing is cleared between owners:
    attention reads only positions up to the query's own, and all of those were written by the present owner.
    """

    def __init__(
        self,
        config: ModelConfig,
        n_slots: int,
        *,
        context: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.context = config.context_length if context is None else context
        if not 1 <= self.context <= config.context_length:
            raise ConfigError(f"context must be from 1 to the model's {config.context_length}, not {self.context}")
        if n_slots < 1:
            raise ConfigError(f"a KV cache needs at least 1 slot, not {n_slots}")
        self.n_slots = n_slots
        shape = (config.n_layer, n_slots, config.n_kv_head, self.context, config.head_dim)
        # Zeros, not empty memory: a masked position must hold a finite number, since 0 x NaN is NaN in the weighted
        # sum.
        self.keys = _zeros(shape, dtype, torch.device(device))
        self.values = _zeros(shape, dtype, torch.device(device))

    @property
    def nbytes(self) -> int:
        """Bytes held by keys and values together."""
        return 2 * self.keys.numel() * self.keys.element_size()

    def write(self, layer: int, slots: Tensor, positions: Tensor, keys: Tensor, values: Tensor) -> None:
        """Store keys, values [B, n_kv_head, T, head_dim] of rows `slots` [B] at `positions` [B, T]."""
        index = (slots[:, None], slice(None), positions)  # the advanced indices come first: [B, T, n_kv_head, head_dim]
        self.keys[layer][index] = keys.transpose(1, 2).to(self.keys.dtype)
        self.values[layer][index] = values.transpose(1, 2).to(self.values.dtype)

    def write_tokens(self, layer: int, slots: Tensor, positions: Tensor, keys: Tensor, values: Tensor) -> None:
        """Store keys, values [n_kv_head, N, head_dim] of N tokens, each at its slot and position, both [N]."""
        index = (slots, slice(None), positions)  # [N, n_kv_head, head_dim]
        self.keys[layer][index] = keys.transpose(0, 1).to(self.keys.dtype)
        self.values[layer][index] = values.transpose(0, 1).to(self.values.dtype)

    def view(self, layer: int, slot: int, length: int) -> tuple[Tensor, Tensor]:
        """The first `length` positions of one slot, where they lie: keys and values [1, n_kv_head, length, head_dim]."""
        return self.keys[layer, slot : slot + 1, :, :length], self.values[layer, slot : slot + 1, :, :length]

    def read(self, layer: int, slots: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """The first `length` positions of rows `slots` [B]: keys and values [B, n_kv_head, length, head_dim]."""
        live_keys, live_values = self.keys[layer, :, :, :length], self.values[layer, :, :, :length]
        return live_keys[slots], live_values[slots]

    def copy_slot(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions of slot `source` into slot `target`."""
        self.keys[:, target, :, :length] = self.keys[:, source, :, :length]
        self.values[:, target, :, :length] = self.values[:, source, :, :length]

    def clear(self, slot: int, begin: int, end: int) -> None:
        """Write zeros over positions [begin, end) of a slot."""
        self.keys[:, slot, :, begin:end] = 0
        self.values[:, slot, :, begin:end] = 0


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor of zeros. On a CPU its pages are the system's own untouched ones (calloc, which numpy uses and torch
    doesn't), so a slot takes memory only as far as it is written."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.zeros(math.prod(shape) * dtype.itemsize, np.uint8)).view(dtype).view(shape)
