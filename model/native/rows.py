"""Choosing from rows of logits with the native kernels: a pass or two over the vocabulary instead of a sort.

Every function gives None where it can't serve: no kernels on this machine, or logits that are not float32 on the CPU with
their rows in one piece. Callers then use model.sampling, which is also the reference for `draw`.
"""

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from model.native import library

BROKEN, FINITE, BANNED = 0, 1, 2  # RowState of src/rows.h


class Scan(NamedTuple):
    """What one pass over logits [R, V] tells; each of length R. Plain lists: for a few numbers tensors cost more than the pass."""

    argmax: list[int]  # the lowest index among equals, as torch has it
    max: list[float]
    state: list[int]  # FINITE; BANNED: finite but for some -inf; BROKEN: NaN or +inf, or nothing but -inf
    logsumexp: list[float] | None  # None where it wasn't asked for


class Draw(ctypes.Structure):
    """How one row's token is drawn: the parameters of model.sampling_params (off: top_p 1, min_p 0, top_k 0; temperature over
    0) and a number in [0, 1)."""

    _fields_ = (
        ("temperature", ctypes.c_double),
        ("top_p", ctypes.c_double),
        ("min_p", ctypes.c_double),
        ("top_k", ctypes.c_int64),
        ("uniform", ctypes.c_double),
    )


def scan(logits: Tensor, *, logsumexp: bool = False) -> Scan | None:
    """Argmax, maximum and soundness of logits [R, V], and log(sum(exp)) if asked for."""
    kernels = _kernels_for(logits)
    if kernels is None:
        return None
    n = len(logits)
    argmax, best, state = (ctypes.c_int32 * n)(), (ctypes.c_float * n)(), (ctypes.c_uint8 * n)()
    norms = (ctypes.c_float * n)() if logsumexp else None
    library.check(kernels, kernels.hg_rows_scan(*_shape(logits), argmax, best, norms, state))
    return Scan(argmax[:], best[:], state[:], None if norms is None else norms[:])


def draw(logits: Tensor, draws: Sequence[Draw]) -> list[int] | None:
    """One token for each row of logits [R, V], the same that model.sampling draws; -1 where only that can tell: for a
    broken row, and about once in a million draws, where the point falls within rounding of a boundary. ValueError when there
    are not as many draws as rows."""
    kernels = _kernels_for(logits)
    if kernels is None:
        return None
    if len(draws) != len(logits):
        raise ValueError(f"{len(draws)} draws for {len(logits)} rows of logits")
    tokens = (ctypes.c_int32 * len(logits))()
    library.check(kernels, kernels.hg_rows_draw(*_shape(logits), (Draw * len(draws))(*draws), tokens))
    return tokens[:]


def top(logits: Tensor, k: int) -> tuple[Tensor, Tensor] | None:
    """The k largest of each row of logits [R, V], largest first, the lower index first among equals: ids [R, k] int32,
    values [R, k]. Not for broken rows. ValueError when k is less than 0."""
    kernels = _kernels_for(logits)
    if kernels is None:
        return None
    if k < 0:
        raise ValueError(f"the {k} largest can't be had")
    k = min(k, logits.shape[1])
    ids, values = _empty(len(logits), k, dtype=torch.int32), _empty(len(logits), k)
    if k > 0:
        library.check(kernels, kernels.hg_rows_top(*_shape(logits), k, ids.data_ptr(), values.data_ptr()))
    return ids, values


def _kernels_for(logits: Tensor) -> ctypes.CDLL | None:
    fits = logits.dtype == torch.float32 and logits.device.type == "cpu" and logits.dim() == 2 and logits.shape[1] > 0
    return _kernels() if fits and (logits.stride(1) == 1 or logits.shape[1] == 1) else None


def _shape(logits: Tensor) -> tuple[int, int, int, int]:
    return logits.data_ptr(), logits.shape[0], logits.shape[1], logits.stride(0)


@cache
def _kernels() -> ctypes.CDLL | None:
    return library.load() if library.available() else None


def _empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    # The kernels write into it: of this type and here, whatever the defaults are now.
    return torch.empty(shape, dtype=dtype, device="cpu")
