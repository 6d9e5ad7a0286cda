"""The engine's own process, `python -m app.engine.worker FD`: reads messages, steps while there is work, else blocks.

It ends when the client hangs up, be it on purpose or because the client's process died.
"""

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from app.engine.messages import Cancel, EngineSpec, Loaded, LoadFailed, Start, Submit
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
            run_engine(sock, lambda spec: configure_logging(spec.log_level, spec.log_format))
    except Exception:
        logger.critical("the engine stops: unexpected error", exc_info=True)
        return 1
    return 0


def run_engine(sock: socket.socket, configure: Callable[[EngineSpec], None] | None = None) -> None:
    """Load the model that the first message names, then serve until the client hangs up. `configure` is told its settings."""
    end = EngineEnd(sock)
    try:
        spec = _await_start(end)
        if configure is not None:
            configure(spec)
        _serve(end, spec)
    except (EOFError, OSError):
        return  # the client has gone, and with it everybody who could want an answer


def _await_start(end: EngineEnd) -> EngineSpec:
    while not (messages := end.receive(HEARTBEAT_SECONDS)):
        pass
    if not isinstance(messages[0], Start) or len(messages) > 1:
        raise RuntimeError(f"expected one Start message first, got {messages!r}")
    return messages[0].spec


def _serve(end: EngineEnd, spec: EngineSpec) -> None:
    began = time.monotonic()
    # Only here: importing torch takes longer than everything else, and the client may hang up before.
    import torch

    from app.engine.core import EngineCore
    from app.engine.runner import Runner
    from app.engine.scheduler import Scheduler

    try:
        runner = Runner.load(spec)
    except HomegrownError as error:
        end.send(LoadFailed(str(error)))
        return
    scheduler = Scheduler(runner.cache.n_slots, spec.prefill_chunk)
    eos_ids = frozenset(runner.model.config.eos_token_ids)
    core = EngineCore(runner, scheduler, eos_ids, deterministic=spec.deterministic)
    info = Loaded(
        slots=runner.cache.n_slots,
        context=runner.cache.context,
        vocab_size=runner.model.config.vocab_size,
        dtype=str(runner.dtype).removeprefix("torch."),
        device=str(runner.device),
        threads=runner.threads,
        torch_version=str(torch.__version__),
        seconds=time.monotonic() - began,
    )
    end.send(info)
    _loop(end, core)


def _loop(end: EngineEnd, core: "EngineCore") -> None:
    while True:
        for message in end.receive(0 if core.busy else HEARTBEAT_SECONDS):
            assert isinstance(message, Submit | Cancel), "the client sends Start once"
            core.handle(message)
        if not core.busy:
            core.scheduler.check_integrity()
        end.send(core.step())


if __name__ == "__main__":
    # Not sys.exit: there is nothing to save, and taking torch apart can take a second.
    code = main()
    sys.stderr.flush()
    os._exit(code)
