"""The rows of a file with their labels, written as .csv, .tsv, .jsonl, .json or .parquet, whole or not at all."""

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from cli import needs
from model.files import write_whole
from training.errors import DataError

Record = dict[str, Any]
_BATCH = 4096  # rows of parquet written at a time


def check_kind(path: Path) -> None:
    """DataError unless the file's name says one of the kinds."""
    if path.suffix.lower() not in _WRITERS:
        raise DataError(f"{path}: the name must end in {', '.join(_WRITERS)}")


def try_out(path: Path, records: Iterable[Record], *, delimiter: str = ",", schema: Any = None) -> None:
    """Raise what `write_records` would, without writing: before the records have cost anything."""
    _WRITERS[path.suffix.lower()](Path(os.devnull), iter(records), delimiter, schema)


def write_records(path: Path, records: Iterable[Record], *, delimiter: str = ",", schema: Any = None) -> None:
    """Write the records as the name's ending says. `delimiter`: of .csv; `schema`: of a parquet file that the records come from.
    DataError names what the kind of file can't hold."""
    writer = _WRITERS[path.suffix.lower()]
    path.parent.mkdir(parents=True, exist_ok=True)
    # The texts may be private: the umask decides who reads them.
    write_whole(path, lambda part: writer(part, iter(records), delimiter, schema), mode=None)


def is_flat(path: Path) -> bool:
    """Whether each label's score needs a column of its own."""
    return path.suffix.lower() in (".csv", ".tsv", ".parquet")


def _write_csv(path: Path, records: Iterator[Record], delimiter: str, _: Any) -> None:
    with path.open("w", encoding="utf-8", errors="replace", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        for fields in _table(records):
            writer.writerow(fields)


def _write_tsv(path: Path, records: Iterator[Record], _delimiter: str, _schema: Any) -> None:
    with path.open("w", encoding="utf-8", errors="replace", newline="") as file:
        for number, fields in enumerate(_table(records), 1):
            for field in fields:
                if any(character in field for character in "\t\r\n"):
                    raise DataError(
                        f"row {number}: {field[:40]!r} has a tab or a line break; write .csv or .jsonl instead"
                    )
            file.write("\t".join(fields) + "\n")


def _table(records: Iterator[Record]) -> Iterator[list[str]]:
    """The header and the rows as texts; other values than texts as JSON has them. DataError for a row of other columns."""
    columns: Sequence[str] | None = None
    for record in _alike(records):
        if columns is None:
            columns = list(record)
            yield columns
        yield [_text(record[name]) for name in columns]


def _alike(records: Iterator[Record]) -> Iterator[Record]:
    """The records, as long as all have the columns of the first. DataError for one that hasn't."""
    columns: set[str] | None = None
    for number, record in enumerate(records, 1):
        columns = set(record) if columns is None else columns
        if record.keys() != columns:
            other = min(record.keys() ^ columns, key=str)
            raise DataError(f"row {number}: {other!r} isn't in every row, so they make no table; write .jsonl instead")
        yield record


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _write_jsonl(path: Path, records: Iterator[Record], _delimiter: str, _schema: Any) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for record in records:
            file.write(json_line(record) + "\n")


def _write_json(path: Path, records: Iterator[Record], _delimiter: str, _schema: Any) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        before = "[\n"
        for record in records:
            file.write(before + json_line(record))
            before = ",\n"
        file.write("[]\n" if before == "[\n" else "\n]\n")


def json_line(record: Record) -> str:
    """A record as a line of JSON; half a surrogate pair, which no file can hold, is escaped, and a date is its text."""
    text = json.dumps(record, ensure_ascii=False, default=str)
    return text if text.isascii() or text.isprintable() else text.encode("utf-8", "backslashreplace").decode()


def _write_parquet(path: Path, records: Iterator[Record], _: str, schema: Any) -> None:
    with needs("train"):
        import pyarrow
        from pyarrow import parquet
    writer = None
    records = _alike(records)  # pyarrow would leave out what the first doesn't have
    try:
        while batch := list(islice(records, _BATCH)):
            if writer is None:
                new = pyarrow.Table.from_pylist(batch).schema
                if schema is not None:  # the columns that were there keep their types
                    known = {field.name: field for field in schema}
                    new = pyarrow.schema([known.get(field.name, field) for field in new])
                writer = parquet.ParquetWriter(path, new)
            writer.write_table(pyarrow.Table.from_pylist(batch, schema=writer.schema))
    except (pyarrow.ArrowException, TypeError) as error:
        raise DataError(f"the rows make no parquet file ({error}); write .jsonl instead") from None
    finally:
        if writer is not None:
            writer.close()


_WRITERS: dict[str, Callable[[Path, Iterator[Record], str, Any], None]] = {
    ".csv": _write_csv, ".tsv": _write_tsv, ".jsonl": _write_jsonl, ".json": _write_json, ".parquet": _write_parquet,
}  # fmt: skip
