"""What has been labelled so far, kept beside the file to come: a line a row, so that a killed run loses at most a line."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cli.labelling.labellers import Scores
from model.errors import HomegrownError


class Journal:
    """A hidden file: its first line says what the work is, each other one holds a row's probabilities and whether its text was
    cut, or null for a row without a text. `done`: rows in it."""

    def __init__(self, path: Path, work: dict[str, Any], *, resume: bool) -> None:
        """`work`: what the answers depend on. With `resume` that of an earlier run is gone on with; HomegrownError when that was
        other work, or when there is some and `resume` isn't set."""
        self.path, self.done = path, 0
        head = json.dumps(work, sort_keys=True)
        if path.exists() and not resume:
            raise HomegrownError(f"{path}: holds unfinished work; --resume goes on with it, --force begins anew")
        if path.exists():
            end = self._check(head)
            self._file = path.open("r+", encoding="utf-8", newline="\n")
            self._file.truncate(end)  # what was being written when the run was killed
            self._file.seek(0, 2)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("w", encoding="utf-8", newline="\n")
            self._file.write(head + "\n")
            self._file.flush()

    def _check(self, head: str) -> int:
        """Counts the rows, and returns the size of what is whole."""
        with self.path.open("rb") as file:
            first = file.readline()
            if first != head.encode() + b"\n":
                raise HomegrownError(
                    f"{self.path}: is of other work: the file, the model or the options have changed; --force begins anew"
                )
            end = len(first)
            for line in file:
                if not line.endswith(b"\n") or not _readable(line):
                    break
                end += len(line)
                self.done += 1
        return end

    def add(self, rows: Sequence[Scores | None]) -> None:
        """Keep the scores of the next rows; on the disk when this returns, as far as another process sees."""
        for row in rows:
            kept = None if row is None else [list(row.probabilities), row.truncated]
            self._file.write(json.dumps(kept) + "\n")
        self._file.flush()
        self.done += len(rows)

    def read(self) -> Iterator[Scores | None]:
        """All rows, from the first."""
        with self.path.open("rb") as file:
            file.readline()
            for line in file:
                kept = json.loads(line)
                yield None if kept is None else Scores(*kept)

    def close(self) -> None:
        """Stop writing; may be called twice."""
        self._file.close()

    def remove(self) -> None:
        """The work is done."""
        self.close()
        self.path.unlink(missing_ok=True)


def _readable(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
