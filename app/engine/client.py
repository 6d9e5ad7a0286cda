"""The rest of the service's view of the engine: submit a prompt, read deltas; it is started, watched and restarted here."""

import asyncio
import itertools
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from app.engine.messages import (
    Cancel,
    EngineFailed,
    EngineLimits,
    EngineSpec,
    EngineStatus,
    EngineUnavailable,
    FromEngine,
    Loaded,
    LoadFailed,
    QueueFull,
    Start,
    Step,
    Submit,
)
from app.engine.output import OutputProcessor
from app.engine.process import Worker, WorkerProcess
from app.engine.stream import GenerationStream
from app.engine.transport import ClientEnd
from model.errors import ContextLengthError, HomegrownError, SamplingError
from model.sampling_params import SamplingParams
from model.tokenizer import Tokenizer

HEARTBEAT_LIMIT = 30.0  # seconds without a word from an engine that should send one every second, or a step's length
_CLOSE_SECONDS = 5.0
_FIRST_DELAY, _LONGEST_DELAY = 0.5, 30.0

logger = logging.getLogger(__name__)


class EngineClient:
    """An engine in another process (or thread), behind one interface.

    `start` returns at once; `status` tells when it is ready. An engine that dies is started again, with growing delays; one
    that never came up, or can't for a reason that a person must mend, makes `supervise` raise EngineFailed.
    """

    def __init__(
        self,
        spec: EngineSpec,
        limits: EngineLimits | None = None,
        *,
        launch: Callable[[EngineSpec], Worker] = WorkerProcess,
    ) -> None:
        self.spec = spec
        self.limits = limits or EngineLimits()
        self._launch = launch
        self._tokenizer: Tokenizer | None = None
        self._worker: Worker | None = None
        self._connection: ClientEnd | None = None
        self._info: Loaded | None = None
        self._streams: dict[int, GenerationStream] = {}
        self._ids = itertools.count(1)
        self._state = "loading"
        self._running = self._waiting = 0
        self._heard = time.monotonic()
        self._changed = asyncio.Event()  # set when the state may have changed for someone in wait_ready
        self._begun = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer. EngineUnavailable until it is loaded."""
        if self._tokenizer is None:
            raise EngineUnavailable("model_loading")
        return self._tokenizer

    @property
    def info(self) -> Loaded:
        """What the engine said of itself when it had loaded. EngineUnavailable until then."""
        if self._info is None:
            raise EngineUnavailable("model_loading")
        return self._info

    @property
    def status(self) -> EngineStatus:
        """The engine's state now."""
        age = time.monotonic() - self._heard
        slots = self._info.slots if self._info else 0
        return EngineStatus(self._state, self._running, self._waiting, len(self._streams), slots, age)

    async def start(self) -> None:
        """Begin to load; returns at once."""
        self._task = asyncio.create_task(self._keep_running(), name="engine-supervisor")
        self._task.add_done_callback(lambda task: task.cancelled() or task.exception())  # so that it is read
        self._begun.set()

    async def supervise(self) -> None:
        """Return when the engine was closed; raise EngineFailed when it can't run."""
        await self._begun.wait()
        assert self._task is not None
        await asyncio.shield(self._task)

    async def wait_ready(self) -> None:
        """Return when requests are taken. Raises EngineFailed."""
        while self._state != "ready":
            if self._task is not None and self._task.done():
                await self._task
                raise EngineUnavailable("shutting_down")
            await self._changed.wait()

    def check_available(self) -> None:
        """Raise what `generate` would raise now, whatever the request: EngineUnavailable or QueueFull."""
        if self._state == "closed":
            raise EngineUnavailable("shutting_down")
        if self._state != "ready":
            raise EngineUnavailable("model_loading" if self._state == "loading" else "engine_dead")
        # A request holds a slot or a place in the queue until it has ended.
        if len(self._streams) >= self.info.slots + self.limits.max_queue:
            raise QueueFull(f"The queue is full ({self.limits.max_queue} requests are waiting); try again later.")

    def generate(
        self,
        prompt: Sequence[int],
        params: SamplingParams,
        max_tokens: int,
        *,
        stop: Sequence[str] = (),
        logprobs: int | None = None,
    ) -> GenerationStream:
        """Continue `prompt` (at least one id) by up to `max_tokens`; `logprobs` alternatives are reported with each token.

        Raises ContextLengthError, SamplingError, EngineUnavailable, QueueFull: all before anything is sent.
        """
        self.check_available()
        self._check_request(prompt, params, max_tokens)
        request_id = next(self._ids)
        output = OutputProcessor(self.tokenizer, stop, min_tokens=params.min_tokens, prompt_tokens=len(prompt))
        stream = GenerationStream(output, lambda abandoned: self._release(request_id, abandoned))
        self._streams[request_id] = stream
        seed = secrets.randbits(63) if params.seed is None else params.seed
        limits = self.limits
        self._send(
            Submit(
                request_id,
                list(prompt),
                max_tokens,
                params,
                seed,
                logprobs,
                limits.max_queue_wait,
                limits.request_timeout,
            )
        )
        return stream

    async def close(self) -> None:
        """End the engine; requests still in flight fail with EngineUnavailable."""
        loading = self._state == "loading"
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
        self._fail_all("shutting_down")

    def kill(self) -> None:
        """End the engine without waiting for anything."""
        self._set_state("closed")
        if self._worker is not None:
            self._worker.kill()

    def _check_request(self, prompt: Sequence[int], params: SamplingParams, max_tokens: int) -> None:
        context, vocab_size = self.info.context, self.info.vocab_size
        check_fits(len(prompt), max_tokens, context)
        for param, ids in (
            ("logit_bias", params.logit_bias),
            ("stop_token_ids", params.stop_token_ids),
            ("prompt", prompt),
        ):
            wrong = next((token for token in ids if not 0 <= token < vocab_size), None)
            if wrong is not None:
                raise SamplingError(f"{param}: {wrong} is no token id; they go from 0 to {vocab_size - 1}", param)

    def _send(self, message: Submit | Cancel) -> None:
        if self._connection is not None:
            self._connection.send(message)

    def _release(self, request_id: int, abandoned: bool) -> None:
        if self._streams.pop(request_id, None) is not None and abandoned:
            self._send(Cancel(request_id))

    def _set_state(self, state: str) -> None:
        if self._state != "closed":
            self._state = state
        self._changed.set()
        self._changed = asyncio.Event()

    def _fail_all(self, reason: str) -> None:
        self._running = self._waiting = 0
        for stream in list(self._streams.values()):
            stream.fail(EngineUnavailable(reason))

    async def _keep_running(self) -> None:
        """Start the engine, and again whenever it has died."""
        delay = _FIRST_DELAY
        try:
            while self._state != "closed":
                ready_at = await self._run_once()
                if self._state == "closed":
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
        worker = self._worker = self._launch(self.spec)
        connection = self._connection = await ClientEnd.connect(worker.sock)
        connection.send(Start(self.spec))
        ready_at, cause = None, "the connection ended"
        try:
            if self._tokenizer is None:
                self._tokenizer = await asyncio.to_thread(Tokenizer.from_directory, Path(self.spec.model))
            self._handle(await connection.receive())
            ready_at = time.monotonic()
            self._set_state("ready")
            while True:
                async with asyncio.timeout(HEARTBEAT_LIMIT):
                    message = await connection.receive()
                self._handle(message)
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
            self._fail_all("shutting_down" if self._state == "closed" else "engine_dead")
        ended = await asyncio.to_thread(worker.wait, _CLOSE_SECONDS)
        if self._state != "closed":
            logger.error("the engine's process is gone: %s (%s)", cause, ended)
            if self._info is None:
                raise EngineFailed(f"the engine ended while it loaded {self.spec.model} ({ended}); its log is above")
        return ready_at

    def _handle(self, message: FromEngine) -> None:
        self._heard = time.monotonic()
        match message:
            case Step():
                self._running, self._waiting = message.running, message.waiting
                for update in message.updates:
                    stream = self._streams.get(update.id)
                    if stream is not None:
                        stream.feed(update)
            case Loaded():
                self._info = message
                logger.info("engine ready after %.1f s: %s", message.seconds, _describe(message))
            case LoadFailed():
                raise EngineFailed(message.message)


def check_fits(n_prompt: int, max_tokens: int, context: int) -> None:
    """Raise ContextLengthError unless the prompt and `max_tokens` more have room in `context` (all in tokens)."""
    if n_prompt + max_tokens > context:
        raise ContextLengthError(
            f"This model's context is {context} tokens; the prompt has {n_prompt} and {max_tokens} more are asked for. "
            "Shorten the prompt or lower max_tokens.",
            n_prompt,
            context,
        )


def _describe(info: Loaded) -> str:
    return (
        f"{info.device} {info.dtype}, {info.threads} thread{'s' * (info.threads != 1)}, "
        f"{info.slots} slots of {info.context} tokens"
    )
