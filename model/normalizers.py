"""What is done to text before it is cut: the `normalizer` of a `tokenizer.json`."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from functools import partial
from itertools import groupby
from typing import Literal

from model.pretokenizers import compiled

Normalizer = Callable[[str], str]
UnicodeForm = Literal["NFC", "NFD", "NFKC", "NFKD"]
UNICODE_FORMS: tuple[UnicodeForm, ...] = ("NFC", "NFD", "NFKC", "NFKD")
_LONG_MARKS = r"\p{M}{64,}"


def unicode_form(form: UnicodeForm) -> Normalizer:
    """Unicode normalization in time that grows linearly: the standard library sorts a run of combining marks by
    insertion, so that 100,000 of them, ordered badly, would take seconds. Long runs are put in order first."""

    def normalize(text: str) -> str:
        if len(text) > 64 and not text.isascii():
            text = compiled(_LONG_MARKS).sub(lambda match: _in_canonical_order(match.group()), text)
        return unicodedata.normalize(form, text)

    return normalize


def _in_canonical_order(marks: str) -> str:
    decomposed = "".join(unicodedata.normalize("NFD", mark) for mark in marks)
    runs = groupby(decomposed, key=lambda char: unicodedata.combining(char) > 0)
    return "".join("".join(sorted(run, key=unicodedata.combining) if moves else run) for moves, run in runs)


def lowercase(text: str) -> str:
    """Character by character, unlike `str.lower`, which looks at a sigma's neighbours."""
    return text.lower() if text.isascii() else "".join(char.lower() for char in text)


def replace(pattern: str, content: str) -> Normalizer:
    """Every match of `pattern` (regex syntax) becomes `content`."""
    return partial(compiled(pattern).sub, lambda _: content)


def prepend(prefix: str) -> Normalizer:
    """`prefix` in front of a text that isn't empty."""
    return lambda text: prefix + text if text else text


def in_turn(normalizers: list[Normalizer]) -> Normalizer:
    """One normalizer that applies these in order."""

    def normalize(text: str) -> str:
        for normalizer in normalizers:
            text = normalizer(text)
        return text

    return normalize
