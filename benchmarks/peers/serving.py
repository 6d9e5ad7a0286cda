"""A server to put under load: one that runs somewhere, or ours, started and ended here."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[2]
_START_SECONDS = 120.0


@contextmanager
def server(url: str | None, model: Path | None, case: Mapping[str, str]) -> Iterator[tuple[str, int, int | None]]:
    """The server at `url`, or one of ours with these settings while it is needed: host, port and process group."""
    if url:
        parts = urlsplit(url)
        yield parts.hostname or "127.0.0.1", parts.port or 80, None
        return
    flags = [text for name, value in case.items() for text in flag(name, value)]
    command = [sys.executable, "-m", "cli", "serve", "--model", str(model), "--port", "0", *flags]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command, stderr=log, cwd=ROOT, process_group=0, env=os.environ | {"PYTHONPATH": str(ROOT)}
        )
        try:
            host, port = wait_ready(process, log)
            yield host, port, process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def flag(name: str, value: str) -> list[str]:
    """A setting as the command line's flag."""
    text = name.replace("_", "-")
    switch = {"true": f"--{text}", "false": f"--no-{text}"}
    return [switch[value.lower()]] if value.lower() in switch else [f"--{text}", value]


def wait_ready(process: "subprocess.Popen[bytes]", log: Any) -> tuple[str, int]:
    """Where the server listens, once it takes requests. SystemExit with the end of its log when it doesn't come up."""
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        log.seek(0)
        found = re.search(r"http://([\d.]+):(\d+)", log.read())
        if found:
            try:
                urllib.request.urlopen(f"{found[0]}/ready", timeout=5).close()
                return found[1], int(found[2])
            except OSError:  # not ready is status 503, an error to this client
                pass
        time.sleep(0.1)
    log.seek(0)
    raise SystemExit(f"the server did not come up:\n{log.read()[-2000:]}")


def served_model(host: str, port: int, key: str | None) -> str:
    """The name that requests must give, as the server's list has it."""
    request = urllib.request.Request(f"http://{host}:{port}/v1/models")
    if key is not None:
        request.add_header("Authorization", f"Bearer {key}")
    with urllib.request.urlopen(request, timeout=30) as reply:
        return json.loads(reply.read())["data"][0]["id"]
