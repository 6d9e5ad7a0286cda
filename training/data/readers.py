"""Corpus files -> documents, one at a time, however large the files are.

`.txt` (documents parted by a line `<|endoftext|>`), `.jsonl` and `.parquet` (a document a row), each also `.gz`, `.xz` or `.zst`;
directories of them, read in order of their names; and data sets of the Hugging Face Hub (training.data.hub), streamed.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from training.data.account import Account
from training.data.archives import DAMAGED, open_bytes, plain_suffix
from training.data.hub import HubCorpus, hub_rows
from training.data.tables import whole_characters
from training.errors import DataError

Corpus = Path | HubCorpus  # what documents are read from
SEPARATOR = "<|endoftext|>"
_BLOCK = 1 << 20  # bytes read at a time
_KINDS = ".txt, .jsonl or .parquet file (plain, .gz, .xz or .zst)"
_FIELD_HINT = "name the field that holds the text"


def corpus_files(paths: Iterable[Path | str]) -> list[Corpus]:
    """What `paths` name: readable files, directories opened (but nothing hidden in them), and `hf:owner/name[:config][@split]`.
    DataError when one isn't there, is of no known kind, or when a directory holds none."""
    files: list[Corpus] = []
    for name in paths:
        path = Path(name)
        if str(name).startswith(HubCorpus.PREFIX):
            files.append(HubCorpus.parse(str(name)))
        elif path.is_dir():
            inside = sorted(p for p in path.rglob("*") if _readable(p) and not _hidden(p.relative_to(path)))
            if not inside:
                raise DataError(f"{path}: holds no {_KINDS}")
            files += inside
        elif not path.is_file():
            raise DataError(f"{path}: no such file")
        elif not _readable(path):
            raise DataError(f"{path}: not a {_KINDS}")
        else:
            files.append(path)
    if not files:
        raise DataError(f"no corpus given; name at least one {_KINDS}")
    return files


def read_documents(files: Iterable[Corpus], *, field: str = "text", account: Account | None = None) -> Iterator[str]:
    """The documents of all files, one at a time, without the white space around them. Empty ones are left out and counted in
    `account`.

    `field` is the column or key of the text in .parquet, .jsonl and on the Hub. Raises DataError naming the file and the line or
    row: text that is not UTF-8, a row that is no JSON object or lacks the field, a damaged archive, a file without a document.
    """
    for source in files:
        found = False
        rows = _hub_documents(source, field) if isinstance(source, HubCorpus) else _file_documents(source, field)
        for text in rows:
            if document := text.strip():
                found = True
                yield document
            elif account is not None:
                account.drop("empty", "")
        if not found:
            raise DataError(f"{source}: empty; it holds no document")


def _readable(path: Path) -> bool:
    return plain_suffix(path) in _READERS and path.is_file()


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _hub_documents(corpus: HubCorpus, field: str) -> Iterator[str]:
    for number, row in enumerate(hub_rows(corpus), 1):
        yield _text(row, field, f"{corpus}, row {number}")


def _file_documents(path: Path, field: str) -> Iterator[str]:
    number = 0
    try:
        with open_bytes(path) as file:
            for number, document in enumerate(_READERS[plain_suffix(path)](file, path, field), 1):  # noqa: B007
                yield document
    except DAMAGED as error:
        where = f"after {number:,} documents" if number else "from the start"
        raise DataError(f"{path}: damaged or unreadable {where} ({error}); get the file again") from None


