"""The engine's own process, `python -m app.engine.worker FD`: reads messages, steps while there is work, else blocks.

It ends when the client hangs up, be it on purpose or because the client's process died.
"""

import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from app.engine.messages import EngineSpec, FromEngine, LoadFailed, Start, Step, Update
from app.engine.process import ENDING_SIGNALS
from app.engine.transport import ClientGone, EngineEnd
from app.logs import configure_logging
from model.errors import HomegrownError

if TYPE_CHECKING:
    from app.engine.core import EngineCore

HEARTBEAT_SECONDS = 1.0
LONGEST_STEP = 120.0  # seconds: an engine that is longer in one step counts as stuck, and is heard of no more

logger = logging.getLogger(__name__)


def main() -> int:
    """Serve the client at the other end of the inherited socket; the exit code."""
    # The client decides when to end, after it has drained: signals meant for the whole group must not get here first.
    for number in ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)  # see WorkerProcess
    try:
        with socket.socket(fileno=int(sys.argv[1])) as sock:
            run_engine(sock, _set_up_process)
    except Exception:
        logger.critical("the engine stops: unexpected error", exc_info=True)
        return 1
    return 0


def _set_up_process(spec: EngineSpec) -> Callable[[], None]:
    configure_logging(spec.log_level, spec.log_format)

    def when_loaded() -> None:  # what has been loaded stays: the collector needn't look at it again and again
        gc.collect()
        gc.freeze()

    return when_loaded


def run_engine(sock: socket.socket, configure: Callable[[EngineSpec], Callable[[], None]] | None = None) -> None:
    """Load the model that the first message names, then serve until the client hangs up. `configure` is told its settings, and
    what it returns is called when the model is loaded. Raises whatever ends the engine but the client's own end."""
    end = EngineEnd(sock)
    try:
        spec = _await_start(end)
        _serve(end, spec, configure(spec) if configure is not None else lambda: None)
    except ClientGone:
        return  # and with it everybody who could want an answer
    finally:
        end.close()


def _await_start(end: EngineEnd) -> EngineSpec:
    while not (messages := end.receive(HEARTBEAT_SECONDS)):
        if end.refused():
            raise RuntimeError("the first message can't be read")
    if not isinstance(messages[0], Start) or len(messages) > 1:
        raise RuntimeError(f"expected one Start message first, got {messages!r}")
    return messages[0].spec


def _serve(end: EngineEnd, spec: EngineSpec, when_loaded: Callable[[], None]) -> None:
    began = time.monotonic()
    # Only here: importing torch takes longer than everything else, and the client may hang up before.
    from app.engine.build import build_core

    try:
        core, info = build_core(spec, end.wake)
    except HomegrownError as error:
        end.send(LoadFailed(str(error)))
        return
    info.seconds = time.monotonic() - began
    end.send(info)
    when_loaded()
    try:
        _loop(end, core)
    finally:
        core.close()


def _loop(end: EngineEnd, core: "EngineCore") -> None:
    news = _News(end)
    threading.Thread(target=news.keep_beating, name="heartbeat", daemon=True).start()
    try:
        while True:
            messages = end.receive(0 if core.busy else HEARTBEAT_SECONDS)
            news.step_began = time.monotonic()
            for message in messages:
                assert not isinstance(message, Start), "the client sends Start once"
                core.handle(message)
            if not core.busy:
                core.check_integrity()
            step = core.step()
            news.step_began = None
            refused = end.refused()
            step.updates += [answer for answer in refused if isinstance(answer, Update)]
            news.tell(step)
            for reply in [*core.replies(), *(answer for answer in refused if not isinstance(answer, Update))]:
                news.send(reply)
    finally:
        news.ended.set()


class _News:
    """Tells the client what is new, and from a thread of its own, while a step lasts, that the engine is alive."""

    def __init__(self, end: EngineEnd) -> None:
        self._end = end
        self._lock = threading.Lock()  # guards the socket and what follows
        self._told, self._told_at = (0, 0), time.monotonic()
        self.step_began: float | None = None  # None: no step is running
        self.ended = threading.Event()

    def send(self, message: FromEngine) -> None:
        with self._lock:
            self._end.send(message)

    def tell(self, step: Step) -> None:
        """A step without news is not told: each message wakes the client, on a core that the next step could use. (One that
        computed is news for the metrics, also when it was but a part of a prompt.)"""
        counts, now = (step.running, step.waiting), time.monotonic()
        with self._lock:
            if step.updates or step.rows or counts != self._told or now - self._told_at >= HEARTBEAT_SECONDS / 2:
                self._end.send(step)
                self._told, self._told_at = counts, now

    def keep_beating(self) -> None:
        while not self.ended.wait(HEARTBEAT_SECONDS / 2):
            began, now = self.step_began, time.monotonic()
            if began is None or not HEARTBEAT_SECONDS / 2 <= now - began < LONGEST_STEP:
                continue
            try:
                with self._lock:
                    self._end.send(Step([], *self._told))
            except ClientGone:
                return  # the client has gone; the loop will find that out


if __name__ == "__main__":
    # Not sys.exit: there is nothing to save, and taking torch apart can take a second.
    code = main()
    sys.stderr.flush()
    os._exit(code)
