"""A run of token ids in files of bounded size: written end to end, read as one array without loading it."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, overload

import numpy as np

from model.files import file_sha256
from training.errors import DataError

MAX_TOKENS = 1 << 28  # of one file: 512 MiB of a vocabulary that fits two bytes


@dataclass(frozen=True)
class TokenFile:
    """One file: its `name`, how many `tokens` it holds, and the `sha256` of its content."""

    name: str
    tokens: int
    sha256: str


class TokenWriter:
    """Writes `{stem}-00000.bin`, `{stem}-00001.bin`, ... of at most `max_tokens` tokens; a document may run on from one into the
    next. OSError when the disk is full."""

    def __init__(self, directory: Path, stem: str, dtype: np.dtype, max_tokens: int = MAX_TOKENS) -> None:
        self.files: list[TokenFile] = []
        self._directory, self._stem, self._dtype, self._max = directory, stem, dtype, max_tokens
        self._descriptor: int | None = None
        self._tokens, self._digest = 0, hashlib.sha256()

    def write(self, tokens: np.ndarray) -> None:
        """Put `tokens` [n] behind those written so far."""
        while len(tokens):
            descriptor = self._open() if self._descriptor is None else self._descriptor
            room = self._max - self._tokens
            data = np.ascontiguousarray(tokens[:room], self._dtype).data.cast("B")
            self._digest.update(data)
            while data:
                data = data[os.write(descriptor, data) :]
            self._tokens += min(room, len(tokens))
            tokens = tokens[room:]
            if self._tokens == self._max:
                self.close()

    def close(self) -> None:
        """End the file that is open, synced to the disk."""
        if self._descriptor is None:
            return
        os.fsync(self._descriptor)
        self.abandon()
        self.files.append(TokenFile(self._path.name, self._tokens, self._digest.hexdigest()))

    def abandon(self) -> None:
        """Let go of the file that is open, complete or not."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    @property
    def _path(self) -> Path:
        return self._directory / f"{self._stem}-{len(self.files):05}.bin"

    def _open(self) -> int:
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        self._tokens, self._digest = 0, hashlib.sha256()
        return self._descriptor


class TokenView:
    """The tokens of several files as one array [n] of `dtype`, memory-mapped. A slice is an array; a slice within one file is
    read only where it is touched."""

    ndim = 1

    def __init__(self, directory: Path, files: Sequence[TokenFile], dtype: np.dtype, *, verify: bool = False) -> None:
        """DataError names the file that is missing or isn't as long as it should be or, with `verify`, whose content isn't that
        which was written."""
        self.dtype = dtype
        self._parts = [_map(directory / file.name, file, dtype, verify) for file in files]
        self._ends = list(accumulate(len(part) for part in self._parts))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @property
    def shape(self) -> tuple[int]:
        """(n,)"""
        return (len(self),)

    @overload
    def __getitem__(self, index: slice) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: int) -> np.integer[Any]: ...
    def __getitem__(self, index: slice | int) -> np.ndarray | np.integer[Any]:
        if not isinstance(index, slice):
            place = range(len(self))[index]  # IndexError past the ends, as in a list
            return self[place : place + 1][0]
        start, stop, step = index.indices(len(self))
        if step != 1:
            return self[:][index]
        pieces: list[np.ndarray] = []
        for part, end in zip(self._parts, self._ends, strict=True):
            begin = end - len(part)
            if start < end and begin < stop:
                pieces.append(part[max(start - begin, 0) : stop - begin])
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate(pieces) if pieces else np.empty(0, self.dtype)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self[:], dtype, copy=copy)

    def astype(self, dtype: Any) -> np.ndarray:
        """The whole as another type, in memory."""
        return self[:].astype(dtype)


def _map(path: Path, file: TokenFile, dtype: np.dtype, verify: bool) -> np.ndarray:
    expected = file.tokens * dtype.itemsize
    remedy = f"delete {path.parent} and prepare the data again"
    if not path.is_file() or path.stat().st_size != expected:
        raise DataError(f"{path}: missing or not {expected:,} bytes long; {remedy}")
    if verify and file_sha256(path) != file.sha256:
        raise DataError(f"{path}: its content isn't what was written (another SHA-256 than the manifest's); {remedy}")
    return np.asarray(np.memmap(path, dtype=dtype, mode="r"))
