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
    library: ctypes.CDLL, handle: int, config: ModelConfig, context: int, tensors: Iterable[tuple[str, Tensor]]
) -> Tensor | None:
    """Set every weight of a model that hg_create made, from our parameters by name (of a classifier too). A classifier's score
    [n_labels, D] float32 is given back, which the kernels don't compute."""
    score = None
    embedding = Matrix.EMBEDDING if config.labels or not config.tie_embeddings else Matrix.HEAD
    for name, parts in _joined(config, tensors):
        block = _BLOCK.fullmatch(name)
        layer, part = (int(block[1]), block[2]) if block else (0, name)
        if part == "score.weight":
            score = parts[0].float().clone()
        elif part == "token_embedding.weight":
            _pack(library, handle, embedding, 0, parts)
        elif part == "head.weight":
            if embedding != Matrix.HEAD:
                _pack(library, handle, Matrix.HEAD, 0, parts)
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
                _pack(library, handle, matrix, layer, parts)
            else:
                _set(library, handle, _BIASES[matrix], layer, torch.cat([bias.float() for bias in parts]))
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


def _pack(library: ctypes.CDLL, handle: int, matrix: Matrix, layer: int, parts: list[Tensor]) -> None:
    parts = [part.detach() if part.dtype in _DTYPES else part.detach().float() for part in parts]
    pieces = (Piece * len(parts))(
        *((part.data_ptr(), _DTYPES[part.dtype], part.shape[0], part.stride(0), part.stride(1)) for part in parts)
    )
    check(library, library.hg_pack(handle, matrix, layer, pieces, len(parts)))


def _set(library: ctypes.CDLL, handle: int, vector: Vector, layer: int, values: Tensor) -> None:
    values = values.detach().float().contiguous()
    check(library, library.hg_set_vector(handle, vector, layer, values.data_ptr(), values.numel()))
