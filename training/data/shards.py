"""Documents -> token shards on disk, memory-mapped when read.

A split is a run of token ids: every document behind one `<|endoftext|>`. Which documents are for validation follows from each
document's own text and the seed, so it is chosen once and adding documents moves none between the splits. Memory does not grow
with the corpus; it takes the longest document some four times over.
"""

import hashlib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from model.files import file_sha256, read_json, staged_directory, write_json
from model.tokenizer import Tokenizer
from training.data.account import Account, utf8_length
from training.data.readers import Corpus
from training.data.token_files import MAX_TOKENS, TokenFile, TokenView, TokenWriter
from training.data.tokenizing import tokenized
from training.errors import DataError

Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = ("train", "validation")
MANIFEST = "manifest.json"


@dataclass
class SplitCounts:
    """What one split holds. `bytes` are of UTF-8 text, without the end-of-text tokens."""

    documents: int = 0
    tokens: int = 0
    bytes: int = 0
    files: list[TokenFile] = field(default_factory=list)

    @property
    def sha256(self) -> str:
        """One hash over those of the files: two splits with the same have the same tokens."""
        return hashlib.sha256("".join(file.sha256 for file in self.files).encode()).hexdigest()


@dataclass(frozen=True)
class SourceFile:
    """What documents came from; `bytes` and `sha256` are of the file as it lies on the disk, None of what is no file."""

    name: str
    bytes: int | None = None
    sha256: str | None = None


@dataclass
class Manifest:
    """What a shard directory holds and what it was made from. `account`: what became of the documents, see Account; `asked`: what
    else was asked for, by name."""

    tokenizer_sha256: str
    vocab_size: int
    dtype: str
    seed: int
    validation_fraction: float
    sources: list[SourceFile] = field(default_factory=list)
    account: dict[str, Any] = field(default_factory=dict)
    splits: dict[Split, SplitCounts] = field(default_factory=dict)
    asked: dict[str, Any] = field(default_factory=dict)

    @property
    def corpus(self) -> list[str]:
        """The names of the sources."""
        return [source.name for source in self.sources]


def write_shards(
    documents: Iterable[str],
    tokenizer_file: Path,
    directory: Path,
    *,
    corpus: Sequence[Corpus | str],
    validation_fraction: float,
    seed: int,
    threads: int,
    account: Account | None = None,
    asked: Mapping[str, Any] | None = None,
    max_tokens: int = MAX_TOKENS,
) -> Manifest:
    """Tokenise `documents` into `directory`, whole or not at all, and return its manifest.

    `corpus`: what the documents are read from, for the manifest: a file with its size and its SHA-256, found while others are
    tokenised; anything else by name. `account`: what became of the documents before they came here, complete once they are read.
    `asked`: what a later run is to compare, as JSON. `max_tokens` of one shard file. A corpus of one document has its end for
    validation, from a line's start on.
    DataError when a split gets no document, or the disk is full.
    """
    tokenizer = Tokenizer.from_file(tokenizer_file)
    dtype = np.dtype(np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32)
    manifest = Manifest(file_sha256(tokenizer_file), tokenizer.vocab_size, dtype.name, seed, validation_fraction)
    manifest.splits, manifest.asked = {split: SplitCounts() for split in SPLITS}, dict(asked or {})
    hashing = ThreadPoolExecutor(1)
    try:
        with staged_directory(directory, overwrite=True) as stage:
            sources = [hashing.submit(describe, source) for source in corpus]
            writers: dict[Split, TokenWriter] = {
                split: TokenWriter(stage, split, dtype, max_tokens) for split in SPLITS
            }
            _write(writers, tokenized(_placed(documents, manifest), tokenizer, threads=threads), manifest)
            manifest.sources = [source.result() for source in sources]
            manifest.account = {} if account is None else asdict(account)
            write_json(stage / MANIFEST, asdict(manifest))
    except OSError as error:
        raise DataError(
            f"{directory}: the token shards can't be written ({error.strerror or error}); make room or name another directory. "
            "Nothing of them was kept"
        ) from None
    finally:
        hashing.shutdown(wait=False, cancel_futures=True)
    return manifest


def _write(
    writers: dict[Split, TokenWriter], runs: Generator[dict[Split, np.ndarray], None, None], manifest: Manifest
) -> None:
    """Tokens into the files of their splits, counted."""
    with ExitStack() as cleanup:
        cleanup.enter_context(closing(runs))
        for writer in writers.values():
            cleanup.callback(writer.abandon)
        for split, tokens in chain.from_iterable(run.items() for run in runs):
            writers[split].write(tokens)
            manifest.splits[split].tokens += len(tokens)
        for split, counts in manifest.splits.items():
            if not counts.documents:
                raise DataError(
                    f"the {split} split got no document: give more documents or another validation_fraction"
                )
            writers[split].close()
            counts.files = writers[split].files


def describe(source: Corpus | str) -> SourceFile:
    """A file by its name, size and hash; a data set of the Hub, or a mere name, by its name."""
    if isinstance(source, Path):
        return SourceFile(source.name, source.stat().st_size, file_sha256(source))
    return SourceFile(str(source))


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a shard directory. DataError names the file when it can't be used."""
    path = directory / MANIFEST
    content = read_json(path, DataError)
    try:
        splits = {}
        for name, counts in content.pop("splits").items():
            splits[name] = SplitCounts(**{**counts, "files": [TokenFile(**file) for file in counts["files"]]})
        sources = [SourceFile(**source) for source in content.pop("sources")]
        return Manifest(**content, sources=sources, splits=splits)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"{path}: not a readable manifest ({error}); delete the directory and prepare the data again"
        ) from None


def open_split(directory: Path, split: Split, *, verify: bool = False) -> TokenView:
    """The tokens of a split, [n] uint16 or uint32, memory-mapped. DataError names the shard that is missing or of another size
    than the manifest says or, with `verify` (which reads all of it), of another content."""
    manifest = read_manifest(directory)
    return TokenView(directory, manifest.splits[split].files, np.dtype(manifest.dtype), verify=verify)


def split_of(text: str, validation_fraction: float, seed: int) -> Split:
    """Which split a document belongs to: a hash of it against the fraction."""
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=str(seed).encode()).digest()
    return "validation" if int.from_bytes(digest, "big") < validation_fraction * 2**64 else "train"


def _placed(documents: Iterable[str], manifest: Manifest) -> Iterator[tuple[Split, str]]:
    """The documents with the split of each, counted as they pass."""
    with tqdm(desc="tokenising", unit="B", unit_scale=True, disable=None) as progress:
        for split, text in _with_splits(documents, manifest.validation_fraction, manifest.seed):
            length = utf8_length(text)
            manifest.splits[split].documents += 1
            manifest.splits[split].bytes += length
            progress.update(length)
            yield split, text


def _with_splits(documents: Iterable[str], fraction: float, seed: int) -> Iterator[tuple[Split, str]]:
    documents = iter(documents)
    first = list(islice(documents, 2))
    if len(first) == 1:
        text = first.pop()
        at = len(text) - round(fraction * len(text))
        at = text.rfind("\n", 0, at) + 1 or at
        yield "train", text[:at].strip()
        if rest := text[at:].strip():
            yield "validation", rest
    for text in chain(first, documents):
        yield split_of(text, fraction, seed), text
