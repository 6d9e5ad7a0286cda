"""An engine in a thread of this process, behind the same client and the same messages: for tests and offline work."""

import contextlib
import logging
import socket
import threading

from app.engine.client import EngineClient
from app.engine.messages import EngineLimits, EngineSpec
from app.engine.worker import run_engine

logger = logging.getLogger(__name__)


class WorkerThread:
    """The engine's loop in a daemon thread."""

    def __init__(self, _: EngineSpec) -> None:
        self.sock, self._theirs = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def kill(self) -> None:
        """Hang up on it: a thread can't be ended from outside, so it goes after its present step."""
        with contextlib.suppress(OSError):  # it may have closed its end already
            self._theirs.shutdown(socket.SHUT_RDWR)

    def wait(self, timeout: float) -> str:
        """Wait until it has ended."""
        self._thread.join(timeout)
        return "still in a step" if self._thread.is_alive() else "ended"

    def _run(self) -> None:
        with self._theirs:
            try:
                run_engine(self._theirs)
            except Exception:
                logger.critical("the engine stops: unexpected error", exc_info=True)


def local_engine(spec: EngineSpec, limits: EngineLimits | None = None) -> EngineClient:
    """An EngineClient whose engine shares this process. Needs torch."""
    return EngineClient(spec, limits, launch=WorkerThread)
