"""The engine without a server: a batch of texts in, answers out, with a progress bar. For scripts, notebooks and tests."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from tqdm import tqdm

from app.adapters import adapters_folder, adapters_to_load
from app.engine.checks import check_fits, check_ids, token_ids
from app.engine.client import EngineClient
from app.engine.local import WorkerThread
from app.engine.messages import (
    Delta,
    EngineError,
    EngineLimits,
    EngineSpec,
    Grammar,
    GrammarError,
    InvalidRequest,
    Loaded,
    Token,
    TokenLogprobs,
)
from app.engine.process import Worker, WorkerProcess
from app.engine.stream import GenerationStream
from model.errors import ContextLengthError, SamplingError
from model.hub import resolve_model
from model.processors import available_cpus
from model.sampling_params import SamplingParams
from model.tokenizer import Tokenizer

Prompt = str | Sequence[int]
T = TypeVar("T")

_FOREVER = 1e9  # seconds: a batch has as much time as it needs
_AHEAD = 2  # requests under way for each slot: the queue never runs dry, and a million prompts are not sent at once


@dataclass(frozen=True)
class Answer:
    """One prompt's answer. `error` says in words why there is none; the other fields are then empty.

    `finish_reason`: "stop" or "length". `stop_reason`: the stop string or stop token id that ended it, if one did.
    """

    text: str = ""
    tokens: Sequence[Token] = ()
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    prompt_tokens: int = 0
    error: str | None = None

    @property
    def token_ids(self) -> list[int]:
        """Ids of the generated tokens."""
        return [token.id for token in self.tokens]


class Engine:
    """A model with continuous batching, behind plain function calls. A context manager; one thread at a time may call it.

        with Engine("homegrown-base", quantize="int8") as engine:
            for answer in engine.generate(["Once upon a time", "The sea"], max_tokens=40, progress=True):
                print(answer.text)

    `model` is a bundled or pulled model's name, a Hub id or a model directory; the keyword arguments are EngineSpec's. The
    adapters in the model's own folder `adapters` are loaded under their names, as by the server, unless `adapters` says which. With
    `process` the engine runs in a process of its own, as it does under the server, and with as many threads; else `threads` is
    by default all processors. Raises HomegrownError with one line when the model can't be loaded; all methods
    raise RuntimeError once the engine is closed.
    """

    def __init__(self, model: str | Path = "homegrown-base", *, process: bool = False, **spec: Any) -> None:
        launch: Callable[[EngineSpec], Worker] = WorkerProcess if process else WorkerThread
        if not process and spec.get("threads") is None:
            spec["threads"] = available_cpus()  # there is no server that wants one
        directory = resolve_model(str(model))
        if spec.get("adapters") is None:
            spec["adapters"] = adapters_to_load(adapters_folder(None, directory))
        limits = EngineLimits(max_queue=1 << 20, max_queue_wait=_FOREVER, request_timeout=_FOREVER)
        self._client = EngineClient(EngineSpec(model=str(directory), **spec), limits, launch=launch)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="engine-client", daemon=True)
        self._thread.start()
        try:
            self._run(self._start())
        except BaseException:
            self.close()
            raise

    @property
    def info(self) -> Loaded:
        """What was loaded, and how: slots, context, number formats, threads."""
        return self._client.info

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return self._client.tokenizer

    def generate(
        self,
        prompts: Iterable[Prompt],
        params: SamplingParams | None = None,
        *,
        max_tokens: int = 128,
        stop: Sequence[str] = (),
        logprobs: int | None = None,
        adapter: str | None = None,
        grammar: Grammar | None = None,
        progress: bool = False,
    ) -> list[Answer]:
        """Continue each prompt (a text, or token ids) by up to `max_tokens`; answers in the order of the prompts.

        `params` defaults to greedy. What is wrong with all of them is raised: ContextLengthError, SamplingError and
        InvalidRequest, which name the prompt or the parameter, before anything runs, and GrammarError when the grammar fits
        none. A request that fails on its way becomes an Answer with `error`, and harms no other.
        """
        params = SamplingParams(temperature=0.0) if params is None else params
        ids = self._encode(prompts, max_tokens)
        begun, unfit = False, list[GrammarError]()

        async def ask(prompt: list[int]) -> Answer:
            nonlocal begun
            try:
                stream = self._client.generate(
                    prompt, params, max_tokens, stop=stop, logprobs=logprobs, adapter=adapter, grammar=grammar
                )
                begun = True
                async with stream:
                    delta = await stream.collect()
            except (EngineError, InvalidRequest, SamplingError) as error:
                if not begun and not isinstance(error, EngineError):
                    raise  # the prompts have been checked: what is wrong with the first request is wrong with all
                if isinstance(error, GrammarError):
                    unfit.append(error)
                return Answer(prompt_tokens=len(prompt), error=str(error))
            finish = delta.finish
            assert finish is not None, "collect returns a finished answer"
            return Answer(delta.text, delta.tokens, finish.reason, finish.stop_reason, finish.prompt_tokens)

        answers = self._all(ask, ids, "generate" if progress else None)
        if unfit and len(unfit) == len(answers):
            raise unfit[0]
        return answers

    def stream(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        *,
        max_tokens: int = 128,
        stop: Sequence[str] = (),
        adapter: str | None = None,
        grammar: Grammar | None = None,
    ) -> Iterator[str]:
        """Continue one prompt, yielding text as it comes; to leave early frees the slot. Raises what `generate` does, and
        EngineError when the request fails on its way."""
        params = SamplingParams(temperature=0.0) if params is None else params
        (ids,) = self._encode([prompt], max_tokens)

        async def begin() -> GenerationStream:
            return self._client.generate(ids, params, max_tokens, stop=stop, adapter=adapter, grammar=grammar)

        answer = self._run(begin())
        try:
            while (delta := self._run(_next_delta(answer))) is not None:
                yield delta.text
        finally:
            if not self._loop.is_closed():  # else the request has ended with the engine
                self._run(answer.aclose())

    def score(
        self, texts: Iterable[Prompt], *, adapter: str | None = None, progress: bool = False
    ) -> list[list[float]]:
        """The log-probability of every token of each text but the first, given those before it; natural logarithms.

        The first text that fails ends it all: its error is raised (HomegrownError, EngineError). So it is with `embed` and
        `classify`."""

        async def ask(prompt: list[int]) -> list[float]:
            params = SamplingParams(temperature=0.0)
            async with self._client.generate(prompt, params, 0, prompt_logprobs=0, adapter=adapter) as stream:
                known = (await stream.collect()).prompt_logprobs
            assert known is not None, "asked for"
            return [each.logprob for each in known if isinstance(each, TokenLogprobs)]

        return self._all(ask, self._encode(texts, 0), "score" if progress else None)

    def embed(
        self, texts: Iterable[Prompt], *, adapter: str | None = None, progress: bool = False
    ) -> list[list[float]]:
        """The mean of each text's last hidden states, of length 1; [d_model] floats a text. Raises as `score`."""
        return self._all(
            lambda prompt: self._client.embed(prompt, adapter=adapter),
            self._encode(texts, 0),
            "embed" if progress else None,
        )

    def classify(
        self, texts: Iterable[Prompt], *, adapter: str | None = None, progress: bool = False
    ) -> list[list[float]]:
        """The raw score (before a softmax) of each label, for each text: by the model where it is a classifier, else by
        an adapter's head. The labels' names are in `info`. Raises as `score`."""
        return self._all(
            lambda prompt: self._client.classify(prompt, adapter=adapter),
            self._encode(texts, 0),
            "classify" if progress else None,
        )

    def load_adapter(self, name: str, directory: str | Path) -> None:
        """Load a LoRA adapter (a PEFT directory); requests may name it from then on."""
        self._run(self._client.load_adapter(name, str(directory)))

    def unload_adapter(self, name: str) -> None:
        """Forget an adapter."""
        self._run(self._client.unload_adapter(name))

    def close(self) -> None:
        """End the engine. A closed one stays closed."""
        if self._loop.is_closed():
            return
        self._run(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def _start(self) -> None:
        await self._client.start()
        await self._client.wait_ready()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop.is_closed():
            work.close()  # it would warn that nobody has awaited it
            raise RuntimeError("the engine is closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:  # Ctrl-C in the caller's thread: what runs for it must stop too
            future.cancel()
            raise

    def _encode(self, prompts: Iterable[Prompt], max_tokens: int) -> list[list[int]]:
        """Token ids of each prompt. Raises ContextLengthError, SamplingError or InvalidRequest for the first that can't be
        used, and says which it is."""
        params = SamplingParams()
        rows: list[list[int]] = []
        for number, prompt in enumerate(prompts):
            try:
                ids = self.tokenizer.encode_prompt(prompt) if isinstance(prompt, str) else token_ids(prompt)
                check_fits(len(ids), max_tokens, self.info.context)
                check_ids(ids, params, self.info.vocab_size)
            except ContextLengthError as error:
                raise ContextLengthError(f"prompt {number}: {error}", error.n_prompt_tokens, error.n_ctx) from None
            except (InvalidRequest, SamplingError) as error:
                raise type(error)(f"prompt {number}: {error}", error.param) from None
            rows.append(ids)
        return rows

    def _all(
        self, ask: Callable[[list[int]], Coroutine[Any, Any, T]], rows: list[list[int]], label: str | None
    ) -> list[T]:
        """`ask` for each row, as many at once as keep the slots busy; results in the rows' order."""
        return self._run(_gather(ask, rows, _AHEAD * self.info.slots, label))


async def _next_delta(answer: GenerationStream) -> Delta | None:
    return await anext(answer, None)


async def _gather(
    ask: Callable[[list[int]], Coroutine[Any, Any, T]], rows: list[list[int]], width: int, label: str | None
) -> list[T]:
    results: dict[int, T] = {}
    waiting = iter(enumerate(rows))
    with tqdm(total=len(rows), desc=label, unit="text", disable=label is None) as bar:

        async def work() -> None:
            for index, row in waiting:  # all workers take from one iterator
                results[index] = await ask(row)
                bar.update()

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(width, len(rows))):
                    group.create_task(work())
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None  # the caller knows of no group
    return [results[index] for index in range(len(rows))]
