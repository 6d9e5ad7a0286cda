"""The rest of the service's view of the engine: submit a prompt, read deltas; it is started, watched and restarted here."""

import array
import asyncio
import itertools
import logging
import math
import secrets
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from app.engine.checks import check_fits, check_ids, check_logprobs, check_stops, token_ids, whole
from app.engine.inspector import Inspected, InspectJob, Inspector
from app.engine.messages import (
    AdapterFailed,
    AdapterLoaded,
    AdapterUnloaded,
    Cancel,
    EngineLimits,
    EngineSpec,
    EngineStatus,
    EngineUnavailable,
    FromEngine,
    Grammar,
    InvalidRequest,
    Loaded,
    QueueFull,
    Step,
    Submit,
    Task,
    ToEngine,
    Update,
)
from app.engine.observer import Observer
from app.engine.output import OutputProcessor
from app.engine.process import Worker, WorkerProcess
from app.engine.registry import AdapterRegistry
from app.engine.stream import GenerationStream, PendingResult
from app.engine.supervisor import HEARTBEAT_LIMIT, Supervisor
from model.sampling_params import SamplingParams
from model.tokenizer import Tokenizer

__all__ = ["HEARTBEAT_LIMIT", "EngineClient", "check_fits"]

_GREEDY = SamplingParams(temperature=0.0)

logger = logging.getLogger(__name__)


