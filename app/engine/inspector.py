"""Looking inside a model, for one who asks now and then: a small process of its own, started when it is wanted. Free of torch.

The engine's kernels keep no attention weights, and nobody's stream is to wait while somebody looks. So what is asked here is
computed beside the engine, from the checkpoint, in float32, on one thread that gives way to all others.
"""

import asyncio
import contextlib
import logging
import struct
import sys
from collections import deque

import msgspec

from app.engine.messages import EngineError, EngineSpec, EngineUnavailable, QueueFull, RequestFault, RequestTimeout
from app.engine.process import child_environment

MAX_WAITING = 8
LIMIT_SECONDS = 120.0  # from the question to the answer, the process's start included
IDLE_SECONDS = 60.0
LENGTH = struct.Struct("<I")  # in front of each message's msgpack, both ways
_READ_SIZE = 1 << 20

logger = logging.getLogger(__name__)


class InspectJob(msgspec.Struct, array_like=True, tag=1):
    """Look at this. `adapter`: a directory; None: the base model. `layers`: whose attention is wanted; None: all."""

    prompt: list[int]
    adapter: str | None = None
    layers: list[int] | None = None


class Inspected(msgspec.Struct, array_like=True, tag=2):
    """What was seen, for a prompt of T tokens."""

    layers: int
    heads: int
    attention: bytes  # JSON: [layer asked for][head][query][key], rounded to 4 digits
    lens: list[
        list[list[tuple[int, float]]]
    ]  # [layers + 1][T]: likeliest next tokens and their probabilities, best first


class InspectFailed(msgspec.Struct, array_like=True, tag=3):
    """It can't be done. `memory`: there is too little of it now."""

    message: str
    memory: bool = False


class InspectorUnavailable(EngineError):
    """Nobody can look inside now; the message says why, for a person."""


class Inspector:
    """Starts the process at the first question, asks one thing at a time, and ends it when nobody has asked for a while."""

    def __init__(self, spec: EngineSpec, *, idle: float = IDLE_SECONDS, limit: float = LIMIT_SECONDS) -> None:
        self._spec, self._idle, self._limit = spec, idle, limit
        self._jobs: deque[tuple[InspectJob, asyncio.Future[Inspected]]] = deque()
        self._asked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The process; None while there is none."""
        return None if self._process is None or self._process.returncode is not None else self._process.pid

    async def inspect(self, job: InspectJob) -> Inspected:
        """What is to be seen. Raises QueueFull, RequestTimeout, InspectorUnavailable, EngineUnavailable (the server is closing),
        RequestFault. Whoever stops waiting is forgotten."""
        if self._closed:
            raise EngineUnavailable("shutting_down")
        self._jobs = deque(entry for entry in self._jobs if not entry[1].done())  # whoever has left takes no place
        if len(self._jobs) >= MAX_WAITING:
            raise QueueFull(f"{MAX_WAITING} other requests to look inside are waiting; try again later.")
        answer: asyncio.Future[Inspected] = asyncio.get_running_loop().create_future()
        self._jobs.append((job, answer))
        self._asked.set()
        if self._task is None:
            self._task = asyncio.create_task(self._serve(), name="inspector")
        try:
            async with asyncio.timeout(self._limit):
                return await answer
        except TimeoutError:
            raise RequestTimeout(
                f"Looking inside took longer than {self._limit:g} s; ask for a shorter text, or later."
            ) from None

    def kill(self) -> None:
        """End the process without waiting for anything."""
        self._closed = True
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def close(self) -> None:
        """End the process; whoever waits gets EngineUnavailable."""
        self.kill()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _serve(self) -> None:
        """Answer what is asked, one after the other, until nobody asks any more."""
        try:
            while self._jobs or await self._asked_again():
                job, answer = self._jobs.popleft()
                if not answer.done():  # else nobody waits for it any more
                    await self._answer(job, answer)
        finally:
            self._task = None  # from here on a question starts a new one
            while self._closed and self._jobs:
                _tell(self._jobs.popleft()[1], EngineUnavailable("shutting_down"))
            await self._end()

    async def _asked_again(self) -> bool:
        self._asked.clear()
        try:
            async with asyncio.timeout(self._idle):
                await self._asked.wait()
        except TimeoutError:
            return bool(self._jobs)  # one may have come at that very moment
        return True

    async def _answer(self, job: InspectJob, answer: "asyncio.Future[Inspected]") -> None:
        """Have one question answered, in one way or another; a process that did not answer as it should is ended."""
        try:
            async with asyncio.timeout(self._limit):
                reply = await self._exchange(job)
        except asyncio.CancelledError:
            _tell(answer, EngineUnavailable("shutting_down"))
            raise
        except TimeoutError:  # whoever asked has given up at the same time, or before
            logger.error("the inspector did not answer within %g s", self._limit)
            await self._end()
        except (EOFError, OSError) as error:
            logger.error("the inspector's process is gone: %s", error)
            await self._end()
            text = "The process that looks inside has ended, perhaps for want of memory; try again."
            _tell(answer, EngineUnavailable("shutting_down") if self._closed else InspectorUnavailable(text))
        except Exception as error:
            await self._end()
            _tell(answer, RequestFault(f"the inspector's answer can't be read ({error})"))
        else:
            _tell(answer, _outcome(reply))

    async def _exchange(self, job: InspectJob) -> Inspected | InspectFailed:
        if self.pid is None:  # never started, or ended by somebody else while nothing was asked
            await self._end()
            self._process = await self._start()
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        body = msgspec.msgpack.encode(job)
        process.stdin.write(LENGTH.pack(len(body)) + body)
        await process.stdin.drain()
        (size,) = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
        return msgspec.msgpack.decode(await process.stdout.readexactly(size), type=Inspected | InspectFailed)

    async def _start(self) -> asyncio.subprocess.Process:
        # -P as for the engine. A session of its own: Ctrl-C at a terminal is the server's matter. No GPU: that is the engine's.
        command = [sys.executable, "-P", "-m", "app.engine.inspecting"]
        environment = {**child_environment(1), "CUDA_VISIBLE_DEVICES": ""}
        process = await asyncio.create_subprocess_exec(
            *command, self._spec.model, self._spec.log_level, self._spec.log_format,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=environment,
            limit=_READ_SIZE, start_new_session=True,
        )  # fmt: skip
        logger.info("looking inside: process %d has started", process.pid)
        return process

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _tell(answer: "asyncio.Future[Inspected]", outcome: Inspected | Exception) -> None:
    """Tell the one who waits, if anybody still does."""
    if answer.done():
        return
    if isinstance(outcome, Inspected):
        answer.set_result(outcome)
    else:
        answer.set_exception(outcome)


def _outcome(reply: Inspected | InspectFailed) -> Inspected | Exception:
    if isinstance(reply, Inspected):
        return reply
    return InspectorUnavailable(reply.message) if reply.memory else RequestFault(reply.message)
