"""The API keys that open the service: the setting's, and those of a file that is read again when it has changed."""

import hashlib
import hmac
import logging
import time
from collections.abc import Sequence
from pathlib import Path

from model.errors import ConfigError

_CHECK_SECONDS = 1.0  # how often the file is looked at, at most

logger = logging.getLogger(__name__)


def check_key(key: str) -> None:
    """ValueError unless `key` can stand in a header as it is. (The message doesn't show it.)"""
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError("an API key must be visible ASCII characters without spaces")


class ApiKeys:
    """Any of the keys opens. Only their digests are kept, so all are compared in the same time, whatever their lengths."""

    def __init__(self, keys: Sequence[str], file: Path | None = None) -> None:
        """`file`: a key a line; empty lines and lines that begin with # don't count. Raises ConfigError when it can't be used."""
        self._fixed = [_digest(key) for key in keys]
        self._file, self._seen, self._checked = file, _signature(file), time.monotonic()
        self._read = _read(file) if file is not None else []

    def allow(self, key: str) -> bool:
        """Whether `key` is one of them."""
        if self._file is not None and time.monotonic() - self._checked >= _CHECK_SECONDS:
            self._checked = time.monotonic()
            if _signature(self._file) != self._seen:
                self.reload()
        given, found = _digest(key), False
        for known in (*self._fixed, *self._read):  # never stops early: the time tells nothing
            found |= hmac.compare_digest(given, known)
        return found

    def reload(self) -> None:
        """Read the file again. What can't be used changes nothing: a typing mistake must not lock everybody out."""
        if self._file is None:
            logger.info("API keys: there is no api_keys_file to read again")
            return
        self._seen = _signature(self._file)
        try:
            self._read = _read(self._file)
        except ConfigError as error:
            logger.error("the API keys stay as they were: %s", error)
        else:
            logger.info("API keys read again: %d in the file", len(self._read))


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "replace")).digest()


def _signature(file: Path | None) -> tuple[int, ...] | None:
    """What is different when the file is; None when there is none."""
    if file is None:
        return None
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _read(file: Path) -> list[bytes]:
    """Digests of the file's keys. ConfigError names the line at fault and never shows it."""
    try:
        lines = file.read_text("utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"api_keys_file: {file}: can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"api_keys_file: {file}: is not UTF-8 text") from None
    digests = []
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        try:
            check_key(line)
        except ValueError as error:
            raise ConfigError(f"api_keys_file: {file}: line {number}: {error}") from None
        digests.append(_digest(line))
    if not digests:
        raise ConfigError(f"api_keys_file: {file}: there is no key in it; write one a line")
    return digests
