"""The n-gram models that stand beside a language model's figures: of a corpus that the user names, over the model's own tokens."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from model.tokenizer import Tokenizer
from training.data.readers import corpus_files, read_documents
from training.data.shards import MANIFEST, open_split, read_manifest
from training.devices import memory_free
from training.errors import DataError
from training.evaluate.corpus import tokenize_stream
from training.evaluate.ngram import BYTES_PER_TOKEN, KneserNey, NgramCounts
from training.evaluate.results import Baseline, Figure

ORDER = 5
LEFT_OUT = (
    "n-gram models are left out: they need a text to be counted on, best the model's own (--baseline-corpus PATH)"
)


class Ngrams:
    """N-gram models of a corpus, up to 5 tokens long; counted when first asked for. DataError at once when the corpus isn't there
    or is of no known kind."""

    def __init__(self, path: Path, tokenizer: Tokenizer, *, threads: int = 1) -> None:
        if not (path / MANIFEST).is_file():
            corpus_files([path])
        self.path, self._tokenizer, self._threads = path, tokenizer, threads

    @property
    def convention(self) -> str:
        """How the models are made, for a reader."""
        return f"interpolated modified Kneser-Ney (Chen and Goodman, 1999) over this model's tokens of {self.path.name}"

    def baseline(self, order: int, figures: Sequence[Figure]) -> Baseline:
        """What the model of that length reaches, to stand beside figures of the same names."""
        return Baseline.of(f"{order}-gram", figures, self.convention)

    @cached_property
    def longest(self) -> KneserNey:
        """The 5-gram model."""
        return self.model(ORDER)

    def model(self, order: int) -> KneserNey:
        """The model of `order` tokens, at most 5."""
        return KneserNey(self._counts, order)

    @cached_property
    def _counts(self) -> NgramCounts:
        tokens = self._tokens()
        need, free = len(tokens) * BYTES_PER_TOKEN, memory_free("cpu")
        if need > free:  # before hours of work are killed with the process
            raise DataError(
                f"{self.path}: n-gram models of its {len(tokens):,} tokens may need {need / 1e9:.1f} GB of memory, and "
                f"{free / 1e9:.1f} GB are free; end other programs, or name a part of the text"
            )
        return NgramCounts(tokens, ORDER, self._tokenizer.vocab_size)

    def _tokens(self) -> np.ndarray:
        if (self.path / MANIFEST).is_file():
            return self._shard()
        return tokenize_stream(read_documents(corpus_files([self.path])), self._tokenizer, threads=self._threads)

    def _shard(self) -> np.ndarray:
        """The training split of a shard directory. Its tokens must be this model's: its first document is encoded again."""
        tokens = np.asarray(open_split(self.path, "train")[:])
        ends = np.flatnonzero(tokens[1:] == tokens[0])
        first = tokens[1 : 1 + int(ends[0])] if len(ends) else tokens[1:]
        same = self._tokenizer.encode(self._tokenizer.decode(first.tolist())) == first.tolist()
        if not same or read_manifest(self.path).vocab_size > self._tokenizer.vocab_size:
            raise DataError(
                f"{self.path}: the shards are of another tokenizer than this model's; name the text itself instead"
            )
        return tokens
