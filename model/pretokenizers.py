"""How text is cut into pieces before byte-pair merging: the `pre_tokenizer` of a byte-level `tokenizer.json`.

A sequence of stages, each cutting the pieces of the one before. Where possible the last cut is left to tiktoken's
regular expression, which is several times faster than cutting here; `PreTokenizer.pieces` is the exact general way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from model.bpe import spell_bytes, unspell_bytes
from model.errors import TokenizerError

if TYPE_CHECKING:
    import regex

Behavior = Literal["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]
BEHAVIORS: tuple[Behavior, ...] = ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous")

# GPT-2's pattern (openai/gpt-2, encoder.py): contractions, letters, numbers, the rest, and blanks, of which the last
# one goes with the word behind it.
GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_BEHIND_A_WORD = re.compile(r"(?<=\w)(?=[ \n])")
PATTERN_SECONDS = 10.0  # a pattern from a file may need time that grows with the square of the text, or worse
DIGIT = r"\p{N}"
# Digits cut out one by one first, then GPT-2's pattern (SmolLM, StarCoder 2), as one expression: blanks in front of a
# digit stand at the end of their segment, so they stay together.
DIGITS_GPT2_PATTERN = (
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?=\p{N})|\s+(?!\S)|\s+"
)  # fmt: skip


@dataclass(frozen=True)
class Split:
    """Cut at every match of `pattern` (regex syntax), treating matches as `behavior` says; `invert`: at what lies
    between the matches."""

    pattern: str
    behavior: Behavior = "Isolated"
    invert: bool = False

    def pieces(self, text: str) -> list[str]:
        """Non-empty pieces in order, by the rules of `tokenizers`' SplitDelimiterBehavior."""
        parts: list[tuple[str, bool]] = []
        end = 0
        for start, stop in self._matches(text):
            if end < start:
                parts.append((text[end:start], self.invert))
            parts.append((text[start:stop], not self.invert))
            end = stop
        if end < len(text):
            parts.append((text[end:], self.invert))
        return _arrange(parts, self.behavior)

    def _matches(self, text: str) -> Iterable[tuple[int, int]]:
        try:
            spans = [match.span() for match in compiled(self.pattern).finditer(text, timeout=PATTERN_SECONDS)]
        except TimeoutError:
            raise TokenizerError(
                f"pre_tokenizer: the pattern {self.pattern!r} takes over {PATTERN_SECONDS} s on this text; shorten the text"
            ) from None
        return [(start, stop) for start, stop in spans if start < stop]


def _arrange(parts: Sequence[tuple[str, bool]], behavior: Behavior) -> list[str]:
    """(text, is a match) in order -> pieces."""
    if behavior == "Isolated":
        return [text for text, _ in parts]
    if behavior == "Removed":
        return [text for text, is_match in parts if not is_match]
    if behavior == "MergedWithNext":
        backwards = _arrange([(text[::-1], is_match) for text, is_match in reversed(parts)], "MergedWithPrevious")
        return [text[::-1] for text in reversed(backwards)]
    pieces: list[list[str]] = []
    before: bool | None = None
    for text, is_match in parts:
        joins = is_match == before if behavior == "Contiguous" else is_match and before is False
        if joins:
            pieces[-1].append(text)
        else:
            pieces.append([text])
        before = is_match
    return ["".join(piece) for piece in pieces]


@dataclass(frozen=True)
class ByteLevel:
    """Text becomes bytes here, one character each; with GPT-2's pattern first when `use_regex`, and a blank in front
    of a piece that has none when `add_prefix_space`."""

    add_prefix_space: bool = False
    use_regex: bool = True

    def pieces(self, text: str) -> list[str]:
        if self.add_prefix_space and not text.startswith(" "):
            text = " " + text
        pieces = Split(GPT2_PATTERN).pieces(text) if self.use_regex else [text]
        return [spell_bytes(piece.encode()) for piece in pieces]


Stage = Split | ByteLevel


class PreTokenizer:
    """The stages as a whole. Immutable.

    pattern: what tiktoken is to cut the `segments` by, None when only `pieces` is exact.
    tried: the pattern is one of ours, known to cope with long texts.
    parts_words: `cut_behind_words` is safe: no piece reaches across such a cut, and none looks across it.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._stages = tuple(stages)
        self._prefix = False
        self._early: tuple[Split, ...] = ()
        self.pattern = self._plan()
        self.tried = self.pattern in (GPT2_PATTERN, DIGITS_GPT2_PATTERN)
        self.parts_words = self.tried and not self._early and not self._prefix

    def _plan(self) -> str | None:
        *early, last = self._stages
        splits = [stage for stage in early if isinstance(stage, Split)]
        if not isinstance(last, ByteLevel) or len(splits) < len(early) or (splits and last.add_prefix_space):
            return None
        self._prefix = last.add_prefix_space
        if last.use_regex:
            if splits == [Split(DIGIT)]:
                return DIGITS_GPT2_PATTERN
            self._early = tuple(splits)
            return GPT2_PATTERN
        if not splits:
            return r"(?s:.+)"
        if splits[-1].behavior != "Isolated" or splits[-1].invert:
            return None
        self._early = tuple(splits[:-1])
        return _covering(splits[-1].pattern)

    def segments(self, text: str) -> Iterable[str]:
        """What tiktoken is to cut further by `pattern`."""
        if self._prefix and text and not text.startswith(" "):
            text = " " + text
        segments = [text]
        for stage in self._early:
            segments = [piece for segment in segments for piece in stage.pieces(segment)]
        return segments

    def pieces(self, text: str) -> Iterable[bytes]:
        """All stages, here."""
        pieces = [text] if text else []
        for stage in self._stages:
            pieces = [part for piece in pieces for part in stage.pieces(piece)]
        for piece in pieces:
            yield unspell_bytes(piece) or b""


def cut_behind_words(text: str, size: int) -> Iterator[str]:
    """`text` in parts of `size` characters or little more, cut between a letter or digit and the blank or line feed behind it;
    GPT-2's pattern finds the same pieces in the parts as in the whole."""
    start = 0
    while (end := _BEHIND_A_WORD.search(text, start + size)) is not None:
        yield text[start : end.start()]
        start = end.start()
    yield text[start:]


def _covering(pattern: str) -> str | None:
    """`pattern`, plus what lies between its matches (tiktoken would drop that); None if tiktoken can't read it."""
    import tiktoken

    whole = rf"(?:{pattern})|(?:(?!{pattern})[\s\S])+"
    try:
        tiktoken.Encoding("probe", pat_str=whole, mergeable_ranks={b"a": 0}, special_tokens={})
    except ValueError:
        return None
    return whole


@lru_cache(maxsize=64)
def compiled(pattern: str) -> regex.Pattern[str]:
    """`pattern` by the `regex` library. TokenizerError when it can't be read."""
    import regex

    # Set operations inside brackets, [a&&[^b]], exist in the library's version 1 syntax only.
    flags = regex.VERSION1 if "&&" in pattern else regex.VERSION0
    try:
        return regex.compile(pattern, flags)
    except regex.error as error:
        raise TokenizerError(f"pre_tokenizer: the pattern {pattern!r} can't be read: {error}") from None
