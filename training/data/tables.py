"""Files of rows -> rows with named columns: what fine-tuning and classification read.

.csv: RFC 4180 (double quotes, line breaks inside them), separated by commas, or by semicolons where the header has no comma.
.tsv: one row a line, a tab between fields, no quoting: a quotation mark is a character like any other.
.jsonl: one object a line. .json: one list of objects. .parquet. Each also .gz, .xz or .zst, or directories of them; and data sets
of the Hugging Face Hub, streamed (training.data.hub).
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from training.data.archives import DAMAGED, open_bytes, plain_suffix
from training.data.hub import HubCorpus, hub_rows
from training.errors import DataError

_MAX_FIELD = 1 << 26  # characters in one .csv field; the library's own 131,072 are fewer than some texts have


@dataclass(frozen=True)
class Row:
    """A row: its values by column, and where it stands ("reviews.csv, line 12"), for messages. Values of .csv and .tsv are
    texts, those of the other kinds what the file holds."""

    values: dict[str, Any]
    where: str


def read_rows(paths: Sequence[Path | str], *, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """The rows of all files and of `hf:owner/name[:config][@split]`, one at a time; blank lines are passed over.

    `columns` names the columns of .csv and .tsv files without a header line; by default the first line is the header.
    DataError names file and line (or row): a file that is missing, empty, damaged or not UTF-8, a row with more or fewer fields
    than there are columns, a line that is no JSON object.
    """
    if columns is not None and (not columns or len(set(columns)) < len(columns)):
        raise DataError(f"columns: {', '.join(columns) or 'none given'}: give each column a name of its own")
    for source in table_files(paths):
        found = False
        for row in _rows_of_hub(source) if isinstance(source, HubCorpus) else _rows_of_file(source, columns):
            found = True
            yield row
        if not found:
            raise DataError(f"{source}: empty; it holds no row")


def write_jsonl(rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Write a .jsonl file that `read_rows` reads, an object a line."""
    path.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))


def required(row: Row, field: str) -> str:
    """The text in a field, as it stands; a number or truth value is spelled out, since a label may be one. DataError names
    the file, the row and the fields that there are when it is missing or no text."""
    if field not in row.values:
        names = ", ".join(repr(name if len(name) <= 40 else f"{name[:40]}...") for name in row.values)
        raise DataError(
            f"{row.where}: has no field {field!r}; it has {names or 'none'}. Name the field to read, or the columns if "
            "the file has no header line"
        )
    value = row.values[field]
    if not isinstance(value, str | bool | int | float):
        raise DataError(f"{row.where}: {field!r} must be a text, found {kind_of(value)}")
    return whole_characters(str(value))


def whole_characters(text: str) -> str:
    """The text with U+FFFD for half characters, which JSON can spell but no encoding holds."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def table_files(paths: Iterable[Path | str]) -> list[Path | HubCorpus]:
    """What `paths` name: files, those in directories but for hidden ones, in order of names, and data sets of the Hub. DataError
    when one isn't there or is of no known kind, or when a directory holds none."""
    files: list[Path | HubCorpus] = []
    for name in paths:
        path = Path(name)
        if str(name).startswith(HubCorpus.PREFIX):
            files.append(HubCorpus.parse(str(name)))
        elif path.is_dir():
            inside = sorted(p for p in path.rglob("*") if _is_table(p, path))
            if not inside:
                raise DataError(f"{path}: holds no {_KINDS} file")
            files += inside
        elif not path.is_file():
            raise DataError(f"{path}: no such file")
        elif plain_suffix(path) not in _READERS:
            raise DataError(f"{path}: not a {_KINDS} file")
        else:
            files.append(path)
    if not files:
        raise DataError(f"no data given; name at least one {_KINDS} file")
    return files


def _is_table(path: Path, directory: Path) -> bool:
    """Whether a file under `directory` is to be read; hidden ones are some program's own."""
    hidden = any(part.startswith(".") for part in path.relative_to(directory).parts)
    return not hidden and path.is_file() and plain_suffix(path) in _READERS


