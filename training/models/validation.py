"""The documents that the base's recipe kept back, as text to measure any model on: what they share with documents that it learned
from is taken out of them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from model.files import staged_directory, write_json
from model.tokenizer import Tokenizer
from training.data.held_out import HeldOut
from training.data.shards import Split, open_split
from training.data.tables import write_jsonl

DOCUMENTS, REPORT = "documents.jsonl", "report.json"


def write_validation(data: Path, directory: Path) -> Path:
    """Write `directory` with the validation split of a pretraining run's data (documents.jsonl), without the passages in which
    thirteen words in a row are those of a training document, and how much that is (report.json); return it.

    `data`: the run's, with tokenizer.json and shards/. DataError or CheckpointError names what can't be read.
    """
    tokenizer = Tokenizer.from_file(data / "tokenizer.json")
    kept_back = list(_documents(data / "shards", "validation", tokenizer))
    known = HeldOut(kept_back)
    shared = [
        text[start:end]
        for text in _documents(data / "shards", "train", tokenizer)
        for start, end in known.passages(text)
    ]
    seen = HeldOut(shared)
    parts = [part for text in kept_back for part in seen.cut(text)]
    given, left = (sum(len(text.encode()) for text in texts) for texts in (kept_back, parts))
    sharing = sum(bool(seen.passages(text)) for text in kept_back)
    report = {
        "documents": len(kept_back), "bytes": left, "documents that shared a passage": sharing, "bytes taken out": given - left,
    }  # fmt: skip
    with staged_directory(directory, overwrite=True) as stage:
        write_jsonl(({"text": part} for part in parts), stage / DOCUMENTS)
        write_json(stage / REPORT, report)
    return directory


def _documents(shards: Path, split: Split, tokenizer: Tokenizer) -> Iterator[str]:
    """A split's texts. Each stands behind the token that the split begins with."""
    tokens = open_split(shards, split)
    ids = np.asarray(tokens[:])
    starts = np.flatnonzero(ids == ids[0])
    for start, end in zip(starts, [*starts[1:], len(ids)], strict=True):
        yield tokenizer.decode(ids[start + 1 : end].tolist())
