"""Weights into the native kernels: streamed one tensor at a time and packed, so that there is never a second copy of all."""

import ctypes
import re
from collections.abc import Iterable, Iterator
from enum import IntEnum

import torch
from torch import Tensor

from model.config import ModelConfig
from model.layers import rope_table
from model.native.library import Piece, check
from model.native.pages import release_file_pages


class Matrix(IntEnum):
    """hg::Matrix of src/model.h."""

    QKV, OUT, UP, DOWN, EMBEDDING, HEAD = range(6)


class Vector(IntEnum):
    """hg::Vector of src/model.h."""

    QKV_BIAS, OUT_BIAS, UP_BIAS, DOWN_BIAS, ATTENTION_GAIN, ATTENTION_BIAS, MLP_GAIN, MLP_BIAS = range(8)
    FINAL_GAIN, FINAL_BIAS, POSITIONS, COSINES, SINES = range(8, 13)


_MATRICES = {
    "attention.qkv": Matrix.QKV, "attention.out": Matrix.OUT, "mlp.gate": Matrix.UP, "mlp.up": Matrix.UP,
    "mlp.down": Matrix.DOWN,
}  # fmt: skip
_BIASES = {
    Matrix.QKV: Vector.QKV_BIAS,
    Matrix.OUT: Vector.OUT_BIAS,
    Matrix.UP: Vector.UP_BIAS,
    Matrix.DOWN: Vector.DOWN_BIAS,
}
_NORMS = {
    "attention_norm.weight": Vector.ATTENTION_GAIN, "attention_norm.bias": Vector.ATTENTION_BIAS,
    "mlp_norm.weight": Vector.MLP_GAIN, "mlp_norm.bias": Vector.MLP_BIAS,
}  # fmt: skip
_DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_RANGE_BYTES = 16 << 20  # of a tensor in a file, whose pages are in memory at once
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")


def locate(config: ModelConfig, ours: str) -> tuple[int, Matrix, int]:
    """Layer, matrix and first output row of one of our linear layers in a block, such as blocks.3.mlp.up: here llama's gate and
    up are one matrix. KeyError when there is none of that name."""
    found = _BLOCK.fullmatch(ours.removeprefix("trunk."))
    if found is None:
        raise KeyError(ours)
    shared = config.architecture == "llama" and found[2] == "mlp.up"
    return int(found[1]), _MATRICES[found[2]], config.d_ff if shared else 0


def fill(
    library: ctypes.CDLL,
    handle: int,
    config: ModelConfig,
    context: int,
    tensors: Iterable[tuple[str, Tensor]],
    *,
    streamed: bool = False,
) -> Tensor | None:
    """Set every weight of a model that hg_create made, from our parameters by name (of a classifier too). A classifier's score
    [n_labels, D] float32 is given back, which the kernels don't compute.

    `streamed`: the tensors are read from files, for this call alone: large ones go in parts, whose pages of the file leave memory
    before the next part is read."""
    range_bytes = _RANGE_BYTES if streamed else None
    score = None
    embedding = Matrix.EMBEDDING if config.labels or not config.tie_embeddings else Matrix.HEAD
    for name, parts in _joined(config, tensors):
        block = _BLOCK.fullmatch(name)
        layer, part = (int(block[1]), block[2]) if block else (0, name)
        if part == "score.weight":
            score = parts[0].to("cpu", torch.float32).clone()
        elif part == "token_embedding.weight":
            _pack(library, handle, embedding, 0, parts, range_bytes)
        elif part == "head.weight":
            if embedding != Matrix.HEAD:
                _pack(library, handle, Matrix.HEAD, 0, parts, range_bytes)
        elif part == "position_embedding.weight":
            _set(library, handle, Vector.POSITIONS, 0, parts[0][:context])
        elif part in ("norm.weight", "norm.bias"):
            _set(library, handle, Vector.FINAL_GAIN if part == "norm.weight" else Vector.FINAL_BIAS, 0, parts[0])
        elif part in _NORMS:
            _set(library, handle, _NORMS[part], layer, parts[0])
        else:
            linear, _, kind = part.rpartition(".")
            matrix = _MATRICES[linear]
            if kind == "weight":
                _pack(library, handle, matrix, layer, parts, range_bytes)
            else:
                _set(library, handle, _BIASES[matrix], layer, torch.cat(parts))
    if config.architecture == "llama":
        for vector, table in zip((Vector.COSINES, Vector.SINES), rope_table(config), strict=True):
            _set(library, handle, vector, 0, table[:context, : config.head_dim // 2])
    check(library, library.hg_check_complete(handle))
    return score


def _joined(config: ModelConfig, tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, list[Tensor]]]:
    """Names without a classifier's prefix, with one tensor each; but llama's gate and up together, under the name of up."""
    gates: dict[str, Tensor] = {}
    for name, tensor in tensors:
        name = name.removeprefix("trunk.")
        if ".mlp.gate." in name:
            gates[name.replace(".gate.", ".up.")] = tensor
        elif config.architecture == "llama" and ".mlp.up." in name:
            yield name, [gates.pop(name), tensor]
        else:
            yield name, [tensor]


def _pack(
    library: ctypes.CDLL, handle: int, matrix: Matrix, layer: int, parts: list[Tensor], range_bytes: int | None
) -> None:
    """Pack a matrix of these parts, its rows end to end; with `range_bytes` by ranges of rows that hold about so much, after each
    of which the pages that the parts have in files leave memory."""
    parts = [part.detach().to("cpu", part.dtype if part.dtype in _DTYPES else torch.float32) for part in parts]
    pieces = (Piece * len(parts))(
        *((part.data_ptr(), _DTYPES[part.dtype], part.shape[0], part.stride(0), part.stride(1)) for part in parts)
    )
    n_rows, step = sum(len(part) for part in parts), library.hg_pack_rows()
    n_ranges = 1 if range_bytes is None else -(-sum(part.nbytes for part in parts) // range_bytes)
    rows = -(-n_rows // (max(n_ranges, 1) * step)) * step
    for begin in range(0, n_rows, rows):
        end = min(begin + rows, n_rows)
        check(library, library.hg_pack(handle, matrix, layer, pieces, len(parts), begin, end))
        if n_ranges > 1:
            for part in parts:
                release_file_pages(part)


def _set(library: ctypes.CDLL, handle: int, vector: Vector, layer: int, values: Tensor) -> None:
    values = values.detach().to("cpu", torch.float32).contiguous()
    check(library, library.hg_set_vector(handle, vector, layer, values.data_ptr(), values.numel()))
