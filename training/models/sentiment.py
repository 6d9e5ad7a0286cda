"""The bundled sentiment classifier's rows: SST-2's phrases and rt-polarity's sentences, which are of the same film reviews.

SST-2 was made from rt-polarity's sentences, so that rows of one set can be test rows of the other: what trains, what chooses the
weights and what tests is parted by shared runs of words, and each sentence with all its phrases is on one side alone.
"""

import random
from collections.abc import Iterable, Sequence
from pathlib import Path

from model.files import staged_directory, write_json
from training.data.held_out import HeldOut
from training.data.tables import read_rows, write_jsonl

Labelled = tuple[str, str]  # text and label
TRAIN, VALIDATION, TEST_SST2, TEST_RT, REPORT = (
    "train.jsonl", "validation.jsonl", "test_sst2.jsonl", "test_rt.jsonl", "report.json",
)  # fmt: skip
LABELS = ("negative", "positive")
_RUN = 6  # words in a row that two texts share: they are of one sentence
_VALIDATION_ROWS = 1000


def write_sentiment(data: Path, directory: Path, *, seed: int = 0) -> Path:
    """Write `directory` with train.jsonl, validation.jsonl, SST-2's dev set (test_sst2.jsonl), the sentences of rt-polarity that
    share nothing with SST-2's training set (test_rt.jsonl) and how many rows each has (report.json); return it.

    `data`: the folder with classify/. DataError names a file that can't be read.
    """
    phrases = _table(data / "classify/sst2_train.tsv.gz", ("label", "sentence"))
    dev = _table(data / "classify/sst2_dev.tsv", ("label", "content"))
    sentences = [
        (line.strip(), label)
        for label, name in zip(LABELS, ("neg", "pos"), strict=True)
        for line in (data / f"classify/rt-polarity.{name}.txt").read_text("utf-8").splitlines()
        if line.strip()
    ]
    tested = _known(dev)
    sentences = [row for row in sentences if not tested.passages(row[0])]
    in_training = _known(phrases)
    test_rt = [row for row in sentences if len(row[0].split()) > 2 * _RUN and not in_training.passages(row[0])]
    learned = [row for row in sentences if in_training.passages(row[0])]
    random.Random(seed).shuffle(learned)
    validation, more = learned[:_VALIDATION_ROWS], learned[_VALIDATION_ROWS:]
    watched = _known([*validation, *dev, *test_rt])
    held = {_key(text) for text, _ in (*validation, *dev, *test_rt)}
    train = [row for row in (*phrases, *more) if not watched.passages(row[0]) and _key(row[0]) not in held]
    sides = {TRAIN: train, VALIDATION: validation, TEST_SST2: dev, TEST_RT: test_rt}
    with staged_directory(directory, overwrite=True) as stage:
        for name, rows in sides.items():
            write_jsonl(({"text": text, "label": label} for text, label in rows), stage / name)
        write_json(stage / REPORT, {name: _counts(rows) for name, rows in sides.items()})
    return directory


def _known(rows: Iterable[Labelled]) -> HeldOut:
    return HeldOut((text for text, _ in rows), run=_RUN)


def _key(text: str) -> str:
    """A text without its spacing and punctuation: what is too short for a run is the same or not."""
    return "".join(character for character in text.lower() if character.isalnum())


def _table(path: Path, columns: tuple[str, str]) -> list[Labelled]:
    label, text = columns
    return [(row.values[text].strip(), LABELS[int(row.values[label])]) for row in read_rows([path])]


def _counts(rows: Sequence[Labelled]) -> dict[str, int]:
    return {"rows": len(rows), **{name: sum(label == name for _, label in rows) for name in LABELS}}
