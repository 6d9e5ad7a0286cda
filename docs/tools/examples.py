"""The commands in a page's console blocks, and what is shown below each."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

_CONSOLE = re.compile(r"(?<=```console\n).*?(?=```)", re.DOTALL)


@dataclass(frozen=True)
class Example:
    """A command with its output as the page shows it. `at`, `end`: where the output stands in the page, its last newline within."""

    command: str
    shown: str
    at: int
    end: int


def examples(page: str) -> list[Example]:
    """All of a page's, in order. A command begins with `$ `; it goes on behind a backslash, in quotes and in a here-document."""
    found: list[Example] = []
    for block in _CONSOLE.finditer(page):
        starts = [match.start() for match in re.finditer(r"^\$ ", block[0], re.MULTILINE)]
        for start, end in zip(starts, [*starts[1:], len(block[0])], strict=True):
            length = _command_length(block[0][start:end])
            at = block.start() + start + length
            command = block[0][start + 2 : start + length].rstrip("\n")
            found.append(Example(command, page[at : block.start() + end].strip("\n"), at, block.start() + end))
    return found


def _command_length(text: str) -> int:
    """How many characters belong to the command, its newline counted."""
    length, until, here = 0, None, None
    for line in text.splitlines(keepends=True):
        length += len(line)
        bare = line.rstrip("\n")
        if until is not None:
            until = None if bare == until else until
        elif here := re.search(r"<<\s*'?(\w+)'?", bare):
            until = here[1]
        if until is None and (here or not (bare.endswith("\\") or _open_quotes(text[:length]))):
            break
    return length


def _open_quotes(command: str) -> bool:
    try:
        shlex.split(command)
    except ValueError:
        return True
    return False


def with_outputs(page: str, outputs: Mapping[Example, str]) -> str:
    """The page with these outputs in the places of those shown; an output of several paragraphs keeps its empty lines."""
    for example in sorted(outputs, key=lambda example: example.at, reverse=True):
        output = outputs[example].strip("\n")
        page = page[: example.at] + (output + "\n" if output else "") + page[example.end :]
    return page
