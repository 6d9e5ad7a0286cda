"""A command on a terminal of its own: what a person sees, keys pressed, real Ctrl-C."""

import fcntl
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\r")


class OnTerminal:
    """`homegrown ...` whose input and output are a pseudo-terminal, the controlling one: Ctrl-C reaches it as a signal."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self._ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 100))  # of none at all, libraries make nothing

        def own_the_terminal() -> None:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            [sys.executable, "-m", "cli", *arguments], stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT,
            preexec_fn=own_the_terminal, env={**os.environ, "TERM": "xterm", **environment},
        )  # fmt: skip
        os.close(theirs)
        self._seen = ""
        self._at = 0

    @property
    def screen(self) -> str:
        """All that was shown so far, without colours."""
        return _ESCAPES.sub("", self._seen)

    def type(self, text: str) -> None:
        """Press keys; "\\r" is Enter, "\\x03" Ctrl-C, "\\x04" Ctrl-D."""
        os.write(self._ours, text.encode())

    def expect(self, text: str, within: float = 90.0) -> str:
        """Wait until `text` is shown behind what was expected before; what stands between."""
        end = time.monotonic() + within
        while (found := self.screen.find(text, self._at)) < 0:
            if not self._read(end - time.monotonic()):
                pytest.fail(f"waited for {text!r}; the screen shows:\n{self.screen[-2000:]}")
        between, self._at = self.screen[self._at : found], found + len(text)
        return between

    def wait(self, within: float = 60.0) -> int:
        """Read to the end; the exit code."""
        end = time.monotonic() + within
        while self._read(max(0.1, end - time.monotonic())):
            pass
        return self.process.wait(max(0.1, end - time.monotonic()))

    def close(self) -> None:
        """End it, however it stands."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._ours)

    def _read(self, within: float) -> bool:
        """Take in what comes next; False at the end, or when nothing comes in time."""
        if within <= 0 or not select.select([self._ours], [], [], within)[0]:
            return False
        try:
            data = os.read(self._ours, 65536)
        except OSError:  # the other end is closed
            return False
        self._seen += data.decode("utf-8", "replace")
        return bool(data)
