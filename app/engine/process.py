"""The engine as a process of its own: how it is started, with which threads, and how it ends. Free of torch."""

import logging
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Protocol

from app.engine.messages import EngineSpec
from model.processors import available_cpus

ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # the engine's process leaves them to its client
_SOURCE_ROOT = Path(__file__).resolve().parents[2]

logger = logging.getLogger(__name__)


class Worker(Protocol):
    """Whatever runs the engine's loop at the other end of `sock`; it ends by itself when `sock` is closed."""

    sock: socket.socket

    def kill(self) -> None:
        """End it now."""
        ...

    def wait(self, timeout: float) -> str:
        """Wait until it has ended, killing it after `timeout` seconds; how it ended, in words."""
        ...


class WorkerProcess:
    """`python -m app.engine.worker` as a child, connected by a socket pair."""

    def __init__(self, spec: EngineSpec) -> None:
        self.sock, theirs = socket.socketpair()
        with theirs:
            # -P keeps the current directory off the child's path: a stray model.py there must not be imported.
            command = [sys.executable, "-P", "-m", "app.engine.worker", str(theirs.fileno())]
            # What comes before the child ignores these waits in it, and is then dropped: a terminal's Ctrl-C goes to both.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
            try:
                self._process = subprocess.Popen(
                    command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=_environment(spec)
                )
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def kill(self) -> None:
        self._process.kill()

    def wait(self, timeout: float) -> str:
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _environment(spec: EngineSpec) -> dict[str, str]:
    """The engine's environment.

    By default one thread less than there are processors, so that the HTTP process keeps one: two OpenMP threads that wait for
    each other at every barrier lose whole scheduler ticks when a third thing wants a core. (Our own kernels' threads don't:
    model.backend has how many they are.)
    """
    threads = spec.threads or max(1, available_cpus() - 1)
    env = child_environment(threads)
    if threads >= available_cpus():
        # No core is left over: threads that spin while they wait would fight the HTTP process for one.
        env.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return env


def child_environment(threads: int) -> dict[str, str]:
    """The environment of a Python process that computes on so many threads and finds this code. OpenMP reads the numbers when
    torch loads it, so they can't be set later."""
    env = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    env["PYTHONPATH"] = os.pathsep.join([str(_SOURCE_ROOT), *filter(None, [env.get("PYTHONPATH")])])
    return env