class EngineClient:
    """An engine in another process (or thread), behind one interface.

    `start` returns at once; `status` tells when it is ready. An engine that dies is started again, with the adapters it had; one
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
        self._supervisor = Supervisor(spec, launch, self)
        self._tokenizer: Tokenizer | None = None
        self._info: Loaded | None = None
        self._adapters = AdapterRegistry(spec.adapters, self._supervisor.send)
        self.inspector = Inspector(spec)
        self._streams: dict[int, GenerationStream | PendingResult] = {}
        self._ids = itertools.count(1)
        self._running = self._waiting = 0
        self.observer = Observer()  # metrics put theirs here

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
        age = time.monotonic() - self._supervisor.heard
        slots = self._info.slots if self._info else 0
        return EngineStatus(self._supervisor.state, self._running, self._waiting, len(self._streams), slots, age)

    @property
    def pid(self) -> int | None:
        """The engine's process; None while there is none of its own."""
        return self._supervisor.pid

    @property
    def adapters(self) -> Mapping[str, Sequence[str]]:
        """The adapters that requests can name now, each with its labels: none unless it classifies."""
        return self._adapters.labels

    async def start(self) -> None:
        """Begin to load; returns at once."""
        await self._supervisor.start()

    async def supervise(self) -> None:
        """Return when the engine was closed; raise EngineFailed when it can't run."""
        await self._supervisor.supervise()

    async def wait_ready(self) -> None:
        """Return when requests are taken. Raises EngineFailed."""
        await self._supervisor.wait_ready()

    async def close(self) -> None:
        """End the engine; requests still in flight fail with EngineUnavailable."""
        await self.inspector.close()
        await self._supervisor.close()

    def kill(self) -> None:
        """End the engine without waiting for anything."""
        self.inspector.kill()
        self._supervisor.kill()

    def check_available(self) -> None:
        """Raise what `generate` would raise now, whatever the request: EngineUnavailable or QueueFull."""
        self._supervisor.check_ready()
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
        adapter: str | None = None,
        prompt_logprobs: int | None = None,
        score_from: int = 0,
        grammar: Grammar | None = None,
        speculate: bool = True,
    ) -> GenerationStream:
        """Continue `prompt` (at least one id) by up to `max_tokens`; `logprobs` alternatives are reported with each token.

        `prompt_logprobs`: also score the prompt's own tokens from index `score_from` on, with so many alternatives; they come
        with the first delta (the very first token has none). With `max_tokens` 0 nothing else is done. `grammar`: what the text
        must match. `speculate` False forbids drafting, which never changes an answer.

        Raises ContextLengthError, SamplingError, InvalidRequest, EngineUnavailable, QueueFull: all before anything is sent. A
        grammar that can't be used is found out later: the stream then raises GrammarError.
        """
        self.check_available()
        prompt = token_ids(prompt)
        max_tokens, score_from = whole(max_tokens, "max_tokens"), whole(score_from, "score_from")
        logprobs = None if logprobs is None else whole(logprobs, "logprobs")
        prompt_logprobs = None if prompt_logprobs is None else whole(prompt_logprobs, "prompt_logprobs")
        check_stops(stop)
        check_fits(len(prompt), max_tokens, self.info.context)
        check_ids(prompt, params, self.info.vocab_size)
        check_logprobs(len(prompt), logprobs, prompt_logprobs, score_from, self.info.vocab_size)
        self._check_model(adapter, "generate")
        request_id = next(self._ids)
        output = OutputProcessor(self.tokenizer, stop, min_tokens=params.min_tokens, prompt_tokens=len(prompt))
        stream = GenerationStream(output, lambda abandoned: self._release(request_id, abandoned))
        submit = self._submit(request_id, prompt, "generate", adapter, params, max_tokens)
        submit.logprobs, submit.prompt_logprobs, submit.score_from = logprobs, prompt_logprobs, score_from
        submit.grammar, submit.speculate = grammar, speculate
        self._supervisor.send(submit)
        self._streams[request_id] = stream  # after it is sent: what can't be sent must not keep a place
        self.observer.on_submit(submit)
        return stream

    async def embed(self, prompt: Sequence[int], *, adapter: str | None = None) -> list[float]:
        """The mean over the prompt's positions of the final hidden states, scaled to length 1: [d_model] floats. Errors as
        `generate`."""
        embedding = (await self._result(prompt, "embed", adapter)).embedding
        assert embedding is not None, "an embedding ends with one"
        values = array.array("f", embedding)
        if sys.byteorder == "big":
            values.byteswap()
        norm = math.sqrt(math.fsum(value * value for value in values)) or 1.0
        return [value / norm for value in values]

    async def classify(self, prompt: Sequence[int], *, adapter: str | None = None) -> list[float]:
        """The raw score (before a softmax) of each label: the adapter's labels, or the model's. Errors as `generate`;
        InvalidRequest when neither classifies."""
        scores = (await self._result(prompt, "classify", adapter)).scores
        assert scores is not None, "a classification ends with scores"
        return scores

    async def inspect(
        self, prompt: Sequence[int], *, adapter: str | None = None, layers: list[int] | None = None
    ) -> Inspected:
        """What attention takes from where in `layers` (None: all), and what each layer would say next; computed beside the engine.
        Errors as `generate`, but that the queue is the inspector's own; RequestTimeout, InspectorUnavailable."""
        self._supervisor.check_ready()
        prompt = token_ids(prompt)
        check_fits(len(prompt), 0, self.info.context)
        check_ids(prompt, _GREEDY, self.info.vocab_size)
        self._check_model(adapter, "generate")
        path = None if adapter is None else self._adapters.path(adapter)
        return await self.inspector.inspect(InspectJob(prompt, path, layers))

    async def load_adapter(self, name: str, path: str) -> Sequence[str]:
        """Load the adapter in directory `path` (PEFT's layout) and call it `name`; its labels, none unless it classifies. It is
        loaded again whenever the engine starts again. Raises AdapterError, InvalidRequest, EngineUnavailable."""
        self._supervisor.check_ready()
        return await self._adapters.load(name, path)

    async def unload_adapter(self, name: str) -> None:
        """Forget an adapter. Requests that use it finish first; new ones are refused at once. Raises AdapterError,
        EngineUnavailable (then it is gone too)."""
        self._supervisor.check_ready()
        await self._adapters.unload(name)

    async def _result(self, prompt: Sequence[int], task: Task, adapter: str | None) -> Update:
        """The last update of a request that ends with its prompt."""
        self.check_available()
        prompt = token_ids(prompt)
        check_fits(len(prompt), 0, self.info.context)
        check_ids(prompt, _GREEDY, self.info.vocab_size)
        self._check_model(adapter, task)
        request_id = next(self._ids)
        pending = PendingResult(lambda abandoned: self._release(request_id, abandoned))
        submit = self._submit(request_id, prompt, task, adapter, _GREEDY, 0)
        self._supervisor.send(submit)
        self._streams[request_id] = pending
        self.observer.on_submit(submit)
        return await pending.wait()

    def _submit(
        self,
        request_id: int,
        prompt: list[int],
        task: Task,
        adapter: str | None,
        params: SamplingParams,
        max_tokens: int,
    ) -> Submit:
        seed = secrets.randbits(63) if params.seed is None else params.seed
        wait, life = self.limits.max_queue_wait, self.limits.request_timeout
        return Submit(
            request_id, prompt, max_tokens, params, seed, queue_limit=wait, run_limit=life, task=task, adapter=adapter,
            sent=time.monotonic(),
        )  # fmt: skip

    def _check_model(self, adapter: str | None, task: Task) -> None:
        """InvalidRequest when there is no such adapter, or the model (with it) isn't made for this."""
        if adapter is not None and adapter not in self.adapters:
            raise self._adapters.unknown(adapter)
        labels = (adapter and self.adapters[adapter]) or self.info.labels
        what = "model" if adapter is None else "adapter"
        if task == "classify" and not labels:
            raise InvalidRequest(f"{what}: it is no classifier; name one that is", what)
        if task == "generate" and labels:
            raise InvalidRequest(f"{what}: it is a classifier, which can't generate; name a language model", what)

    def _release(self, request_id: int, abandoned: bool) -> None:
        stream = self._streams.pop(request_id, None)
        if stream is None:
            return
        self.observer.on_end(request_id, stream.outcome)
        if abandoned:
            self._supervisor.send(Cancel(request_id))

    async def prepare(self) -> None:
        """The supervisor's: the tokenizer is read while the engine loads."""
        if self._tokenizer is None:
            self._tokenizer = await asyncio.to_thread(Tokenizer.from_directory, Path(self.spec.model))

    def on_ready(self, info: Loaded, *, again: bool) -> list[ToEngine]:
        """The supervisor's: an engine that starts again gets the adapters back that it had. Requests may name them at once,
        and wait in the queue until they are there."""
        self._info = info
        self.observer.on_ready(info, again=again)
        logger.info("engine ready after %.1f s: %s", info.seconds, _describe(info))
        if again:
            return self._adapters.restore()
        self._adapters.labels.update(info.adapters)
        return []

    def on_message(self, message: FromEngine) -> None:
        """The supervisor's."""
        match message:
            case Step():
                self._running, self._waiting = message.running, message.waiting
                self.observer.on_step(message)
                for update in message.updates:
                    stream = self._streams.get(update.id)
                    if stream is not None:
                        stream.feed(update)
            case AdapterLoaded() | AdapterUnloaded() | AdapterFailed():
                self._adapters.on_message(message)

    def on_lost(self, reason: str) -> None:
        """The supervisor's."""
        self._running = self._waiting = 0
        for stream in list(self._streams.values()):
            stream.fail(EngineUnavailable(reason))
        self._adapters.on_lost(EngineUnavailable(reason))


def _describe(info: Loaded) -> str:
    weights = info.dtype if info.quantize == "none" else info.quantize
    return (
        f"{info.device} {weights}, {info.kernels} kernels, {info.threads} thread{'s' * (info.threads != 1)}, "
        f"{info.slots} slots of {info.context} tokens"
    )
