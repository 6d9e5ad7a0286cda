"""New tokens of several cache slots in one pass: where they lie, and how their queries read the cache.

H query heads, G key/value heads, K = head_dim.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model.kv_cache import KVCache


@dataclass(frozen=True)
class Span:
    """New tokens of one slot: columns [begin, end) of FlatRows."""

    slot: int
    begin: int
    end: int
    length: int  # positions that the slot then holds
    mask: Tensor | None  # [T, length] bool, True = visible; None: one query, or nothing lies before the first


@dataclass(frozen=True)
class FlatRows:
    """New tokens of several slots end to end in one row of N: norms and products see one matrix without padding, and only
    attention goes slot by slot. It reads the live part of each where it lies: nothing is copied, and what an earlier owner
    left behind is never touched."""

    cache: KVCache
    slots: Tensor  # [N] int64: each token's slot
    positions: Tensor  # [1, N] int64, absolute
    spans: tuple[Span, ...]

    @classmethod
    def locate(cls, cache: KVCache, rows: Sequence[tuple[int, int, int]]) -> "FlatRows":
        """`rows`: (slot, tokens it keeps, new tokens), each slot once."""
        device = cache.keys.device
        spans: list[Span] = []
        slots: list[int] = []
        positions: list[int] = []
        for slot, start, n_new in rows:
            length, mask = start + n_new, None
            if n_new > 1 and start:
                index = torch.arange(length, device=device)
                mask = index <= index[start:, None]
            spans.append(Span(slot, len(slots), len(slots) + n_new, length, mask))
            slots += [slot] * n_new
            positions += range(start, length)
        place = torch.tensor([slots, positions], device=device)
        return cls(cache, place[0], place[1:], tuple(spans))

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Store k, v [1, G, N, K] in the slots; what the queries q [1, H, N, K] read there, [1, H, N, K]."""
        self.cache.write_tokens(layer, self.slots, self.positions[0], k[0], v[0])
        read = []
        for span in self.spans:
            keys, values = self.cache.view(layer, span.slot, span.length)  # [1, G, length, K]
            causal = span.mask is None and span.end - span.begin > 1
            queries = q[:, :, span.begin : span.end]
            read.append(
                F.scaled_dot_product_attention(
                    queries, keys, values, attn_mask=span.mask, is_causal=causal, enable_gqa=k.shape[1] != q.shape[1]
                )
            )
        return read[0] if len(read) == 1 else torch.cat(read, dim=2)


@dataclass(frozen=True)
class StepRows:
    """One new token for each of B rows, in shapes that depend on B and `length` alone, so that a step can be captured once and
    replayed: each row reads `length` positions of its slot, whatever it holds, and a mask hides the rest. Slots must hold
    finite numbers everywhere."""

    cache: KVCache
    slots: Tensor  # [B] int64
    positions: Tensor  # [B, 1] int64, absolute
    bias: Tensor  # [B, 1, 1, length] in the model's dtype: 0 where the row sees, else -inf

    @classmethod
    def locate(cls, cache: KVCache, slots: Tensor, starts: Tensor, length: int) -> "StepRows":
        """Rows of `slots` [B] that hold `starts` [B] tokens; `length` is at least max(starts) + 1."""
        visible = torch.arange(length, device=starts.device) <= starts[:, None]  # [B, length]
        bias = torch.zeros(visible.shape, dtype=cache.keys.dtype, device=starts.device)
        return cls(cache, slots, starts[:, None], bias.masked_fill(~visible, -math.inf)[:, None, None])

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Store k, v [B, G, 1, K] in the slots; what the queries q [B, H, 1, K] read there, [B, H, 1, K]."""
        self.cache.write_tokens(
            layer, self.slots, self.positions[:, 0], k[:, :, 0].transpose(0, 1), v[:, :, 0].transpose(0, 1)
        )
        keys, values = self.cache.read(layer, self.slots, self.bias.shape[-1])  # [B, G, length, K]
        # A group of query heads reads the same keys: as so many queries of one head, which the fused kernels take with a mask.
        grouped = q.view(len(q), k.shape[1], -1, q.shape[3])  # [B, G, H / G, K]
        read = F.scaled_dot_product_attention(
            grouped, keys, values, attn_mask=self.bias.expand(-1, -1, grouped.shape[2], -1)
        )
        return read.reshape(q.shape)


SlotRows = FlatRows | StepRows
