"""A text's words, for telling documents apart: lower case, in blocks, so that a long document needs little memory."""

import re
from collections.abc import Iterator

_BLOCK = 1 << 16  # characters


def word_blocks(text: str) -> Iterator[list[str]]:
    """The words of `text` in order, in lists of some ten thousand: what stands between white space, in lower case."""
    space = re.compile(r"\s")
    start = 0
    while start < len(text):
        match = space.search(text, start + _BLOCK)
        end = match.start() if match else len(text)
        yield text[start:end].lower().split()
        start = end
