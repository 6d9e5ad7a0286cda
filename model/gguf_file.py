"""Typed access to a GGUF file: metadata and tensors, with errors that name the file and the key."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.errors import CheckpointError

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGUFReader, ReaderTensor


class GgufFile:
    """One GGUF file, memory-mapped.

    tensors: name -> its entry; `read` gives its values.
    """

    def __init__(self, path: Path) -> None:
        """CheckpointError when the file can't be read as a whole GGUF file."""
        self.path = path
        self._reader = _open(path)
        self.tensors: dict[str, ReaderTensor] = {tensor.name: tensor for tensor in self._reader.tensors}
        if self.number("split.count", 1) > 1:
            raise CheckpointError(f"{path}: is one part of several; merge them first (llama-gguf-split --merge)")

    def text(self, key: str, default: str | None = None) -> str:
        """Metadata that is a text; CheckpointError when it is missing and there is no default."""
        return self._get(key, str, default)

    def number(self, key: str, default: int | None = None) -> int:
        """Metadata that is an integer."""
        return self._get(key, int, default)

    def real(self, key: str, default: float | None = None) -> float:
        """Metadata that is a float32, as the shortest decimal that means the same (1e-05, not 9.99999974e-06)."""
        return float(f"{self._get(key, float, default):.7g}")

    def flag(self, key: str, default: bool) -> bool:
        """Metadata that is true or false."""
        return self._get(key, bool, default)

    def texts(self, key: str) -> list[str]:
        """Metadata that is a list of texts."""
        return self._get(key, list)

    def numbers(self, key: str, default: list[int]) -> list[int]:
        """Metadata that is a list of integers."""
        return self._get(key, list, default)

    def _get(self, key: str, kind: type, default: Any = None) -> Any:
        field = self._reader.get_field(key)
        if field is None:
            if default is None:
                raise CheckpointError(f"{self.path}: the metadata has no {key}")
            return default
        value = field.contents()
        if not isinstance(value, kind):
            raise CheckpointError(f"{self.path}: {key} is a {type(value).__name__}, expected {kind.__name__}")
        return value

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape as PyTorch has it, [out, in] (GGUF itself lists the fastest dimension first)."""
        return tuple(int(size) for size in reversed(self.tensors[name].shape))

    def read(self, name: str, *, rows: int | None = None) -> np.ndarray:
        """A tensor's values (of its first `rows` rows only), float32, whatever they are stored as."""
        from gguf import quants

        tensor, shape = self.tensors[name], self.shape(name)
        try:
            return quants.dequantize(tensor.data[:rows], tensor.tensor_type).reshape(-1, *shape[1:])
        except (NotImplementedError, ValueError) as error:
            raise CheckpointError(f"{self.path}: tensor {name} ({tensor.tensor_type.name}): {error}") from None


def _open(path: Path) -> GGUFReader:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    from gguf import GGUFReader

    try:
        return GGUFReader(path)
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read: {error.strerror or error}") from None
    except Exception as error:  # whatever its parser stumbles over: there is no one kind of error
        raise CheckpointError(f"{path}: not a whole GGUF file, damaged or cut short ({error}); get it again") from None
