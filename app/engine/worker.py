"""The engine's own process, `python -m app.engine.worker FD`: reads messages, steps while there is work, else blocks.

It ends when the client hangs up, be it on purpose or because the client's process died.
"""

import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from app.engine.messages import EngineSpec, LoadFailed, Start
from app.engine.transport import EngineEnd
from app.logs import configure_logging
from model.errors import HomegrownError

if TYPE_CHECKING:
    from app.engine.core import EngineCore

HEARTBEAT_SECONDS = 1.0

logger = logging.getLogger(__name__)


def main() -> int:
    """Serve the client at the other end of the inherited socket; the exit code."""
    # The client decides when to end, after it has drained: signals meant for the whole group must not get here first.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
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
    what it returns is called when the model is loaded."""
    end = EngineEnd(sock)
    try:
        spec = _await_start(end)
        _serve(end, spec, configure(spec) if configure is not None else lambda: None)
    except (EOFError, OSError):
        return  # the client has gone, and with it everybody who could want an answer
    finally:
        end.close()


def _await_start(end: EngineEnd) -> EngineSpec:
    while not (messages := end.receive(HEARTBEAT_SECONDS)):
        pass
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
    told, told_at = (0, 0), time.monotonic()
    while True:
        for message in end.receive(0 if core.busy else HEARTBEAT_SECONDS):
            assert not isinstance(message, Start), "the client sends Start once"
            core.handle(message)
        if not core.busy:
            core.check_integrity()
        step = core.step()
        # A step without news is not told: each message wakes the client, on a core that the next step could use.
        counts, now = (step.running, step.waiting), time.monotonic()
        if step.updates or counts != told or now - told_at >= HEARTBEAT_SECONDS / 2:
            end.send(step)
            told, told_at = counts, now
        for reply in core.replies():
            end.send(reply)


if __name__ == "__main__":
    # Not sys.exit: there is nothing to save, and taking torch apart can take a second.
    code = main()
    sys.stderr.flush()
    os._exit(code)
