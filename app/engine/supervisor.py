"""The engine's life as its client sees it: started, watched, started again when it dies; messages to it and from it."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from app.engine.messages import (
    EngineFailed,
    EngineSpec,
    EngineUnavailable,
    FromEngine,
    Loaded,
    LoadFailed,
    Start,
    ToEngine,
)
from app.engine.process import Worker
from app.engine.transport import ClientEnd
from model.errors import HomegrownError

HEARTBEAT_LIMIT = 30.0  # seconds without a word from an engine that should send one every second, or a step's length
_CLOSE_SECONDS = 5.0
_FIRST_DELAY, _LONGEST_DELAY = 0.5, 30.0

logger = logging.getLogger(__name__)


class Owner(Protocol):
    """Whom the supervisor tells what happens."""

    async def prepare(self) -> None:
        """Make ready what the first requests need, while the engine loads. Raises HomegrownError."""
        ...

    def on_ready(self, info: Loaded, *, again: bool) -> list[ToEngine]:
        """The engine has loaded, perhaps not for the first time; what to send it before anything else."""
        ...

    def on_message(self, message: FromEngine) -> None:
        """Anything the engine says after that."""
        ...

    def on_lost(self, reason: str) -> None:
        """It is gone, and with it all that was under way: EngineUnavailable's `reason`."""
        ...


class Supervisor:
    """Runs one engine. `start` returns at once; `state` tells when it is ready.

    An engine that dies is started again, with growing delays; one that never came up, or can't for a reason that a person must
    mend, makes `supervise` raise EngineFailed.
    """

    def __init__(self, spec: EngineSpec, launch: Callable[[EngineSpec], Worker], owner: Owner) -> None:
        self._spec, self._launch, self._owner = spec, launch, owner
        self.state = "loading"  # then ready, restarting, failed or closed
        self.heard = time.monotonic()  # when the engine last said anything
        self._worker: Worker | None = None
        self._connection: ClientEnd | None = None
        self._been_ready = False
        self._changed = asyncio.Event()  # set when the state may have changed for someone in wait_ready
        self._begun = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to load; returns at once."""
        self._task = asyncio.create_task(self._keep_running(), name="engine-supervisor")
        self._task.add_done_callback(self._tell_end)
        self._begun.set()

    async def supervise(self) -> None:
        """Return when the engine was closed; raise EngineFailed when it can't run."""
        await self._begun.wait()
        assert self._task is not None
        await asyncio.shield(self._task)

    async def wait_ready(self) -> None:
        """Return when requests are taken. Raises EngineFailed."""
        while self.state != "ready":
            if self._task is not None and self._task.done():
                await self._task
                raise EngineUnavailable("shutting_down")
            await self._changed.wait()

    @property
    def pid(self) -> int | None:
        """The engine's process; None while there is none, or it is a thread."""
        return None if self._connection is None else getattr(self._worker, "pid", None)

    def check_ready(self) -> None:
        """EngineUnavailable unless requests are taken."""
        if self.state == "closed":
            raise EngineUnavailable("shutting_down")
        if self.state != "ready":
            raise EngineUnavailable("model_loading" if self.state == "loading" else "engine_dead")

    def send(self, message: ToEngine) -> None:
        """Send, if there is an engine. InvalidRequest for what it could not read: then nothing is sent."""
        if self._connection is not None:
            self._connection.send(message)

    async def close(self) -> None:
        """End the engine; what is under way is lost."""
        loading = self.state == "loading"
        self._set_state("closed")
        if self._connection is not None:
            self._connection.close()
        if loading and self._worker is not None:
            self._worker.kill()  # it would not notice the end of the connection before it has loaded
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=_CLOSE_SECONDS)
            self._task.cancel()
        if self._worker is not None:
            self._worker.kill()
        self._owner.on_lost("shutting_down")

    def kill(self) -> None:
        """End the engine without waiting for anything."""
        self._set_state("closed")
        if self._worker is not None:
            self._worker.kill()

    def _tell_end(self, task: asyncio.Task[None]) -> None:
        """Log what ended the engine for good, where nobody waits for its start any more."""
        error = None if task.cancelled() else task.exception()
        if isinstance(error, HomegrownError):
            if self._been_ready:
                logger.critical("the engine can't be started again: %s", error)
        elif error is not None:
            logger.critical("the engine is given up: unexpected error", exc_info=error)

    def _set_state(self, state: str) -> None:
        if self.state != "closed":
            self.state = state
        self._changed.set()
        self._changed = asyncio.Event()

    async def _keep_running(self) -> None:
        """Start the engine, and again whenever it has died."""
        delay = _FIRST_DELAY
        try:
            while self.state != "closed":
                ready_at = await self._run_once()
                if self.state == "closed":
                    return
                if ready_at is not None and time.monotonic() - ready_at > _LONGEST_DELAY:
                    delay = _FIRST_DELAY  # it ran well for a while: this is a new trouble
                logger.error("the engine died; it starts again in %.1f s", delay)
                await asyncio.sleep(delay)
                delay = min(2 * delay, _LONGEST_DELAY)
        finally:
            self._set_state("failed")  # or stays closed

    async def _run_once(self) -> float | None:
        """One life of the engine; when it became ready, on the monotonic clock. Raises EngineFailed."""
        worker = self._worker = self._launch(self._spec)
        connection = self._connection = await ClientEnd.connect(worker.sock)
        ready_at, cause = None, "the connection ended"
        try:
            await self._load(connection)
            ready_at = time.monotonic()
            while True:
                async with asyncio.timeout(HEARTBEAT_LIMIT):
                    message = await connection.receive()
                self.heard = time.monotonic()
                self._owner.on_message(message)
        except TimeoutError:
            cause = f"no sign of life for {HEARTBEAT_LIMIT:.0f} s"
            worker.kill()
        except (EOFError, OSError):
            pass
        except HomegrownError as error:
            worker.kill()
            await asyncio.to_thread(worker.wait, _CLOSE_SECONDS)
            raise EngineFailed(str(error)) from None
        finally:
            self._connection = None
            connection.close()
            self._set_state("restarting")
            self._owner.on_lost("shutting_down" if self.state == "closed" else "engine_dead")
        ended = await asyncio.to_thread(worker.wait, _CLOSE_SECONDS)
        if self.state != "closed":
            logger.error("the engine's process is gone: %s (%s)", cause, ended)
            if not self._been_ready:
                raise EngineFailed(f"the engine ended while it loaded {self._spec.model} ({ended}); its log is above")
        return ready_at

    async def _load(self, connection: ClientEnd) -> None:
        """From the start to the moment when requests are taken."""
        # An adapter that can't be loaded ends the first start, but no later one: those are loaded one by one.
        spec = msgspec.structs.replace(self._spec, adapters={}) if self._been_ready else self._spec
        connection.send(Start(spec))
        if not self._been_ready:
            await self._owner.prepare()
        message = await connection.receive()
        self.heard = time.monotonic()
        if isinstance(message, LoadFailed):
            raise EngineFailed(message.message)
        assert isinstance(message, Loaded), "the engine says first whether it has loaded"
        for first in self._owner.on_ready(message, again=self._been_ready):
            connection.send(first)
        self._been_ready = True
        self._set_state("ready")
