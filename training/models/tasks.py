"""A piece of the course, and whether it has to be done: its results, what they follow from, and a record of that.

A task whose results are there is skipped. What it followed from (the command, and a hash of each source) is kept beside the runs,
in $WORK/records; when that changes, a measure is taken again, while a run, which took hours, is never thrown away: that is an
error.
"""

import hashlib
import json
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from model.errors import CheckpointError, ConfigError, HomegrownError
from model.files import file_sha256, read_json, write_json
from training.models.places import ROOT, Places, command_line, shown

State = Literal["done", "found", "stale", "open"]


@dataclass(frozen=True)
class Task:
    """`command`: of homegrown, or `call`, what is done in its place. `results`: the files that are there when it is done; without
    any it is done each time. `sources`: files and directories that they follow from. `run`: the directory of a training run, which
    goes on from its saved states. `printed`: the file that gets what the command prints, as JSON."""

    name: str
    results: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    call: Callable[[Places], object] | None = None
    run: str | None = None
    printed: str | None = None

    @property
    def line(self) -> str:
        """The command as it is shown; empty where there is none."""
        return command_line(self.command) if self.command else ""

    def state(self, places: Places) -> State:
        """done; found: a run that is there, but wasn't made by this course; stale: made from something else than there is now;
        open: to be done."""
        if not self.results or not all(places.path(result).is_file() for result in self.results):
            return "open"
        record = self._record(places)
        if not record.is_file():
            return "open" if self.run is None else "found"
        return "stale" if self.changed(places) else "done"

    def changed(self, places: Places) -> list[str]:
        """What of that which the results followed from is another now, by name."""
        try:
            then = read_json(self._record(places), ConfigError)
        except ConfigError as error:
            raise ConfigError(f"{error}; or delete it, and its task counts as not done") from None
        now = self._follows_from(places)
        return [shown(name) for name in sorted({*then, *now}) if then.get(name) != now.get(name)]

    def do(self, places: Places) -> None:
        """Carry it out, or go on with it, and keep the record. ConfigError for a run that is there and was made from something
        else; HomegrownError when the command fails."""
        state = self.state(places)
        if state == "stale" and self.run is not None:
            raise ConfigError(
                f"{places.path(self.run)}: was made from another {', another '.join(self.changed(places))}; move it away to make "
                f"it anew, or delete {self._record(places)} to take it as it is"
            )
        follows_from = self._follows_from(places)  # as it is before: what changes meanwhile is to be noticed later
        if state in ("open", "stale"):
            self._make(places)
        if self.results:
            self._record(places).parent.mkdir(parents=True, exist_ok=True)
            write_json(self._record(places), follows_from)

    def _make(self, places: Places) -> None:
        self._record(places).unlink(missing_ok=True)
        if self.run is None:  # a run's own results are replaced by what makes them
            for result in self.results:
                places.path(result).unlink(missing_ok=True)
        if self.call is not None:
            self.call(places)
        else:
            self._start(places)
        missing = next((result for result in self.results if not places.path(result).is_file()), None)
        if missing is not None:
            raise CheckpointError(f"{self.name}: ended without leaving {places.path(missing)}")

    def _start(self, places: Places) -> None:
        command = [sys.executable, "-m", "cli", *(places.real(argument) for argument in self.command)]
        if self.run is not None and any(places.path(f"{self.run}/states").glob("step-*")):
            command.append("--resume")
        for result in self.results:
            places.path(result).parent.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.PIPE if self.printed else None)
        if done.returncode:
            raise HomegrownError(
                f"{self.name}: ended with {done.returncode}: {self.line}\nWhat is done stays done; the same "
                "command goes on from there"
            )
        if self.printed is not None:
            content = {"command": self.line, "text": done.stdout.decode("utf-8").rstrip("\n")}
            write_json(places.path(self.printed), content)

    def _record(self, places: Places) -> Path:
        return places.path(f"$WORK/records/{self.name}.json")

    def _follows_from(self, places: Places) -> dict[str, str]:
        found = {"command": self.line} if self.command else {}
        return found | {source: _digest(places.path(source), source, self.name) for source in self.sources}


def _digest(path: Path, name: str, task: str) -> str:
    """Of a file; of a directory's files; of a recipe's fields, since its comments change nothing. ConfigError when it isn't
    there."""
    if path.is_dir():
        inside = [f"{p.relative_to(path)} {file_sha256(p)}" for p in sorted(path.rglob("*")) if p.is_file()]
        return hashlib.sha256("\n".join(inside).encode()).hexdigest()
    if not path.is_file():
        place = name.partition("/")[0]
        remedy = {
            "$DATA": "--data names the directory of texts", "$STRONGER": "--stronger names a model directory",
            "$UNSEEN": "--unseen names a text", "$RECIPES": "the repository holds it: restore it",
        }.get(place, "an earlier step makes it")  # fmt: skip
        raise ConfigError(f"{task}: needs {path}, which isn't there; {remedy}")
    if path.suffix == ".toml":
        try:
            fields = tomllib.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise ConfigError(f"{path}: not readable as TOML ({error})") from None
        return hashlib.sha256(json.dumps(fields, sort_keys=True, default=str).encode()).hexdigest()
    return file_sha256(path)
