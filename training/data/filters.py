"""What of a corpus is left out: text that models are measured on, documents of the wrong length or kind of characters, repeats.

Documents stream through; what stays in memory is hashes of those kept: some 150 bytes a document for exact repeats, some 2 KB
for near ones, whatever the documents' length.
"""

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from training.data.account import Account, utf8_length
from training.data.held_out import held_out
from training.data.near import NearDuplicates
from training.data.words import word_blocks
from training.recipe import Section


class FilterSettings(Section):
    """Which documents are kept; by default all.

    `min_chars`, `max_chars`: length in characters. `min_letters`: the least share of letters among the characters that are no
    white space; prose has about 0.95, source code 0.7, tables of figures under 0.3. `max_odd`: the largest share of symbols,
    control and unassigned characters; text decoded wrongly, drawn boxes and formulas have many, prose under 0.01.
    `dedup`: "exact" leaves out a document whose words are those of an earlier one, in order, letter case aside; "near" also one
    that shares at least about `near_threshold` of its runs of five words with an earlier one (Jaccard similarity, estimated).
    `held_out`: files of text that models are measured on; passages of it are cut out of the documents (training.data.held_out),
    before all else.
    """

    min_chars: int = Field(default=0, ge=0)
    max_chars: int | None = Field(default=None, ge=1)
    min_letters: float = Field(default=0.0, ge=0, le=1)
    max_odd: float = Field(default=1.0, ge=0, le=1)
    dedup: Literal["none", "exact", "near"] = "none"
    near_threshold: float = Field(default=0.8, ge=0.3, le=0.99)
    held_out: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _lengths_leave_room(self) -> "FilterSettings":
        if self.max_chars is not None and self.max_chars < self.min_chars:
            raise ValueError(
                f"max_chars ({self.max_chars}) is below min_chars ({self.min_chars}): nothing would be kept"
            )
        return self


def filtered(documents: Iterable[str], settings: FilterSettings, account: Account) -> Iterator[str]:
    """The documents that `settings` keep, in their order; the first of several alike. `account` gets every document counted."""
    account.settings = settings.model_dump(mode="json")
    seen = _Seen(settings)
    for text in _without_held_out(documents, settings.held_out, account) if settings.held_out else documents:
        if reason := _unfit(text, settings) or seen.repeat(text):
            account.drop(reason, text)
        else:
            account.kept.add(text)
            yield text


def _without_held_out(documents: Iterable[str], files: Sequence[str], account: Account) -> Iterator[str]:
    """The documents, those with held-out text in the parts that are left of them."""
    known = held_out(files)
    for text in documents:
        parts = known.cut(text)
        if parts != [text]:
            account.cut.documents += 1
            account.cut.bytes += utf8_length(text) - sum(map(utf8_length, parts))
        yield from parts


def _unfit(text: str, settings: FilterSettings) -> str | None:
    """Why the document by itself is left out."""
    if len(text) < settings.min_chars:
        return f"shorter than {settings.min_chars:,} characters"
    if settings.max_chars is not None and len(text) > settings.max_chars:
        return f"longer than {settings.max_chars:,} characters"
    if settings.min_letters > 0 or settings.max_odd < 1:
        letters, odd = character_shares(text)
        if letters < settings.min_letters:
            return f"under {settings.min_letters:.0%} letters"
        if odd > settings.max_odd:
            return f"over {settings.max_odd:.0%} odd characters"
    return None


class _Seen:
    """The documents kept so far, as far as repeats are looked for."""

    def __init__(self, settings: FilterSettings) -> None:
        self._hashes: set[bytes] | None = set() if settings.dedup == "exact" else None
        self._near = NearDuplicates(settings.near_threshold) if settings.dedup == "near" else None

    def repeat(self, text: str) -> str | None:
        """Why the document is left out; None, and it is remembered, when it repeats none."""
        if self._near is not None:
            return None if self._near.add(text) else "near repeat of an earlier document"
        if self._hashes is not None:
            digest = _hash_of_words(text)
            if digest in self._hashes:
                return "repeat of an earlier document"
            self._hashes.add(digest)
        return None


def _hash_of_words(text: str) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for words in word_blocks(text):
        digest.update("".join(f"{word} " for word in words).encode())
    return digest.digest()


def character_shares(text: str) -> tuple[float, float]:
    """The shares of letters (with their marks) and of odd characters (symbols, control, unassigned) among the characters that
    are no white space; (0, 0) when there are none."""
    counts = np.zeros(4, np.int64)
    for start in range(0, len(text), 1 << 20):
        codes = np.frombuffer(text[start : start + (1 << 20)].encode("utf-32-le", "surrogatepass"), np.uint32)
        counts += np.bincount(_kinds()[codes], minlength=4)
    visible = max(1, int(counts[1:].sum()))
    return float(counts[1] / visible), float(counts[2] / visible)


@cache
def _kinds() -> np.ndarray:
    """What each code point is, [0x110000] uint8: 0 white space, 1 a letter or its mark, 2 odd, 3 digits and punctuation."""
    kinds = {"L": 1, "M": 1, "S": 2, "C": 2, "Z": 0}
    codes = map(chr, range(0x110000))
    return np.array([0 if c.isspace() else kinds.get(unicodedata.category(c)[0], 3) for c in codes], np.uint8)
