"""Real servers for tests: `serve` in a process of its own, on a free port."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]


class Server:
    """`homegrown serve` in a process of its own."""

    def __init__(self, settings: dict[str, Any], env: dict[str, str] | None = None) -> None:
        self.settings = {"port": 0, "threads": 1, **settings}
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
        command = [sys.executable, "-m", "cli", "serve", *_flags(self.settings)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))

    @property
    def log(self) -> str:
        """All it has written to stderr."""
        return "\n".join(self.lines)

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens; waits until it does."""
        found = wait_for(
            lambda: re.search(r"http://([\d.]+):(\d+)", self.log) or self.process.poll(), what="a listener"
        )
        assert isinstance(found, re.Match), self.log
        return found[1], int(found[2])

    def client(self, **options: Any) -> httpx.Client:
        """An HTTP client for it."""
        return httpx.Client(base_url="http://{}:{}".format(*self.address), **{"timeout": 30.0, **options})

    def wait_ready(self) -> "Server":
        """Return when it takes requests."""
        with self.client() as client:
            wait_for(lambda: client.get("/ready").status_code == 200, what="readiness")
        return self

    def counts(self) -> dict[str, Any]:
        """The body of /health."""
        with self.client() as client:
            return client.get("/health").json()

    def wait_idle(self, within: float = 5.0) -> None:
        """Return when no request holds a slot or waits."""
        wait_for(lambda: (c := self.counts()).get("running") == 0 and c["waiting"] == 0, within, what="an idle engine")

    def engine_pid(self) -> int:
        """The engine's process id."""
        command = ["ps", "-o", "pid=,args=", "--ppid", str(self.process.pid)]
        lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
        return next(int(line.split()[0]) for line in lines if "app.engine.worker" in line)

    def connect(self) -> socket.socket:
        """A bare connection to it."""
        return socket.create_connection(self.address, timeout=30)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal it and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Its exit code."""
        code = self.process.wait(30)
        self._reader.join(5)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code


def _flags(settings: dict[str, Any]) -> list[str]:
    """Settings as command-line flags."""
    flags: list[str] = []
    for name, value in settings.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        elif value is not None:
            flags += [f"--{flag}", str(value)]
    return flags


def wait_for(check: Callable[[], Any], within: float = 60.0, *, what: str) -> Any:
    """Poll `check` until it gives something true."""
    end = time.monotonic() + within
    while not (result := check()):
        if time.monotonic() > end:
            pytest.fail(f"waited {within:g} s for {what}")
        time.sleep(0.01)
    return result


def events(response: httpx.Response) -> list:
    """The JSON of each event; checks the framing."""
    assert response.status_code == 200, response.read()
    assert response.headers["content-type"].startswith("text/event-stream")
    frames = response.read().decode().split("\n\n")
    assert frames.pop() == ""
    assert frames.pop() == "data: [DONE]"
    assert all(frame.startswith("data: ") for frame in frames)
    return [json.loads(frame.removeprefix("data: ")) for frame in frames]
