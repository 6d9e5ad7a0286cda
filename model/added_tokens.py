"""Tokens that are looked for in the text itself, before it is cut and merged: special ones and merely added ones."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from model.normalizers import Normalizer

_NOT_WHITE_SPACE = "\x1c\x1d\x1e\x1f"  # str.isspace holds these separators for blanks, Unicode's White_Space doesn't


@dataclass(frozen=True)
class AddedToken:
    """One entry of `added_tokens`, with the meaning that `tokenizers` gives its fields."""

    id: int
    content: str
    special: bool = False
    single_word: bool = False  # only between characters that aren't part of a word
    lstrip: bool = False  # takes the blanks in front of it along
    rstrip: bool = False
    normalized: bool = False  # is looked for in normalized text


class AddedTokens:
    """Cuts text at added tokens. Immutable. `plain`: text without special tokens is left as it stands."""

    def __init__(self, tokens: Iterable[AddedToken], normalizer: Normalizer | None) -> None:
        tokens = tuple(tokens)
        self.plain = normalizer is None and all(token.special for token in tokens)
        self._special = _Finder([(token.content, token) for token in tokens if token.special or not token.normalized])
        self._normalizer = normalizer
        self._raw = _Finder([(token.content, token) for token in tokens if not token.normalized])
        normalize = normalizer or (lambda text: text)
        self._normalized = _Finder([(normalize(token.content), token) for token in tokens if token.normalized])

    def split(self, text: str, *, allow_special: bool) -> Iterator[str | int]:
        """The ids of added tokens and the (normalized) text between them, in order. Special ones only when allowed;
        otherwise their characters are text like any other."""
        for part in self._raw.split(text, allow_special=allow_special):
            if isinstance(part, int):
                yield part
                continue
            normalized = self._normalizer(part) if self._normalizer else part
            yield from self._normalized.split(normalized, allow_special=allow_special)

    def cut(self, text: str) -> Iterator[str | int]:
        """The same with special tokens allowed, but looking at the text as it stands: what lies between the tokens is
        not normalized."""
        return self._special.split(text, allow_special=True)


class _Finder:
    """Leftmost match, the longest where several begin; like `tokenizers`, a match that isn't taken still hides those
    that overlap it."""

    def __init__(self, tokens: Sequence[tuple[str, AddedToken]]) -> None:
        self._tokens = {content: token for content, token in tokens if content}
        self._only_special = all(token.special for token in self._tokens.values())
        longest_first = sorted(self._tokens, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)))

    def split(self, text: str, *, allow_special: bool) -> Iterator[str | int]:
        """The ids of the tokens found and the text between them, in order; special ones only when allowed."""
        done = 0
        if self._tokens and (allow_special or not self._only_special):
            for match in self._pattern.finditer(text):
                token = self._tokens[match.group()]
                start, end = match.span()
                if token.special and not allow_special:
                    continue
                if token.single_word and (_is_word(text[start - 1 : start]) or _is_word(text[end : end + 1])):
                    continue
                while token.lstrip and start > done and _is_blank(text[start - 1]):
                    start -= 1
                while token.rstrip and end < len(text) and _is_blank(text[end]):
                    end += 1
                if done < start:
                    yield text[done:start]
                yield token.id
                done = end
        if done < len(text):
            yield text[done:]


def _is_word(char: str) -> bool:
    return bool(re.match(r"\w", char))


def _is_blank(char: str) -> bool:
    return char.isspace() and char not in _NOT_WHITE_SPACE
