"""Compressed files, opened as what they hold: .gz, .xz, .zst."""

import gzip
import io
import lzma
import zlib
from pathlib import Path
from typing import BinaryIO, cast

COMPRESSIONS = (".gz", ".xz", ".zst")
# What reading a damaged or truncated archive raises, besides OSError.
DAMAGED = (OSError, EOFError, lzma.LZMAError, zlib.error)


def open_bytes(path: Path) -> BinaryIO:
    """The content of a file, decompressed as its name says, to read and to iterate over by lines. Reading raises one of
    DAMAGED when an archive is damaged or cut short."""
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    if suffix == ".xz":
        return cast(BinaryIO, lzma.open(path, "rb"))
    if suffix == ".zst":
        import pyarrow  # its reader tells a file that is cut short; the zstandard package's takes the cut for the end

        return io.BufferedReader(cast(io.RawIOBase, pyarrow.input_stream(path, compression="zstd")))
    return path.open("rb")


def plain_suffix(path: Path) -> str:
    """The kind of a file below its compression, in lower case: ".csv" of "a.csv.gz"."""
    return Path(path.stem if path.suffix.lower() in COMPRESSIONS else path.name).suffix.lower()
