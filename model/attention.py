"""Causal self-attention, with and without a KV cache: one code path. H query heads, G key/value heads, K = head_dim."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import ModelConfig
from model.kv_cache import KVCache
from model.layers import apply_rope
from model.slot_rows import SlotRows

_TILE = 128  # queries; of 64 to 256 the fastest for rows of 256 to 512 tokens


@dataclass(frozen=True)
class CachedRows:
    """Where a batch's rows live in a KV cache, and what each query may see."""

    cache: KVCache
    slots: Tensor  # [B] int64
    positions: Tensor  # [B, T] int64, absolute
    length: int  # positions to read: the longest row's, the new tokens included
    mask: Tensor | None  # [B, 1, T, length] bool, True = visible; None: everything is, or plain causal (see `causal`)
    causal: bool  # all rows start at 0 and the new tokens are all there is: the plain causal triangle

    @classmethod
    def locate(cls, cache: KVCache, slots: Tensor, starts: Tensor, n_new: int, length: int) -> "CachedRows":
        """Rows `slots` [B] that hold `starts` [B] tokens each and get `n_new` more; `length` = max(starts) + n_new."""
        positions = starts[:, None] + torch.arange(n_new, device=starts.device)  # [B, T]
        if length == n_new:  # the longest row starts at 0, so all do
            return cls(cache, slots, positions, length, None, causal=True)
        if len(slots) == 1 and n_new == 1:  # one row, one query: it sees all there is
            return cls(cache, slots, positions, length, None, causal=False)
        visible = torch.arange(length, device=starts.device) <= positions[:, None, :, None]  # [B, 1, T, length]
        return cls(cache, slots, positions, length, visible, causal=False)


@dataclass(frozen=True)
class Packed:
    """Rows that hold several documents each, which must not see one another (training, without a cache)."""

    positions: Tensor  # [B, T] int64, from 0 in each document
    mask: Tensor  # [B, 1, T, T] bool, True = visible

    @classmethod
    def locate(cls, documents: Tensor) -> "Packed":
        """`documents` [B, T] int64: the number of the document each token lies in, never falling within a row."""
        index = torch.arange(documents.shape[1], device=documents.device)
        begins = torch.ones_like(documents, dtype=torch.bool)
        begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
        starts = torch.where(begins, index, 0).cummax(1).values  # [B, T]: where the token's document begins
        # A key is of the query's own document exactly when it doesn't lie before that document's begin.
        mask = (index <= index[:, None]) & (index >= starts[:, :, None])  # [B, T, T]
        return cls(index - starts, mask[:, None])


def tiled_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """Causal attention in plain matrix products, a tile of queries at a time, for torch.compile on a CPU: what a tile can't see
    is not computed, and the softmax between the products becomes one loop. Twice as fast there, forward and backward, as
    PyTorch's own kernel.

    q [B, H, T, K], k and v [B, G, T, K], mask [B, 1, T, T] bool (True = visible; None: all before) -> [B, H, T, K].
    """
    n_new, groups = q.shape[2], q.shape[1] // k.shape[1]
    if groups > 1:
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    tiles = []
    for start in range(0, n_new, _TILE):
        end = min(start + _TILE, n_new)
        scores = (q[:, :, start:end] @ k[:, :, :end].transpose(2, 3)).float() / math.sqrt(q.shape[3])
        index = torch.arange(end, device=q.device)
        visible = index <= index[start:end, None] if mask is None else mask[:, :, start:end, :end]
        scores = scores.masked_fill(~visible, -math.inf)
        shares = (scores - scores.amax(-1, keepdim=True)).exp()  # the softmax, but for its sum: a pass less
        values = F.dropout(shares.to(v.dtype), dropout) @ v[:, :, :end]
        tiles.append((values.float() / shares.sum(-1, keepdim=True)).to(v.dtype))
    return torch.cat(tiles, 2)


class Attention(nn.Module):
    """Multi-head self-attention; with fewer key/value heads than query heads each serves a group of them."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.n_head, self.n_kv_head, self.head_dim = config.n_head, config.n_kv_head, config.head_dim
        self.attention_dropout = config.dropout
        width, kv_width = config.n_head * config.head_dim, config.n_kv_head * config.head_dim
        # One product for queries, keys and values: fewer, fatter matrix products.
        self.qkv = nn.Linear(config.d_model, width + 2 * kv_width, bias=config.attention_bias)
        self.out = nn.Linear(width, config.d_model, bias=config.attention_bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Tensor, rope: tuple[Tensor, Tensor] | None, rows: CachedRows | SlotRows | Packed | None
    ) -> Tensor:
        """x [B, T, D] -> [B, T, D]. `rope`: cos, sin [B or 1, 1, T, K] of the tokens' positions. `rows`: None for
        plain causal attention within each row."""
        batch, n_new, _ = x.shape
        q, k, v = self._heads(x, rope)
        if isinstance(rows, SlotRows):
            y = rows.attend(self.layer, q, k, v)
            return self.out(y.transpose(1, 2).reshape(batch, n_new, -1))
        mask, causal = None, True
        if isinstance(rows, Packed):
            mask, causal = rows.mask, False
        elif rows is not None:
            rows.cache.write(self.layer, rows.slots, rows.positions, k, v)
            mask, causal = rows.mask, rows.causal
            if not causal:
                k, v = rows.cache.read(self.layer, rows.slots, rows.length)  # [B, G, length, K]
                k, v = k.to(q.dtype), v.to(q.dtype)
        dropout = self.attention_dropout if self.training else 0.0
        if torch.compiler.is_compiling() and x.device.type == "cpu" and not isinstance(rows, CachedRows):
            y = tiled_attention(q, k, v, mask, dropout)
        else:
            y = F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=causal and n_new > 1, dropout_p=dropout,
                enable_gqa=self.n_kv_head != self.n_head,
            )  # fmt: skip
        return self.dropout(self.out(y.transpose(1, 2).reshape(batch, n_new, -1)))

    def weights(self, x: Tensor, rope: tuple[Tensor, Tensor] | None) -> Tensor:
        """How much each position takes from each, [B, H, T, T] float32: rows sum to 1, and are 0 behind the query. x and rope as
        for `forward`, which computes the same without ever holding it."""
        q, k, _ = self._heads(x, rope)
        k = k.repeat_interleave(self.n_head // self.n_kv_head, dim=1)
        scores = (q.float() @ k.float().transpose(2, 3)) / math.sqrt(self.head_dim)
        visible = torch.ones(scores.shape[2:], dtype=torch.bool, device=x.device).tril()
        return scores.masked_fill(~visible, -math.inf).softmax(-1)

    def _heads(self, x: Tensor, rope: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [B, H, T, K], keys and values [B, G, T, K] of x [B, T, D]."""
        batch, n_new, _ = x.shape
        sizes = (self.n_head, self.n_kv_head, self.n_kv_head)
        heads = self.qkv(x).view(batch, n_new, sum(sizes), self.head_dim).transpose(1, 2)  # [B, H+2G, T, K]
        q, k, v = heads.split(sizes, dim=1)
        return (q, k, v) if rope is None else (apply_rope(q, *rope), apply_rope(k, *rope), v)