class _Lines:
    """The lines of an open file as text, with their ends; `number` is that of the last one given out."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.path, self.number = path, 0
        self._file = file

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._file)
        self.number += 1
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self.path}, line {self.number}: not UTF-8 ({error.reason}); convert the file to UTF-8"
            ) from None
        return text.removeprefix("\ufeff") if self.number == 1 else text  # the mark that some programs put in front


def _rows_of_hub(source: HubCorpus) -> Iterator[Row]:
    for number, values in enumerate(hub_rows(source), 1):
        yield Row(values, f"{source}, row {number}")


def _rows_of_file(path: Path, columns: Sequence[str] | None) -> Iterator[Row]:
    kind = plain_suffix(path)
    if columns is not None and kind not in _SEPARATED:
        raise DataError(f"{path}: its rows name their fields themselves; leave the column names out")
    unit = "row" if kind in (".json", ".parquet") else "line"
    number = 0
    try:
        with open_bytes(path) as file:
            for number, values in _READERS[kind](file, path, columns):
                yield Row(values, f"{path}, {unit} {number}")
    except DAMAGED as error:
        raise DataError(f"{path}: damaged or unreadable after {unit} {number} ({error}); get the file again") from None


def _read_csv(file: BinaryIO, path: Path, columns: Sequence[str] | None) -> Iterator[tuple[int, dict[str, Any]]]:
    lines = _Lines(file, path)
    first = next(lines, "")
    delimiter = ";" if ";" in first and "," not in first else ","
    return _named(_csv_fields(lines, first, delimiter), path, columns)


def _csv_fields(lines: _Lines, first: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The fields of each row and the line that it begins on."""
    csv.field_size_limit(_MAX_FIELD)
    start = 1

    def text() -> Iterator[str]:
        yield first
        yield from lines

    rows = csv.reader(text(), delimiter=delimiter, strict=True)
    while True:
        try:
            fields = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"{lines.path}, line {start}: not a row of a .csv file ({error}); close each quote, and write a quotation mark "
                "inside quotes twice"
            ) from None
        if fields:  # not a blank line
            yield start, fields
        start = lines.number + 1


def _read_tsv(file: BinaryIO, path: Path, columns: Sequence[str] | None) -> Iterator[tuple[int, dict[str, Any]]]:
    lines = _Lines(file, path)
    rows = ((lines.number, text.split("\t")) for line in lines if (text := line.rstrip("\r\n")))
    return _named(rows, path, columns)


def _named(
    rows: Iterator[tuple[int, list[str]]], path: Path, columns: Sequence[str] | None
) -> Iterator[tuple[int, dict[str, Any]]]:
    header = columns
    for number, fields in rows:
        if header is None:
            header = fields
            if len(set(header)) < len(header):
                raise DataError(f"{path}, line {number}: two columns of the header have one name: {', '.join(header)}")
            continue
        if columns is not None and fields == list(columns):
            raise DataError(f"{path}, line {number}: is a header line; leave the column names out")
        if len(fields) != len(header):
            wanted = ", ".join(name[:40] for name in header)
            raise DataError(
                f"{path}, line {number}: has {len(fields)} fields, but there are {len(header)} columns ({wanted}); mend or "
                "quote the row"
            )
        yield number, dict(zip(header, fields, strict=True))


def _read_jsonl(file: BinaryIO, path: Path, _: Sequence[str] | None) -> Iterator[tuple[int, dict[str, Any]]]:
    lines = _Lines(file, path)
    for line in lines:
        if line.strip():
            yield lines.number, _object(line, f"{path}, line {lines.number}")


def _read_json(file: BinaryIO, path: Path, _: Sequence[str] | None) -> Iterator[tuple[int, dict[str, Any]]]:
    content = "".join(_Lines(file, path))
    try:
        rows = json.loads(content) if content.strip() else []
    except (ValueError, RecursionError) as error:
        hint = "; name a file of one object a line .jsonl" if content.lstrip().startswith("{") else ""
        raise DataError(f"{path}: not JSON ({error}){hint}") from None
    if not isinstance(rows, list):
        raise DataError(f"{path}: must be a list of objects, found {kind_of(rows)}")
    for number, values in enumerate(rows, 1):
        if not isinstance(values, dict):
            raise DataError(f"{path}, row {number}: must be an object, found {kind_of(values)}")
        yield number, values


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error})") from None
    if not isinstance(values, dict):
        raise DataError(f"{where}: must be an object, found {kind_of(values)}")
    return values


def kind_of(value: object) -> str:
    """What kind of JSON value it is, in words."""
    names = {dict: "an object", list: "a list", str: "a text", type(None): "null", bool: "a truth value"}
    return names.get(type(value), "a number")


def _read_parquet(file: BinaryIO, path: Path, _: Sequence[str] | None) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        # Its directory stands at the end; what is compressed once more can't be read from there.
        table = parquet.ParquetFile(path if path.suffix.lower() == ".parquet" else io.BytesIO(file.read()))
        for batch in table.iter_batches(batch_size=1024):
            for values in batch.to_pylist():
                number += 1
                yield number, values
    except pyarrow.ArrowException as error:
        raise DataError(
            f"{path}: damaged or no parquet file, after row {number} ({error}); get the file again"
        ) from None


_READERS: dict[str, Callable[[BinaryIO, Path, Sequence[str] | None], Iterator[tuple[int, dict[str, Any]]]]] = {
    ".csv": _read_csv, ".tsv": _read_tsv, ".jsonl": _read_jsonl, ".json": _read_json, ".parquet": _read_parquet,
}  # fmt: skip
_SEPARATED = (".csv", ".tsv")
_KINDS = ".csv, .tsv, .jsonl, .json or .parquet (plain, .gz, .xz or .zst)"
