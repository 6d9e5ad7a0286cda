"""Near duplicates by MinHash (Broder, 1997; library `datasketch`) and banded buckets (locality-sensitive hashing; Leskovec,
Rajaraman and Ullman, Mining of Massive Datasets, chapter 3), every match checked against the sketches themselves.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from training.data.words import WordHashes, word_blocks
from training.errors import DataError

if TYPE_CHECKING:
    from datasketch import MinHash

SHINGLE = 5  # words
_PERMUTATIONS = 128  # the estimated similarity has a standard error of 0.044 at most
_BLOCK = 512  # shingles sketched at a time: what they are permuted to fits a core's cache
_MIX = np.random.default_rng(0).integers(1 << 63, size=SHINGLE + 1, dtype=np.uint64) * 2 + 1  # odd, so nothing is lost


class NearDuplicates:
    """The documents seen so far, as sketches."""

    def __init__(self, threshold: float) -> None:
        """`threshold`: the similarity from which on two documents are alike: Jaccard, of their sets of runs of five words."""
        try:
            from datasketch import MinHash
        except ImportError:
            raise DataError('dedup = "near" needs the package datasketch; pip install datasketch') from None
        self._least = threshold * _PERMUTATIONS
        self._empty = MinHash(_PERMUTATIONS, hashfunc=_itself)
        self._bands = _bands(threshold)
        self._buckets: dict[int, int] = {}  # hash of a band -> the first document that has it
        self._sketches = bytearray()  # [documents, permutations] uint32
        self._words = WordHashes()

    def add(self, text: str) -> bool:
        """Whether the document is unlike all before it; then it counts as one of them from now on."""
        data = self._sketch(text).tobytes()
        keys = [hash((i, data[band])) for i, band in enumerate(self._bands)]
        if any(self._alike(data, number) for number in {self._buckets[key] for key in keys if key in self._buckets}):
            return False
        number = len(self._sketches) // len(data)
        for key in keys:
            self._buckets.setdefault(key, number)
        self._sketches += data
        return True

    def _alike(self, data: bytes, number: int) -> bool:
        other = self._sketches[number * len(data) : (number + 1) * len(data)]
        same = np.frombuffer(data, np.uint32) == np.frombuffer(other, np.uint32)
        return int(np.count_nonzero(same)) >= self._least

    def _sketch(self, text: str) -> np.ndarray:
        """[permutations] uint32."""
        sketch, hashes, n_words = self._empty.copy(), np.empty(0, np.uint64), 0
        for words in word_blocks(text):
            hashes = np.concatenate([hashes, np.fromiter(map(self._words.__getitem__, words), np.uint64, len(words))])
            n_words += len(words)
            if len(hashes) >= SHINGLE:
                _update(sketch, hashes)
                hashes = hashes[1 - SHINGLE :]
        if n_words < SHINGLE:  # too short for one shingle: it is one itself
            _update(sketch, np.concatenate([hashes, np.zeros(SHINGLE - len(hashes), np.uint64)]))
        return sketch.hashvalues


@cache
def _bands(threshold: float) -> list[slice]:
    """Where each band lies in a sketch's bytes. Documents alike should meet in one: a miss weighs more than a match too many,
    which is found out. (The library's own index holds a set for each bucket: twice the memory of what is kept here.)"""
    from datasketch import MinHashLSH

    best = MinHashLSH(threshold, _PERMUTATIONS, weights=(0.1, 0.9))
    return [slice(4 * best.r * i, 4 * best.r * (i + 1)) for i in range(best.b)]


def _update(sketch: MinHash, words: np.ndarray) -> None:
    """Put the shingles of consecutive words (their hashes, [n] uint64, n at least SHINGLE) into a sketch."""
    count = len(words) - SHINGLE + 1
    shingles = sum((words[k : k + count] * _MIX[k] for k in range(SHINGLE)), np.zeros(count, np.uint64))
    shingles = ((shingles ^ (shingles >> 32)) * _MIX[SHINGLE] >> 32).astype(np.uint32)
    for start in range(0, count, _BLOCK):
        sketch.update_batch(shingles[start : start + _BLOCK].tolist())


def _itself(value: int) -> int:
    return value
