"""The file whose texts are to be labelled."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli import needs
from training.data.archives import open_bytes, plain_suffix
from training.data.tables import Row, read_rows, required


@dataclass(frozen=True)
class Facts:
    """What a first look at a file tells: its rows, the names of their fields, and a digest of the texts."""

    rows: int
    fields: frozenset[str]
    sha256: str


def _take_all(rows: Iterator[dict[str, Any]]) -> None:
    for _ in rows:
        pass


@dataclass(frozen=True)
class Source:
    """`columns` names those of a .csv or .tsv file without a header line."""

    path: Path
    text_field: str
    columns: tuple[str, ...] | None = None

    @property
    def kind(self) -> str:
        """ ".csv" of reviews.csv.gz."""
        return plain_suffix(self.path)

    def rows(self) -> Iterator[tuple[Row, str | None]]:
        """Each row and its text; None for a blank one. DataError names the line that can't be read."""
        with needs("train"):  # .parquet and .zst
            for row in read_rows([self.path], columns=self.columns):
                missing = self.text_field in row.values and row.values[self.text_field] is None
                yield row, None if missing else required(row, self.text_field).strip() or None

    def look(self, check: Callable[[Iterator[dict[str, Any]]], object] | None = None) -> Facts:
        """Reads all of it once, so that what is wrong with any row is told before work begins; by `check` too, which gets the rows
        on the way and must take all of them."""
        digest, rows, fields = hashlib.sha256(), 0, set[str]()

        def passing() -> Iterator[dict[str, Any]]:
            nonlocal rows
            for row, text in self.rows():
                rows += 1
                fields.update(row.values)
                data = b"" if text is None else text.encode("utf-8", "surrogatepass")
                digest.update(len(data).to_bytes(8, "big") + data)
                yield dict(row.values)

        (check or _take_all)(passing())
        return Facts(rows, frozenset(fields), digest.hexdigest())

    @property
    def delimiter(self) -> str:
        """Of a .csv file: a semicolon where the first line has no comma, as it is read."""
        if self.kind != ".csv":
            return ","
        with open_bytes(self.path) as file:
            first = file.readline()
        return ";" if b";" in first and b"," not in first else ","

    @property
    def schema(self) -> Any:
        """Of a .parquet file: the types of its columns. None for others."""
        if self.path.suffix.lower() != ".parquet":
            return None
        with needs("train"):
            from pyarrow import parquet

            return parquet.read_schema(self.path)
