"""Files that appear whole or not at all, and the names of those in a model directory. Free of torch."""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from model.errors import CheckpointError, HomegrownError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
# What is being written, or was when a process was killed: whose it will be, the process, what it is.
_STAGED = re.compile(r"\.(?P<name>.+)\.(?P<pid>\d{1,10})\.(?:part|[a-z0-9_]{8}\.(?:stage|(?P<old>old)))")


def read_json(path: Path, error: type[HomegrownError] = CheckpointError) -> dict[str, Any]:
    """A JSON object from a file. Raises `error`, naming the file, when it can't be read or is no JSON object."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as problem:
        raise error(f"{path}: can't be read: {problem.strerror or problem}") from None
    except ValueError as problem:
        raise error(f"{path}: not JSON, so damaged or cut short; get the file again ({problem})") from None
    if not isinstance(content, dict):
        raise error(f"{path}: expected a JSON object, found a {type(content).__name__}; get the file again")
    return content


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object so that the file is either the old one or the whole new one."""
    write_whole(path, lambda part: part.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8"))


def write_whole(path: Path, write: Callable[[Path], object], *, mode: int | None = 0o644) -> None:
    """Let `write` fill a file beside `path`, sync it, then put it in place: a crash or a full disk leaves the old
    file. `mode` None leaves to the user's umask who may read it."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(part)
        if mode is not None:
            part.chmod(mode)  # some writers make files for their owner alone; a model directory is for every user
        _sync(part)
        part.replace(path)
        _sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def staged_directory(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A directory beside `target` to write into; synced to the disk, it takes target's place at the end, or goes without a
    trace on an error.

    Raises CheckpointError when `target` holds files already and `overwrite` is not set.
    """
    if target.exists() and not overwrite and (not target.is_dir() or any(target.iterdir())):
        raise CheckpointError(f"{target}: already there; name another directory, or ask for it to be overwritten")
    target.parent.mkdir(parents=True, exist_ok=True)
    stage = _beside(target, "stage")
    try:
        stage.chmod(0o755)
        yield stage
        put_in_place(stage, target)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def put_in_place(stage: Path, target: Path) -> None:
    """Let the directory `stage`, once it is synced to the disk, take the place of `target`, which comes back if that fails."""
    for path in [*stage.rglob("*"), stage]:
        if not path.is_symlink():
            _sync(path)
    if target.exists():
        _exchange(target, stage)
    else:
        stage.replace(target)
    _sync(target.parent)


def _beside(target: Path, kind: str) -> Path:
    return Path(tempfile.mkdtemp(prefix=f".{target.name}.{os.getpid()}.", suffix=f".{kind}", dir=target.parent))


def _exchange(target: Path, stage: Path) -> None:
    """Put `stage` in the place of `target`, which comes back if that fails."""
    old = _beside(target, "old")
    try:
        target.replace(old / target.name)
        stage.replace(target)
    except BaseException:
        if not target.exists():
            (old / target.name).replace(target)
        old.rmdir()
        raise
    shutil.rmtree(old)


def sweep(directory: Path) -> None:
    """Remove from `directory` what write_whole, staged_directory and put_in_place were writing there for processes that were
    killed, by their names alone; what a living process writes stays. A directory that was about to be replaced comes back.

    To be called before this process writes there: a leaving that bears its own number is of one before it.
    """
    for path in list(directory.glob(".*")):
        found = _STAGED.fullmatch(path.name)
        if found is None or path.is_symlink() or _runs(int(found["pid"])):
            continue
        target = directory / found["name"]
        if found["old"] and not target.exists() and (path / target.name).exists():
            (path / target.name).replace(target)
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


def _runs(pid: int) -> bool:
    """Whether another process of this number is there."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _sync(path: Path) -> None:
    """Wait until the disk has a file, or a directory's entries: a rename must not come before what it names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
