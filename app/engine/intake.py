"""A message to generate, embed or classify -> a request that can be queued, with what it needs before it can run."""

from collections.abc import Callable
from concurrent.futures import Future

from app.engine.adapters import Adapters
from app.engine.compiling import Compiler
from app.engine.messages import AdapterError, InvalidRequest, Submit
from app.engine.picking import Ask
from app.engine.pooling import Mean
from app.engine.requests import Request
from app.engine.speculation import Drafter
from model.backend import Backend
from model.sampling import SamplingRow


class Intake:
    """Makes requests, and keeps those that wait for an adapter to be read or a grammar to be compiled."""

    def __init__(
        self,
        backend: Backend,
        adapters: Adapters,
        compiler: Compiler | None,
        eos_ids: frozenset[int],
        wake: Callable[[], None],
        *,
        speculate: bool,
    ) -> None:
        self._backend, self._adapters, self._compiler = backend, adapters, compiler
        self._eos_ids, self._wake, self._speculate = eos_ids, wake, speculate
        self.pending: list[Request] = []

    def make(self, submit: Submit, now: float) -> Request:
        """The request; its adapter is held from now on. Its time runs from when it was sent: messages are read between steps,
        and a step can be long. Raises InvalidRequest."""
        self._check(submit)
        arrived = now if submit.sent is None else min(submit.sent, now)
        params = submit.params
        ends = frozenset(params.stop_token_ids) | (frozenset() if params.ignore_eos else self._eos_ids)
        row = SamplingRow(params, submit.seed, submit.prompt, end_ids=ends)
        request = Request(submit, row, arrived, Ask(row, (), submit.logprobs))
        if submit.task == "embed":
            request.mean = Mean(self._backend.config.d_model)
        if submit.task == "generate" and submit.speculate and self._speculate:
            request.drafter = Drafter(submit.prompt)
        adapter = None if submit.adapter is None else self._adapters.find(submit.adapter)
        waits: list[Future] = []
        if adapter is not None and adapter.number == 0:
            waits.append(adapter.reading)
        else:
            self._check_task(submit, adapter and adapter.head is not None)
        if submit.grammar is not None:
            assert self._compiler is not None
            request.compiled = self._compiler.submit(submit.grammar)
            request.compiled.add_done_callback(lambda _: self._wake())
            waits.append(request.compiled)
        if adapter is not None:
            request.adapter = adapter
            self._adapters.acquire(adapter)
        if waits:
            request.pending = waits
            self.pending.append(request)
        return request

    def settle(self) -> list[tuple[Request, Exception]]:
        """Let those go that wait for nothing any more; the ones for which it won't come, and why."""
        failed: list[tuple[Request, Exception]] = []
        for request in [r for r in self.pending if all(future.done() for future in r.pending)]:
            self.pending.remove(request)
            request.pending = []
            adapter = request.adapter
            try:
                if adapter is not None and adapter.error is not None:
                    raise AdapterError(adapter.error)
                self._check_task(request.submit, adapter and adapter.head is not None)
                if request.compiled is not None:
                    request.ask.constraint = request.compiled.result()
            except Exception as error:
                failed.append((request, error))
        return failed

    def drop(self, request: Request) -> None:
        """A request is leaving; it need not have waited."""
        if request.pending:
            self.pending.remove(request)
            if request.compiled is not None:
                request.compiled.cancel()

    def _check(self, submit: Submit) -> None:
        """The client has checked all this; a mistake of its own must not reach a tensor."""
        size, context = len(submit.prompt), self._backend.context
        if not submit.prompt or size + submit.max_tokens > context:
            raise InvalidRequest(f"prompt: {size} tokens and {submit.max_tokens} more don't fit {context}", "prompt")
        if submit.grammar is not None and self._compiler is None:
            raise InvalidRequest("grammar: this engine has no compiler for grammars", "grammar")

    def _check_task(self, submit: Submit, adapter_classifies: bool | None) -> None:
        """InvalidRequest when the model, or its adapter (None: there is none), is not made for what is asked."""
        classifies = bool(adapter_classifies) or self._backend.score_head is not None
        what = "model" if adapter_classifies is None else "adapter"
        if submit.task == "classify" and not classifies:
            raise InvalidRequest(f"{what}: it is no classifier; name one that is", what)
        if submit.task == "generate" and classifies:
            raise InvalidRequest(f"{what}: it is a classifier; it has no language-model head to generate with", what)
