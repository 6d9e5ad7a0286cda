"""Documents -> token shards on disk, memory-mapped when read.

A split is a run of token ids: every document behind one `<|endoftext|>`. Which documents are for validation follows from each
document's own text and the seed, so it is chosen once and adding documents moves none between the splits.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from tqdm import tqdm

from model.files import file_sha256, staged_directory, write_json
from model.tokenizer import Tokenizer
from training.errors import DataError

Split = Literal["train", "validation"]
MANIFEST = "manifest.json"
_BATCH = 64  # documents tokenised at a time: bounds memory however large the corpus


@dataclass
class SplitCounts:
    """What one split holds. `bytes` are of UTF-8 text, without the end-of-text tokens; `sha256` is of the shard file."""

    documents: int = 0
    tokens: int = 0
    bytes: int = 0
    sha256: str = ""


@dataclass
class Manifest:
    """What a shard directory holds and what it was made from."""

    tokenizer_sha256: str
    vocab_size: int
    dtype: str
    seed: int
    validation_fraction: float
    corpus: list[str]
    splits: dict[str, SplitCounts] = field(default_factory=dict)


def write_shards(
    documents: Iterable[str],
    tokenizer_file: Path,
    directory: Path,
    *,
    corpus: list[str],
    validation_fraction: float,
    seed: int,
    threads: int,
) -> Manifest:
    """Tokenise `documents` into `directory` (whole or not at all) and return its manifest.

    DataError when a split gets no document.
    """
    tokenizer = Tokenizer.from_file(tokenizer_file)
    dtype = np.dtype(np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32)
    manifest = Manifest(
        file_sha256(tokenizer_file), tokenizer.vocab_size, dtype.name, seed, validation_fraction, corpus
    )
    splits: tuple[Split, ...] = ("train", "validation")
    with staged_directory(directory, overwrite=True) as stage:
        files: dict[Split, BinaryIO] = {split: (stage / f"{split}.bin").open("wb") for split in splits}
        manifest.splits = {split: SplitCounts() for split in splits}
        try:
            for texts in tqdm(_batched(documents), desc="tokenising", unit=" x 64 documents", disable=None):
                for text, ids in zip(texts, tokenizer.encode_batch(texts, threads=threads), strict=True):
                    split = split_of(text, validation_fraction, seed)
                    np.asarray([_eot(tokenizer), *ids], dtype=dtype).tofile(files[split])
                    counts = manifest.splits[split]
                    counts.documents += 1
                    counts.tokens += len(ids) + 1
                    counts.bytes += len(text.encode())
        finally:
            for file in files.values():
                file.close()
        for split in splits:
            if not manifest.splits[split].documents:
                raise DataError(
                    f"the {split} split got no document: give more documents or another validation_fraction"
                )
            manifest.splits[split].sha256 = file_sha256(stage / f"{split}.bin")
        write_json(stage / MANIFEST, asdict(manifest))
    return manifest


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a shard directory. DataError names the file when it can't be used."""
    path = directory / MANIFEST
    try:
        content = json.loads(path.read_text("utf-8"))
        splits = {name: SplitCounts(**counts) for name, counts in content.pop("splits").items()}
        return Manifest(**content, splits=splits)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{path}: not a readable manifest ({error}); delete the directory and prepare the data again"
        ) from None


def open_split(directory: Path, split: Split) -> np.ndarray:
    """The tokens of a split, [n] uint16 or uint32, memory-mapped. DataError when the file's size isn't the manifest's."""
    manifest = read_manifest(directory)
    path, dtype = directory / f"{split}.bin", np.dtype(manifest.dtype)
    expected = manifest.splits[split].tokens * dtype.itemsize
    if not path.is_file() or path.stat().st_size != expected:
        raise DataError(f"{path}: missing or not {expected} bytes long; delete {directory} and prepare the data again")
    return np.memmap(path, dtype=dtype, mode="r")


def split_of(text: str, validation_fraction: float, seed: int) -> Split:
    """Which split a document belongs to: a hash of its text against the fraction."""
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=str(seed).encode()).digest()
    return "validation" if int.from_bytes(digest, "big") < validation_fraction * 2**64 else "train"


def _eot(tokenizer: Tokenizer) -> int:
    if tokenizer.eos_token_id is None:
        raise DataError("the tokenizer has no end-of-text token; shards need one to part documents")
    return tokenizer.eos_token_id


def _batched(documents: Iterable[str]) -> Iterator[list[str]]:
    iterator = iter(documents)
    while batch := list(islice(iterator, _BATCH)):
        yield batch
