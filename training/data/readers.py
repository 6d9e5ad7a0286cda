"""Corpus files -> documents. `.txt` (documents split by a line `<|endoftext|>`) and `.jsonl`, each plain, `.gz` or `.xz`;
or directories of them, read in order of their names."""

import gzip
import json
import lzma
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from training.errors import DataError

SEPARATOR = "<|endoftext|>"
_OPENERS = {".gz": gzip.open, ".xz": lzma.open}


def corpus_files(paths: Iterable[Path | str]) -> list[Path]:
    """The readable files that `paths` name, directories opened. DataError when one isn't there, is of no known kind, or
    when a directory holds none."""
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and _kind(p))
            if not inside:
                raise DataError(f"{path}: holds no .txt or .jsonl file (plain, .gz or .xz)")
            files += inside
        elif not path.is_file():
            raise DataError(f"{path}: no such file")
        elif not _kind(path):
            raise DataError(f"{path}: not a .txt or .jsonl file (plain, .gz or .xz)")
        else:
            files.append(path)
    if not files:
        raise DataError("no corpus given; name at least one .txt or .jsonl file")
    return files


def read_documents(files: Iterable[Path], *, field: str = "text") -> Iterator[str]:
    """The documents of all files, one at a time, without the white space around them; empty ones are passed over.

    `field` is the key of the text in a .jsonl row. Raises DataError naming the file and the line: text that is not UTF-8, a
    row that is no JSON object or lacks the field, a damaged archive.
    """
    for path in files:
        found = False
        for document in _read_file(path, field):
            if document := document.strip():
                found = True
                yield document
        if not found:
            raise DataError(f"{path}: empty; it holds no document")


def _kind(path: Path) -> str | None:
    name = path.name.lower().removesuffix(".gz").removesuffix(".xz")
    return next((suffix for suffix in (".txt", ".jsonl") if name.endswith(suffix)), None)


def _read_file(path: Path, field: str) -> Iterator[str]:
    opener = _OPENERS.get(path.suffix.lower(), open)
    line = 0
    try:
        with opener(path, "rt", encoding="utf-8", newline=None) as file:
            rows = _rows_of_jsonl(file, field, path) if _kind(path) == ".jsonl" else _documents_of_text(file)
            for line, document in rows:  # noqa: B007 - the line is for the error below
                yield document
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 after line {line} ({error.reason}); convert the file to UTF-8") from None
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError, OSError) as error:
        raise DataError(f"{path}: damaged or unreadable after line {line} ({error}); get the file again") from None


def _documents_of_text(file: IO[str]) -> Iterator[tuple[int, str]]:
    lines: list[str] = []
    number = 0
    for number, line in enumerate(file, 1):
        if line.strip() == SEPARATOR:
            yield number, "".join(lines)
            lines = []
        else:
            lines.append(line)
    yield number, "".join(lines)


def _rows_of_jsonl(file: IO[str], field: str, path: Path) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}, line {number}: not JSON ({error})") from None
        if not isinstance(row, dict) or not isinstance(row.get(field), str):
            raise DataError(f"{path}, line {number}: has no text in the field {field!r}")
        yield number, row[field]
