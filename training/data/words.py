"""A text's words, for telling documents apart: lower case, in blocks, so that a long document needs little memory."""

import hashlib
import re
from collections.abc import Iterator

_BLOCK = 1 << 16  # characters
_KNOWN = 1 << 20  # words


def word_blocks(text: str) -> Iterator[list[str]]:
    """The words of `text` in order, in lists of some ten thousand: what stands between white space, in lower case."""
    space = re.compile(r"\s")
    start = 0
    while start < len(text):
        match = space.search(text, start + _BLOCK)
        end = match.start() if match else len(text)
        yield text[start:end].lower().split()
        start = end


class WordHashes(dict[str, int]):
    """A word -> 64 bits, the same in every process; those met are kept, as long as they aren't too many."""

    def __missing__(self, word: str) -> int:
        if len(self) >= _KNOWN:
            self.clear()
        value = int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
        self[word] = value
        return value
