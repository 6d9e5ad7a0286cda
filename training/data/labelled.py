"""Texts with labels for a classifier: read, freed of repeats, split."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from training.classify_recipe import ClassifyData
from training.data.archives import DAMAGED, open_bytes
from training.data.shards import split_of
from training.data.tables import read_rows, required
from training.errors import DataError


@dataclass(frozen=True)
class Labelled:
    """A text, its label, and where it stands ("reviews.csv, line 12")."""

    text: str
    label: str
    where: str


def read_labelled(
    paths: Sequence[Path | str], *, text_field: str, label_field: str, columns: Sequence[str] | None = None
) -> Iterator[Labelled]:
    """The rows of files of tables (see `read_rows`), blanks around texts and labels removed.

    DataError names file and row: a field that is missing, an empty text or label.
    """
    for row in read_rows(paths, columns=columns):
        yield _labelled(required(row, text_field), required(row, label_field), row.where, text_field, label_field)


def read_class_files(files: Iterable[tuple[str, Path | str]]) -> Iterator[Labelled]:
    """The lines of (label, text file) pairs, one text a line; blank lines are passed over. DataError names file and line."""
    for label, path in files:
        path, number, found = Path(path), 0, False
        try:
            with open_bytes(path) as file:
                for number, line in enumerate(file, 1):
                    if text := line.decode("utf-8-sig" if number == 1 else "utf-8").strip():
                        found = True
                        yield _labelled(text, label, f"{path}, line {number}", "the line", "the class file's label")
        except UnicodeDecodeError as error:
            raise DataError(f"{path}, line {number}: not UTF-8 ({error.reason}); convert the file to UTF-8") from None
        except FileNotFoundError:
            raise DataError(f"{path}: no such file") from None
        except DAMAGED as error:
            raise DataError(f"{path}: damaged or unreadable after line {number} ({error})") from None
        if not found:
            raise DataError(f"{path}: empty; it holds no text")


def _labelled(text: str, label: str, where: str, text_field: str, label_field: str) -> Labelled:
    text, label = text.strip(), label.strip()
    for value, field in ((text, text_field), (label, label_field)):
        if not value:
            raise DataError(f"{where}: {field!r} is empty; fill it in or take the row out")
    return Labelled(text, label, where)


@dataclass(frozen=True)
class LabelledData:
    """The rows of a run. `notes`: what was dropped, in words."""

    labels: tuple[str, ...]
    train: list[Labelled]
    validation: list[Labelled]
    test: list[Labelled]
    notes: list[str]


def read_data(
    settings: ClassifyData,
    paths: Sequence[Path | str],
    class_files: Sequence[tuple[str, Path | str]] = (),
    *,
    seed: int,
) -> LabelledData:
    """The rows in `paths` (tables) and `class_files` ((label, file of one text a line)), split, repeats dropped and counted.

    DataError names file and row: what can't be read, a label that isn't to be, an empty text; or says that there is but one
    label, or none of a label's rows to learn from.
    """
    notes: list[str] = []
    rows = _tables(settings, paths) if paths or not class_files else []
    rows += _renamed(read_class_files(class_files), settings)
    validation, test = (_tables(settings, files) if files else [] for files in (settings.validation, settings.test))
    labels = labels_of([*rows, *validation, *test], settings.labels)
    if settings.deduplicate:
        rows = _without_repeats(rows, [*validation, *test], notes)
    if not test and settings.test_fraction:
        rows, test = split_rows(rows, settings.test_fraction, seed, "test")
    if not validation:
        rows, validation = split_rows(rows, settings.validation_fraction, seed, "validation")
    for label in labels:
        if not any(row.label == label for row in rows):
            raise DataError(f"label {label!r} has no row to learn from; give some, or leave it out")
    return LabelledData(labels, rows, validation, test, notes)


def _tables(settings: ClassifyData, paths: Sequence[Path | str]) -> list[Labelled]:
    rows = read_labelled(
        paths, text_field=settings.text_field, label_field=settings.label_field, columns=settings.columns
    )
    return _renamed(rows, settings)


def _renamed(rows: Iterable[Labelled], settings: ClassifyData) -> list[Labelled]:
    names = settings.label_names
    return [replace(row, label=names.get(row.label, row.label)) for row in rows]


def _without_repeats(rows: list[Labelled], elsewhere: list[Labelled], notes: list[str]) -> list[Labelled]:
    within = deduplicate(rows)
    if within.repeats:
        other = f", {within.conflicts:,} of them with another label" if within.conflicts else ""
        notes.append(f"{within.repeats:,} of {len(rows):,} rows dropped: their text was there before{other}")
    outside = deduplicate(within.rows, elsewhere)
    if outside.repeats:
        notes.append(f"{outside.repeats:,} rows dropped: their text is in the validation or test files")
    return outside.rows


def labels_of(rows: Sequence[Labelled], order: Sequence[str] = ()) -> tuple[str, ...]:
    """The labels of `rows`, sorted, or in `order`. DataError when there are fewer than two, when `order` has one twice, or when a
    row has one that `order` hasn't."""
    counts = Counter(row.label for row in rows)
    if order:
        if len(order) < 2 or len(set(order)) < len(order):
            raise DataError(f"data.labels: {', '.join(map(repr, order))}: name two labels or more, each once")
        stray = next((row for row in rows if row.label not in order), None)
        if stray:
            raise DataError(f"{stray.where}: label {stray.label!r} is none of {', '.join(map(repr, order))}")
        return tuple(order)
    if len(counts) < 2:
        file = rows[0].where.rpartition(",")[0] if rows else "no data"
        found = f"every row has the label {rows[0].label!r}" if rows else "there is no row"
        raise DataError(f"{file}: {found}; a classifier needs two labels or more. Is it the right label field?")
    return tuple(sorted(counts))


