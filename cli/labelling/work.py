"""The work itself: rows labelled a few at a time, kept as they are done, and put together into a file at the end."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import click
from tqdm import tqdm

from cli.labelling.journal import Journal
from cli.labelling.labellers import Labeller, Scores
from cli.labelling.output import Record, is_flat, write_records
from cli.labelling.source import Source
from training.data.tables import Row
from training.errors import DataError

_FEWEST, _MOST = 8, 512  # rows that are handed over at a time: as many as take about a second
_DIGITS = 6


@dataclass(frozen=True)
class Names:
    """What the new fields are called: `label` as it is, the scores after it."""

    label: str

    @property
    def _prefix(self) -> str:
        return "" if self.label == "label" else f"{self.label}_"

    def of(self, labels: Sequence[str], flat: bool) -> list[str]:
        """All of them, in their order."""
        scores = [f"{self._prefix}score", *(f"{self._prefix}score_{name}" for name in labels)]
        return [self.label, *scores] if flat else [self.label, f"{self._prefix}scores"]

    def fields(self, labels: Sequence[str], scores: Scores | None, flat: bool) -> Record:
        """A row's new fields; None in each for a row without a text."""
        names = self.of(labels, flat)
        if scores is None:
            return dict.fromkeys(names)
        rounded = [round(value, _DIGITS) for value in scores.probabilities]
        best = best_label(labels, scores)
        if flat:
            return dict(zip(names, [best, max(rounded), *rounded], strict=True))
        return {names[0]: best, names[1]: dict(zip(labels, rounded, strict=True))}


def best_label(labels: Sequence[str], scores: Scores) -> str:
    """The likeliest."""
    return max(zip(scores.probabilities, labels, strict=True), key=lambda pair: pair[0])[1]


@dataclass
class Tally:
    """What was done. `counts`: rows by their label; `blank`: rows without a text; `truncated`: texts whose end was not read;
    `seconds`: that this run took for the `fresh` rows it labelled itself."""

    rows: int
    counts: Counter[str]
    blank: int = 0
    truncated: int = 0
    fresh: int = 0
    seconds: float = 0.0

    @classmethod
    def over(cls, labels: Sequence[str]) -> "Tally":
        """An empty one, which shows labels that no row gets too."""
        return cls(0, Counter(dict.fromkeys(labels, 0)))

    def add(self, labels: Sequence[str], scores: Scores | None) -> None:
        """Count a row."""
        self.rows += 1
        if scores is None:
            self.blank += 1
            return
        self.counts[best_label(labels, scores)] += 1
        self.truncated += scores.truncated


def check_names(source: Source, fields: Iterable[str], names: Sequence[str]) -> None:
    """DataError when the file has one of the new fields already."""
    taken = [name for name in names if name in set(fields)]
    if taken:
        raise DataError(
            f"{source.path}: has a field {taken[0]!r} already; name another for the answers, as --label-field predicted"
        )


def label_rows(source: Source, labeller: Labeller, journal: Journal, total: int, tally: Tally) -> None:
    """Label the rows that the journal doesn't have yet."""
    rows = islice(source.rows(), journal.done, None)
    begun = time.perf_counter()
    with _bar(total, journal.done) as bar:
        for batch, scores in _labelled(rows, labeller):
            journal.add(scores)
            tally.fresh += len(batch)
            bar.update(len(batch))
    tally.seconds = time.perf_counter() - begun


def write_output(
    source: Source, labels: Sequence[str], journal: Journal, names: Names, out: Path, tally: Tally
) -> None:
    """All rows with what the journal has of them, as a file."""
    flat = is_flat(out)

    def records() -> Iterator[Record]:
        for (row, _), scores in zip(source.rows(), journal.read(), strict=True):
            tally.add(labels, scores)
            yield {**row.values, **names.fields(labels, scores, flat)}

    write_records(out, records(), delimiter=source.delimiter, schema=source.schema)


def stream_rows(source: Source, labeller: Labeller, names: Names, total: int, show: Callable[[Record], None]) -> None:
    """Label all rows, and show each as soon as it is done."""
    with _bar(total, 0) as bar:
        for batch, scores in _labelled(source.rows(), labeller):
            for row, each in zip(batch, scores, strict=True):
                show({**row.values, **names.fields(labeller.labels, each, flat=False)})
            bar.update(len(batch))


def _labelled(
    rows: Iterator[tuple[Row, str | None]], labeller: Labeller
) -> Iterator[tuple[list[Row], list[Scores | None]]]:
    """The rows in batches, each with its scores; None for a row without a text."""
    size = _FEWEST
    while batch := list(islice(rows, size)):
        begun = time.perf_counter()
        found = iter(labeller([text for _, text in batch if text is not None]))
        yield [row for row, _ in batch], [None if text is None else next(found) for _, text in batch]
        seconds = time.perf_counter() - begun
        size = min(_MOST, 2 * size) if seconds < 0.5 else max(_FEWEST, size // 2) if seconds > 2 else size


def _bar(total: int, done: int) -> tqdm:
    return tqdm(total=total, initial=done, desc="classifying", unit=" rows", disable=None, file=sys.stderr)


def say_stopped(journal: Journal, total: int) -> None:
    """What is left of a run that was interrupted."""
    click.echo(f"stopped after {journal.done:,} of {total:,} rows; --resume goes on from there", err=True)
