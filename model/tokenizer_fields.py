"""The two recursive fields of a `tokenizer.json`, `pre_tokenizer` and `normalizer`, and typed access to any field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model import normalizers
from model.errors import TokenizerError
from model.normalizers import Normalizer
from model.pretokenizers import BEHAVIORS, DIGIT, ByteLevel, Split, Stage, compiled

_PUNCTUATION = r"[\p{P}$+<=>^`|~]"


class Reader:
    """Typed access to the fields of one file; a mistake names the file and the field."""

    def __init__(self, source: str) -> None:
        self.source = source

    def fail(self, field: str, problem: str) -> TokenizerError:
        """The error to raise."""
        return TokenizerError(f"{self.source}: {field}: {problem}")

    def get(self, data: Mapping[str, Any], field: str, kind: type, default: Any = ...) -> Any:
        """The value under the last part of `field`, checked to be a `kind`; `default` when missing or null."""
        value = data.get(field.rpartition(".")[2])
        if value is None:
            if default is ...:
                raise self.fail(field, "is missing")
            return default
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.fail(field, f"expected {kind.__name__}, found {type(value).__name__}")
        return value


def _pattern(read: Reader, entry: Mapping[str, Any], field: str) -> str:
    """`{"Regex": ...}` or `{"String": ...}` as one regular expression."""
    import regex

    pattern = read.get(entry, f"{field}.pattern", dict)
    if isinstance(pattern.get("Regex"), str):
        text = pattern["Regex"]
    elif isinstance(pattern.get("String"), str):
        text = regex.escape(pattern["String"])
    else:
        raise read.fail(f"{field}.pattern", "is neither a Regex nor a String")
    try:
        compiled(text)
    except TokenizerError as error:
        raise read.fail(f"{field}.pattern", str(error)) from None
    return text


def read_stages(read: Reader, entry: Any, field: str) -> list[Stage]:
    """A `pre_tokenizer` as a flat list of stages."""
    if entry is None:
        return []
    if not isinstance(entry, dict):
        raise read.fail(field, "expected an object")
    kind = entry.get("type")
    if kind == "Sequence":
        parts = read.get(entry, f"{field}.pretokenizers", list)
        return [
            stage for n, part in enumerate(parts) for stage in read_stages(read, part, f"{field}.pretokenizers[{n}]")
        ]
    if kind == "ByteLevel":
        prefix = read.get(entry, f"{field}.add_prefix_space", bool, True)
        return [ByteLevel(prefix, read.get(entry, f"{field}.use_regex", bool, True))]
    if kind == "Digits":
        single = read.get(entry, f"{field}.individual_digits", bool, False)
        return [Split(DIGIT, "Isolated" if single else "Contiguous")]
    if kind in ("Split", "Punctuation"):
        behavior = read.get(entry, f"{field}.behavior", str, "Isolated")
        if behavior not in BEHAVIORS:
            raise read.fail(f"{field}.behavior", f"is {behavior!r}, not one of {', '.join(BEHAVIORS)}")
        if kind == "Punctuation":
            return [Split(_PUNCTUATION, behavior)]
        return [Split(_pattern(read, entry, field), behavior, read.get(entry, f"{field}.invert", bool, False))]
    raise read.fail(f"{field}.type", f"is {kind!r}; known are ByteLevel, Split, Digits, Punctuation and Sequence")


def read_normalizer(read: Reader, entry: Any, field: str) -> Normalizer | None:
    """A `normalizer` as one function; None when there is nothing to do."""
    if entry is None:
        return None
    if not isinstance(entry, dict):
        raise read.fail(field, "expected an object")
    kind = entry.get("type")
    if kind == "Sequence":
        parts = read.get(entry, f"{field}.normalizers", list)
        steps = [read_normalizer(read, part, f"{field}.normalizers[{n}]") for n, part in enumerate(parts)]
        return normalizers.in_turn([step for step in steps if step is not None]) if parts else None
    if kind in normalizers.UNICODE_FORMS:
        return normalizers.unicode_form(kind)
    if kind == "Lowercase":
        return normalizers.lowercase
    if kind == "Prepend":
        return normalizers.prepend(read.get(entry, f"{field}.prepend", str))
    if kind == "Replace":
        return normalizers.replace(_pattern(read, entry, field), read.get(entry, f"{field}.content", str))
    raise read.fail(
        f"{field}.type", f"is {kind!r}; known are NFC, NFD, NFKC, NFKD, Lowercase, Prepend, Replace, Sequence"
    )
