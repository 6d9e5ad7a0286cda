"""What keeps a translation true to its original.

Blocks and sections that a program wrote are the original's, and `updated` puts them in place. Only their comments are
translated: in ```sh blocks what stands behind ` # `, in blocks of no language what stands behind a line's first word.
The rest is prose. A program can't translate it, but notices that the original's has changed: the translation names a
digest of the prose that it was made from.
"""

import hashlib
import posixpath
import re
from collections import defaultdict
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import takewhile

TRANSLATIONS = {"docs/pt/README.md": "README.md", "docs/pt/tour.md": "docs/tour.md"}
_BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
_GENERATED = re.compile(r"<!-- (?P<name>\w+): begin.*?<!-- (?P=name): end -->", re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#)[^)\s]+(?=\))")
_BEHIND = {"sh": re.compile(r"(?:^|\s+)# "), "": re.compile(r"(?<=\S) +(?=\S)")}
_STAMP = re.compile(r"\n*<!-- prose of \S+ at (\w+).*?-->\n*")


class TranslationError(Exception):
    """A translation that a program can't bring up to date; the message names the file and the block."""


@dataclass(frozen=True)
class Page:
    """A document. `name`: its path from the repository's root, with slashes."""

    name: str
    text: str


@dataclass(frozen=True)
class Block:
    """A fenced block. `at`, `end`: where its body stands in the page."""

    language: str
    body: str
    at: int
    end: int

    @property
    def title(self) -> str:
        """What tells it from others in a message: its language and its first line, without what may be translated."""
        return f"{self.language or 'plain'}: {_parts(self.body.partition(chr(10))[0], self.language)[0].strip()}"


def blocks(text: str) -> list[Block]:
    """All fenced blocks of a page, in order, but for those in generated sections."""
    generated = [found.span() for found in _GENERATED.finditer(text)]
    return [
        Block(found["language"], found["body"], *found.span("body"))
        for found in _BLOCK.finditer(text)
        if not any(start < found.start() < end for start, end in generated)
    ]


def written(text: str) -> str:
    """The page without blocks, generated sections and HTML comments: headings, paragraphs and tables."""
    return _COMMENT.sub("", _GENERATED.sub("", _BLOCK.sub("", text)))


def links(page: Page) -> list[str]:
    """Where the relative links of the page's text lead, as paths from the repository's root, in order."""
    return [_from_root(target, page.name) for target in _LINK.findall(written(page.text))]


def stamp(original: Page) -> str:
    """A digest of all that is to be translated. A line broken elsewhere, or a line that only links to a translation, doesn't
    change it."""
    comments = [_parts(line, block.language)[2] for block in blocks(original.text) for line in block.body.splitlines()]
    lines = (line for line in written(original.text).splitlines() if not _links_to_translation(line, original.name))
    words = " ".join([*lines, *comments]).split()
    return hashlib.sha256(" ".join(words).encode()).hexdigest()[:12]


def stamp_in(translation: Page) -> str | None:
    """The digest that the translation names; None if it names none."""
    found = _STAMP.search(translation.text)
    return found[1] if found else None


def stamped(translation: Page, original: Page) -> str:
    """The translation's text, naming the original's prose as it is now: for who has just brought the translation up to it."""
    body = _STAMP.sub("\n", translation.text).rstrip("\n")
    comment = f"prose of {original.name} at {stamp(original)}; written by python -m docs.refresh --translations"
    return f"{body}\n\n<!-- {comment} -->\n"


def updated(translation: Page, original: Page) -> str:
    """The translation's text with the original's blocks and generated sections as they are now. TranslationError names what has no
    counterpart."""
    text = translation.text
    for ours, theirs in reversed(_pairs(translation, original)):
        body = _merged(theirs, ours) if theirs.language in _BEHIND else theirs.body
        text = text[: ours.at] + body + text[ours.end :]
    sections = {found["name"]: found[0] for found in _GENERATED.finditer(original.text)}
    names = [found["name"] for found in _GENERATED.finditer(text)]
    if names != list(sections):
        raise TranslationError(
            f"{translation.name}: its generated sections are {names}, those of {original.name} {list(sections)}"
        )
    return _GENERATED.sub(lambda found: _moved(sections[found["name"]], original.name, translation.name), text)


def _pairs(translation: Page, original: Page) -> list[tuple[Block, Block]]:
    """The translation's blocks, each with the original's."""
    ours, theirs = blocks(translation.text), blocks(original.text)
    if [block.language for block in ours] == [block.language for block in theirs]:
        return list(zip(ours, theirs, strict=True))
    titles = [block.title for block in theirs], [block.title for block in ours]
    for _, at, until, here, end in SequenceMatcher(None, *titles, autojunk=False).get_opcodes():
        pairs = zip(theirs[at:until], ours[here:end], strict=False)
        same = len(list(takewhile(lambda pair: pair[0].language == pair[1].language, pairs)))
        if at + same < until:
            missing = f"block {at + same + 1} of {original.name} ({titles[0][at + same]}) is missing"
            raise TranslationError(f"{translation.name}: {missing}")
        if here + same < end:
            extra = f"block {here + same + 1} ({titles[1][here + same]}) isn't in {original.name}"
            raise TranslationError(f"{translation.name}: {extra}")
    raise AssertionError("the languages are the same")


def _merged(theirs: Block, ours: Block) -> str:
    """The original's lines with the translation's comments, where it has one to the same command."""
    said: defaultdict[str, list[str]] = defaultdict(list)
    for line in ours.body.splitlines():
        command, _, comment = _parts(line, ours.language)
        said[command.strip()].append(comment)
    lines: list[str] = []
    for line in theirs.body.splitlines():
        command, between, comment = _parts(line, theirs.language)
        if comment and said[command.strip()]:
            comment = said[command.strip()].pop(0) or comment
        lines.append(command + between + comment)
    return "".join(line + "\n" for line in lines)


def _parts(line: str, language: str) -> tuple[str, str, str]:
    """A block's line: what stays, what stands between, and what is translated."""
    found = _BEHIND[language].search(line) if language in _BEHIND else None
    return (line[: found.start()], found[0], line[found.end() :]) if found else (line, "", "")


def _moved(section: str, original: str, translation: str) -> str:
    """A section with links that are right in the translation, to translations where there are some."""
    here = posixpath.dirname(translation)
    translated = {theirs: ours for ours, theirs in TRANSLATIONS.items() if posixpath.dirname(ours) == here}

    def target(found: re.Match[str]) -> str:
        path, mark, anchor = _from_root(found[0], original).partition("#")
        return posixpath.relpath(translated.get(path, path), here) + mark + anchor

    return _LINK.sub(target, section)


def _from_root(target: str, name: str) -> str:
    """Where a relative link of a page leads, as a path from the repository's root."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), target))


def _links_to_translation(line: str, name: str) -> bool:
    """Whether the line is nothing but a link to a translation of the page."""
    found = re.fullmatch(r"[*_]*\[[^\]]*\]\(([^)]*)\)[*_]*", line.strip())
    return found is not None and TRANSLATIONS.get(_from_root(found[1], name)) == name
