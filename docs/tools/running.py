"""Runs a page's commands as a reader would: in order, in one folder, with the server that the page starts."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parents[2]
ADDRESS = "127.0.0.1:8000"  # what the pages say; the commands ask the session's own server
_SERVE = re.compile(r"^homegrown serve\b")
_PROGRESS = re.compile(r"^ *\d+%")
_PATIENCE = 120.0


class CommandFailed(Exception):
    """A page's command did not end well; the message has it and its output."""


class Session:
    """A folder in which a page's commands run. `links`: entries of the repository that the commands name."""

    def __init__(self, folder: Path, links: tuple[str, ...] = ("docs", "training", "checkpoints")) -> None:
        self._folder = folder
        for name in links:
            (folder / name).symlink_to(ROOT / name)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._server: subprocess.Popen[str] | None = None
        # One thread: the models are small, and the machine may be busy.
        binaries = str(Path(sys.executable).parent)
        self._environment = {
            **os.environ,
            "PATH": f"{binaries}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def address(self) -> str:
        """HOST:PORT of this session's server."""
        return f"127.0.0.1:{self._port}"

    def run(self, command: str, timeout: float = 1800) -> str:
        """What a terminal would show of the command, without the progress of long work. `homegrown serve` goes on in the
        background until another or the session's end. Raises CommandFailed."""
        here = command.replace(ADDRESS, self.address)
        if _SERVE.match(command):
            return self._serve(f"exec {here} --port {self._port}")
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", here], cwd=self._folder, env=self._environment, text=True, timeout=timeout,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode != 0:
            raise CommandFailed(f"{command}\nended with status {done.returncode}:\n{done.stdout}")
        return self._as_shown(done.stdout)

    def stop(self) -> int | None:
        """End the server that runs, if one does; its exit code."""
        server, self._server = self._server, None
        if server is None:
            return None
        server.send_signal(signal.SIGTERM)
        try:
            return server.wait(60)
        except subprocess.TimeoutExpired:
            server.kill()
            return server.wait()

    def _serve(self, command: str) -> str:
        self.stop()
        log = self._folder / "server.log"
        with log.open("w") as file:
            self._server = subprocess.Popen(
                ["bash", "-c", command], cwd=self._folder, env=self._environment, text=True, stderr=file, stdout=file
            )
        end = time.monotonic() + _PATIENCE
        while not self._ready():
            if self._server.poll() is not None or time.monotonic() > end:
                raise CommandFailed(f"{command}\nthe server did not come up:\n{log.read_text()}")
            time.sleep(0.1)
        return self._as_shown(log.read_text())

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.address}/ready", timeout=5) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def _as_shown(self, output: str) -> str:
        lines = (line.rsplit("\r", 1)[-1].rstrip() for line in output.splitlines())
        text = "\n".join(line for line in lines if not _PROGRESS.match(line))
        return text.replace(self.address, ADDRESS).replace(str(self._folder) + "/", "").strip("\n")
