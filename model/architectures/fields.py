"""Reading published configurations field by field, and how a published weight becomes one of ours."""

from dataclasses import dataclass
from typing import Any, TypeVar

from model.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True)
class Weights:
    """The published tensors that make one of ours: laid end to end along dimension 0, each transposed first if so
    stored.

    `rows`: how many rows of ours each takes (empty when there is but one).
    """

    names: tuple[str, ...]
    transposed: bool = False
    rows: tuple[int, ...] = ()


def take(fields: dict[str, Any], name: str, kind: type[T], default: T | None = None) -> T:
    """fields[name] as `kind`; without it the default; ConfigError when there is neither or it is of another kind."""
    value = fields.get(name)
    if value is None:
        if default is None:
            raise ConfigError(f"{name} is missing")
        return default
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ConfigError(f"{name} must be of type {kind.__name__}, not {value!r}")
    return value  # type: ignore[return-value]


def require(fields: dict[str, Any], name: str, allowed: tuple[object, ...]) -> None:
    """ConfigError when fields has `name` with a value that this program doesn't compute."""
    if name in fields and fields[name] not in allowed:
        choices = " or ".join(repr(value) for value in allowed)
        raise ConfigError(f"{name} {fields[name]!r} is not supported, only {choices}")


def token_ids(fields: dict[str, Any]) -> dict[str, Any]:
    """bos, eos and pad ids as ModelConfig's keywords; an end token given as a list stays several.

    An id outside the vocabulary can never occur: small published models carry their family's defaults. It counts as none.
    """
    eos = fields.get("eos_token_id")
    ids = {"bos_token_id": fields.get("bos_token_id"), "pad_token_id": fields.get("pad_token_id")}
    ids |= {f"eos_token_id {i}": token for i, token in enumerate(eos if isinstance(eos, list) else [eos])}
    for name, token in ids.items():
        if token is not None and (not isinstance(token, int) or isinstance(token, bool)):
            raise ConfigError(f"{name} must be a token id, not {token!r}")
    vocab_size = take(fields, "vocab_size", int)
    known = {name: token for name, token in ids.items() if token is not None and 0 <= token < vocab_size}
    bos, pad = known.pop("bos_token_id", None), known.pop("pad_token_id", None)
    return {"bos_token_id": bos, "pad_token_id": pad, "eos_token_ids": tuple(known.values())}
