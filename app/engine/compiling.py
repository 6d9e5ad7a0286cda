"""The grammar compiler, made when the first grammar is asked for: reading a vocabulary takes too long for a step."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from app.engine.grammar import Constraint, GrammarCompiler
from app.engine.messages import Grammar


class Compiler:
    """A GrammarCompiler that is built on a thread of its own, by `build`, at the first grammar."""

    def __init__(self, build: Callable[[], GrammarCompiler]) -> None:
        self._build = build
        self._builder = ThreadPoolExecutor(1, "grammar-vocabulary")
        self._ready: Future[GrammarCompiler] | None = None

    def submit(self, grammar: Grammar) -> Future[Constraint]:
        """The grammar's constraint, at its start; the future's exception is a HomegrownError where a person can mend it.
        Cancelling it spares the work not yet begun."""
        if self._ready is None:
            self._ready = self._builder.submit(self._build)
        result: Future[Constraint] = Future()
        self._ready.add_done_callback(lambda ready: _begin(ready, grammar, result))
        return result

    def close(self) -> None:
        """Let the threads end. No `submit` afterwards."""
        self._builder.shutdown(wait=False, cancel_futures=True)
        if self._ready is not None:
            self._ready.add_done_callback(
                lambda ready: None if ready.cancelled() or ready.exception() else ready.result().close()
            )


def _begin(ready: Future[GrammarCompiler], grammar: Grammar, result: Future[Constraint]) -> None:
    if ready.cancelled():
        result.cancel()
        return
    error = ready.exception()
    if error is not None:
        if result.set_running_or_notify_cancel():
            result.set_exception(error)
        return
    compiled = ready.result().submit(grammar)
    result.add_done_callback(lambda future: future.cancelled() and compiled.cancel())
    compiled.add_done_callback(lambda future: _pass_on(future, result))


def _pass_on(compiled: Future[Constraint], result: Future[Constraint]) -> None:
    if compiled.cancelled() or not result.set_running_or_notify_cancel():
        return
    error = compiled.exception()
    if error is not None:
        result.set_exception(error)
    else:
        result.set_result(compiled.result())