@dataclass(frozen=True)
class Deduplicated:
    """Rows of different texts. `repeats`: rows dropped since their text was there before; `conflicts`: those of them whose label
    was another."""

    rows: list[Labelled]
    repeats: int
    conflicts: int


def deduplicate(rows: Iterable[Labelled], seen: Iterable[Labelled] = ()) -> Deduplicated:
    """The first row of each text that isn't in `seen`."""
    first = {row.text: row.label for row in seen}
    kept: list[Labelled] = []
    repeats = conflicts = 0
    for row in rows:
        if row.text in first:
            repeats += 1
            conflicts += first[row.text] != row.label
        else:
            first[row.text] = row.label
            kept.append(row)
    return Deduplicated(kept, repeats, conflicts)


def split_rows(
    rows: Iterable[Labelled], fraction: float, seed: int, held_out: Literal["validation", "test"]
) -> tuple[list[Labelled], list[Labelled]]:
    """(the rest, held out) rows: by a hash of the text and the seed, so that equal texts are never on both sides, and another hash
    for each kind of rows held out. Case and blanks don't count. DataError when either is empty."""
    rest: list[Labelled] = []
    held: list[Labelled] = []
    key = "test\n" if held_out == "test" else ""  # no text has a line break once its blanks are one each
    for row in rows:
        same = key + " ".join(row.text.casefold().split())
        (held if split_of(same, fraction, seed) == "validation" else rest).append(row)
    for name, side in (("training", rest), (held_out, held)):
        if not side:
            raise DataError(f"the {name} split got no row: give more rows, or set {held_out}_fraction ({fraction})")
    return rest, held


def class_weights(rows: Sequence[Labelled], labels: Sequence[str]) -> np.ndarray:
    """Weights by which every label counts the same, 1 on average over the rows: n / (n_labels * n_of_the_label), [n_labels]
    float32 (King and Zeng, 2001)."""
    counts = Counter(row.label for row in rows)
    return np.array([len(rows) / (len(labels) * max(counts[label], 1)) for label in labels], np.float32)


def rows_sha256(rows: Iterable[Labelled]) -> str:
    """A digest of texts and labels, in their order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(f"{len(row.text)} {row.text} {row.label}\n".encode())
    return digest.hexdigest()