def _blocks(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """The content in blocks of whole lines, line ends made `\\n`, without the mark that some programs put in front."""
    first = True
    while block := file.read(_BLOCK):
        block += file.readline()
        if first and block[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise DataError(f"{path}: UTF-16, not UTF-8; convert the file to UTF-8")
        if first:
            block, first = block.removeprefix(b"\xef\xbb\xbf"), False
        yield block.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in block else block


def _read_text(file: BinaryIO, path: Path, _: str) -> Iterator[str]:
    parts: list[bytes] = []
    line = 1  # on which the document begins
    for block in _blocks(file, path):
        done = 0
        for start, end in _separators(block):
            document = b"".join([*parts, block[done:start]])
            yield _decoded(document, path, line)
            line += document.count(b"\n") + 1
            parts, done = [], end
        parts.append(block[done:] if done else block)
    document = b"".join(parts)
    if document.strip():  # what follows the last separator need not be a document
        yield _decoded(document, path, line)


def _separators(block: bytes) -> Iterator[tuple[int, int]]:
    """From where to where the lines reach that hold the separator alone."""
    mark = SEPARATOR.encode()
    at = block.find(mark)
    while at >= 0:
        start = block.rfind(b"\n", 0, at) + 1
        end = block.find(b"\n", at) + 1 or len(block)
        if block[start:end].strip() == mark:
            yield start, end
        at = block.find(mark, end)


def _decoded(data: bytes, path: Path, line: int) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line += data.count(b"\n", 0, error.start)
        raise DataError(f"{path}, line {line}: not UTF-8 ({error.reason}); convert the file to UTF-8") from None


def _read_jsonl(file: BinaryIO, path: Path, field: str) -> Iterator[str]:
    number = 0
    for block in _blocks(file, path):
        for line in block.removesuffix(b"\n").split(b"\n"):
            number += 1
            if line.strip():
                where = f"{path}, line {number}"
                yield _text(_parsed(line, where), field, where)


def _parsed(line: bytes, where: str) -> Any:
    try:
        return msgspec.json.decode(line)
    except (ValueError, RecursionError):  # stricter than what Python writes: NaN, half characters
        try:
            return json.loads(line)
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: not UTF-8 ({error.reason}); convert the file to UTF-8") from None
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: not JSON ({error})") from None


def _text(row: Any, field: str, where: str) -> str:
    if not isinstance(row, Mapping):
        raise DataError(f"{where}: not an object with the field {field!r}")
    text = row.get(field)
    if not isinstance(text, str):
        names = ", ".join(repr(str(name)[:40]) for name in row)
        raise DataError(f"{where}: has no text in the field {field!r}; its fields: {names or 'none'}. {_FIELD_HINT}")
    return whole_characters(text)


def _read_parquet(file: BinaryIO, path: Path, field: str) -> Iterator[str]:
    from pyarrow import ArrowException, parquet, types

    with tempfile.TemporaryFile() as whole:
        if (
            plain_suffix(path) != path.suffix.lower()
        ):  # its directory stands at the end, where a packed file can't be entered
            shutil.copyfileobj(file, whole, _BLOCK)
            file = whole  # type: ignore[assignment]
        try:
            table = parquet.ParquetFile(file, buffer_size=_BLOCK)
            names = table.schema_arrow.names
            if field not in names:
                raise DataError(f"{path}: has no column {field!r}; its columns: {', '.join(names)}. {_FIELD_HINT}")
            kind = table.schema_arrow.field(field).type
            if not (types.is_string(kind) or types.is_large_string(kind) or types.is_dictionary(kind)):
                raise DataError(f"{path}: the column {field!r} holds {kind}, not text; {_FIELD_HINT}")
            row = 0
            for batch in table.iter_batches(batch_size=256, columns=[field]):
                for value in batch.column(0):
                    row += 1
                    yield _parquet_text(value, field, f"{path}, row {row}")
        except ArrowException as error:
            raise DataError(f"{path}: damaged or no parquet file ({error}); get the file again") from None


def _parquet_text(value: Any, field: str, where: str) -> str:
    try:
        text = value.as_py()
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 ({error.reason}); write the file anew") from None
    if not isinstance(text, str):
        raise DataError(f"{where}: has no text in the column {field!r}; leave such rows out of the file")
    return text


_READERS: dict[str, Callable[[BinaryIO, Path, str], Iterator[str]]] = {
    ".txt": _read_text, ".jsonl": _read_jsonl, ".parquet": _read_parquet,
}  # fmt: skip
