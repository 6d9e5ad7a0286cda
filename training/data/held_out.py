"""Text that must not be learned from: the sets that a model is measured on, found in a corpus by runs of thirteen words and cut
out of it (Brown et al., 2020, appendix C: the passage and 200 characters to each side go, what stands around it stays).

A word is a run of letters and digits, in lower case, so that spacing and punctuation hide nothing. Shorter texts than thirteen
words can't be told from chance and are not looked for.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from training.data.archives import DAMAGED, open_bytes, plain_suffix
from training.data.words import WordHashes
from training.errors import DataError

RUN = 13  # words
MARGIN = 200  # characters
_WORD = re.compile(r"[^\W_]+")


class HeldOut:
    """The runs of words of all held-out texts, as sorted 64-bit hashes."""

    def __init__(self, texts: Iterable[str], *, run: int = RUN) -> None:
        """`run`: words that a text must share with one of `texts` to be known by."""
        self._words, self._run = WordHashes(), run
        self._mix = (
            np.random.default_rng(13).integers(1 << 63, size=run, dtype=np.uint64) * 2 + 1
        )  # odd: nothing is lost
        runs = [self._runs(text) for text in texts]
        self._known = np.unique(np.concatenate(runs)) if runs else np.empty(0, np.uint64)

    def __len__(self) -> int:
        """The number of different runs."""
        return len(self._known)

    def passages(self, text: str) -> list[tuple[int, int]]:
        """Where held-out text stands: from which character to which, in order, none touching another."""
        runs = self._runs(text)
        if not len(runs) or not len(self._known):
            return []
        places = np.searchsorted(self._known, runs).clip(max=len(self._known) - 1)
        hits = np.flatnonzero(self._known[places] == runs)
        if not len(hits):
            return []
        words = [match.span() for match in _WORD.finditer(text)]
        found: list[tuple[int, int]] = []
        for first in hits.tolist():
            start, end = words[first][0], words[first + self._run - 1][1]
            if found and start <= found[-1][1]:
                found[-1] = (found[-1][0], end)
            else:
                found.append((start, end))
        return found

    def cut(self, text: str) -> list[str]:
        """What is left of a text: its parts before, between and after the passages and their margins; [text] when there are
        none."""
        passages = self.passages(text)
        if not passages:
            return [text]
        parts, done = [], 0
        for start, end in passages:
            parts.append(text[done : max(done, start - MARGIN)])
            done = end + MARGIN
        return [part for part in (*parts, text[done:]) if part.strip()]

    def _runs(self, text: str) -> np.ndarray:
        """A hash for each run of words, [words - run + 1] uint64 (empty for a shorter text)."""
        words = [word.lower() for word in _WORD.findall(text)]
        count = len(words) - self._run + 1
        if count < 1:
            return np.empty(0, np.uint64)
        hashes = np.fromiter(map(self._words.__getitem__, words), np.uint64, len(words))
        return sum((hashes[k : k + count] * self._mix[k] for k in range(self._run)), np.zeros(count, np.uint64))


def held_out(files: Sequence[str | Path]) -> HeldOut:
    """The texts of `files`: the whole of a .txt, every line of a .tsv or .csv, every string of a .json or .jsonl (each also .gz,
    .xz or .zst). DataError names a file that isn't there, is damaged or of another kind."""
    return HeldOut(text for file in files for text in _texts(Path(file)))


def _texts(path: Path) -> Iterator[str]:
    kind = plain_suffix(path)
    if kind not in (".txt", ".tsv", ".csv", ".json", ".jsonl"):
        raise DataError(f"{path}: not a .txt, .tsv, .csv, .json or .jsonl file; held-out text is read from these")
    try:
        with open_bytes(path) as file:
            content = file.read().decode()
        if kind == ".txt":
            yield content
        elif kind == ".json":
            yield from _strings(json.loads(content))
        elif kind == ".jsonl":
            for line in content.splitlines():
                yield from _strings(json.loads(line) if line.strip() else None)
        else:
            yield from content.splitlines()
    except (*DAMAGED, OSError, ValueError) as error:
        raise DataError(f"{path}: held-out text that can't be read ({error})") from None


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
