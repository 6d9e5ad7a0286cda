"""Keeping what a person wrote apart from the special tokens that a template writes around it."""

from __future__ import annotations

import re
from collections.abc import Iterable

_FIRST_STAND_IN = 0xF0000  # a private-use plane: letters of no script, changed by no template


class Disguise:
    """Replaces single characters of a text so that nothing in it reads as a special token, whatever is put around it.

    One character is enough: the first one of a token's spelling. That covers tokens written out in full (in any case, for
    templates that change it), a text that ends in the beginning of one or begins with the end of one, and a text that is
    the middle of one. Blanks are left alone, since templates trim. `undo` maps the stand-ins back (`str.translate`).
    """

    def __init__(self, special_tokens: Iterable[str], taken: Iterable[str]) -> None:
        """`taken`: all texts that the stand-ins must differ from."""
        self.undo: dict[int, str] = {}
        self._stand_ins: dict[str, str] = {}
        tokens = sorted({_lower(token) for token in special_tokens if token.strip()}, key=len, reverse=True)
        self._tokens = tokens
        self._longest = max(map(len, tokens), default=0)
        self._beginnings = {token[:n] for token in tokens for n in range(1, len(token))}
        self._ends = {token[n:] for token in tokens for n in range(1, len(token))}
        firsts = "".join(sorted({re.escape(token[0]) for token in tokens}))
        # Looks ahead only, so that overlapping ones are all found; the class in front makes the usual case fast.
        self._spelled = re.compile(rf"(?=[{firsts}])(?={'|'.join(map(re.escape, tokens))})") if tokens else None
        self._used = {ord(char) for text in taken for char in set(text)}

    def __call__(self, text: str) -> str:
        if self._spelled is None or not text:
            return text
        lower = _lower(text)
        spots = {match.start() for match in self._spelled.finditer(lower)}
        spots |= self._at_the_edges(lower)
        if not spots:
            return text
        chars = list(text)
        for spot in spots:
            while spot < len(chars) - 1 and chars[spot].isspace():
                spot += 1
            chars[spot] = self._stand_in(chars[spot])
        return "".join(chars)

    def _at_the_edges(self, lower: str) -> set[int]:
        spots: set[int] = set()
        start, end = len(lower) - len(lower.lstrip()), len(lower.rstrip())
        for first, last in ((0, len(lower)), (start, end)):  # as it is, and as a template may trim it
            core = lower[first:last]
            longest = min(len(core), self._longest - 1)
            spots |= {last - n for n in range(1, longest + 1) if core[-n:] in self._beginnings}
            if any(core[:n] in self._ends for n in range(1, longest + 1)):
                spots.add(first)
            if core and len(core) < self._longest and any(core in token for token in self._tokens):
                spots.add(first)
        return spots

    def _stand_in(self, char: str) -> str:
        if char not in self._stand_ins:
            code = _FIRST_STAND_IN + len(self.undo)
            while code in self._used or code in self.undo:
                code += 1
            self._stand_ins[char] = chr(code)
            self.undo[code] = char
        return self._stand_ins[char]


def _lower(text: str) -> str:
    """Lower case, character for character, so that positions stay."""
    return text.lower() if text.isascii() else "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
