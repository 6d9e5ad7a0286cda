"""One request's answer as its consumer sees it: an async iterator of deltas, merged when the consumer is slower."""

import asyncio
import time
from collections.abc import Callable
from typing import Self

from app.engine.messages import (
    AdapterError,
    Delta,
    Finish,
    GrammarError,
    InvalidRequest,
    RequestCancelled,
    RequestFault,
    RequestTimeout,
    Started,
    Timings,
    TokenLogprobs,
    Update,
)
from app.engine.output import OutputProcessor

_TIMEOUTS = {
    "queue_timeout": "The request waited too long for a free slot; try again later.",
    "run_timeout": "The request took longer than this server allows; ask for fewer tokens.",
}


def _to_exception(update: Update) -> Exception:
    """What an update's `error` means."""
    assert update.error is not None
    if update.error in _TIMEOUTS:
        return RequestTimeout(_TIMEOUTS[update.error], update.error)
    if update.message is None:
        return RequestFault(f"the engine reported: {update.error}")
    errors = {"grammar": GrammarError, "adapter": AdapterError}
    kind = errors.get(update.error)
    return InvalidRequest(update.message, update.error) if kind is None else kind(update.message)


class GenerationStream:
    """Deltas of one answer; the last one carries the finish. Memory is bounded by the answer, however slowly it is read.

    Leaving it (`aclose`, `cancel`, the end of `async with`) before its end frees the request's slot.
    """

    def __init__(self, output: OutputProcessor, release: Callable[[bool], None]) -> None:
        """`release(abandoned)` is called once: when the answer is complete (False), or nobody wants it any more (True)."""
        self._output = output
        self._release = release
        self._released = False
        self._error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._started = Started(0.0, 0.0)
        self._first_token = 0.0
        self._prompt_logprobs: list[TokenLogprobs | None] | None = None
        self._done = False  # the last delta has been taken
        self._whole = False  # the reader wants the answer in one piece

    @property
    def outcome(self) -> Finish | BaseException | None:
        """How it ended, once it has been released."""
        return self._output.finished if self._error is None else self._error

    @property
    def _readable(self) -> bool:
        """Whether there is something for the reader; for one that collects, only the whole."""
        return self._output.has_delta and (self._released or not self._whole)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delta:
        """The next delta, at once when there is text to show. A cancelled wait loses nothing."""
        while not self._readable and self._error is None:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self._done:
            raise StopAsyncIteration
        if not self._output.has_delta and self._error is not None:
            raise self._error
        delta = self._output.take()
        delta.prompt_logprobs, self._prompt_logprobs = self._prompt_logprobs, None
        self._done = delta.finish is not None
        return delta

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop reading."""
        self.cancel()

    def cancel(self) -> None:
        """Give the request up, from any task; a consumer that is still reading gets RequestCancelled."""
        self.fail(RequestCancelled("the request was cancelled"))

    async def collect(self) -> Delta:
        """The whole answer as one delta. Its reader is woken at the end alone: on few cores that is time for the engine."""
        self._whole = True
        texts, tokens, finish, scored = [], [], None, None
        async for delta in self:
            texts.append(delta.text)
            tokens.extend(delta.tokens)
            finish = delta.finish
            scored = delta.prompt_logprobs if scored is None else scored
        return Delta("".join(texts), tokens, finish, scored)

    def feed(self, update: Update) -> None:
        """Take in what a step did for this request. An error in here is this request's own and ends it alone."""
        if self._released:
            return
        try:
            self._absorb(update)
        except Exception as error:
            self.fail(RequestFault(f"the answer could not be put together ({type(error).__name__})"), cause=error)
        if self._readable:
            self._wake()

    def fail(self, error: BaseException, *, cause: BaseException | None = None) -> None:
        """End the stream with `error`; what was ready before it is still given out. Nothing happens after the end."""
        if not self._released:
            error.__cause__ = cause
            self._error = error
            self._let_go(abandoned=True)
        self._wake()

    def _absorb(self, update: Update) -> None:
        if update.started is not None:
            self._started = update.started
            self._first_token = time.monotonic()
        if update.error is not None:
            self.fail(_to_exception(update))
            return
        if update.prompt_logprobs is not None:
            self._prompt_logprobs = (self._prompt_logprobs or []) + update.prompt_logprobs
        for i, token in enumerate(update.tokens):
            self._output.push(token, update.logprobs[i] if update.logprobs else None)
        if self._output.stopped or update.finish is not None:
            # The engine's own measure, where it ended the request: a reader that lags gets many steps at once.
            measured = time.monotonic() - self._first_token if self._first_token else 0.0
            decode = measured if update.decode is None else update.decode
            timings = Timings(self._started.queue, self._started.prefill, decode, self._started.cached)
            self._output.finish(update.finish or "stop", update.stop_token, timings)
            self._let_go(abandoned=update.finish is None)

    def _let_go(self, *, abandoned: bool) -> None:
        self._released = True
        self._release(abandoned)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class PendingResult:
    """A request whose answer is its last update: an embedding, or scores. Whoever stops waiting frees its slot."""

    def __init__(self, release: Callable[[bool], None]) -> None:
        """`release(abandoned)` is called once, as for GenerationStream."""
        self._release = release
        self._future: asyncio.Future[Update] = asyncio.get_running_loop().create_future()
        self._future.add_done_callback(lambda future: future.cancelled() or future.exception())  # so that it is read

    @property
    def outcome(self) -> BaseException | None:
        """How it ended, once it has been released: None for well."""
        if not self._future.done() or self._future.cancelled():
            return RequestCancelled("the request was cancelled")
        return self._future.exception()

    async def wait(self) -> Update:
        """The last update. Raises what the request failed with."""
        try:
            return await self._future
        finally:
            self._release(not self._future.done() or self._future.cancelled())

    def feed(self, update: Update) -> None:
        """Take in what a step did for this request."""
        if update.error is not None:
            self.fail(_to_exception(update))
        elif update.finish is not None and not self._future.done():
            self._future.set_result(update)

    def fail(self, error: BaseException) -> None:
        """End it with `error`; nothing happens after the end."""
        if not self._future.done():
            self._future.set_exception(error)
