"""The engine's step: plan, prefill, decode, pick, report. One `Step` out for each."""

import logging
from collections.abc import Callable

from app.engine.messages import Cancel, Started, Step, Submit, TokenLogprobs, Update
from app.engine.runner import Runner
from app.engine.scheduler import Chunk, Request, Scheduler

logger = logging.getLogger(__name__)

Picked = tuple[int, TokenLogprobs | None]


class EngineCore:
    """Owns the requests and drives the runner; knows no sockets.

    `deterministic` runs each row by itself, so that a request's results are bit for bit the same in any company.
    """

    def __init__(self, runner: Runner, scheduler: Scheduler, eos_ids: frozenset[int], *, deterministic: bool) -> None:
        self._runner = runner
        self.scheduler = scheduler
        self._eos_ids = eos_ids
        self._deterministic = deterministic
        self._updates: list[Update] = []

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return self.scheduler.busy or bool(self._updates)

    def handle(self, message: Submit | Cancel) -> None:
        """Take in a message; costs next to nothing."""
        if isinstance(message, Cancel):
            self.scheduler.cancel(message.id)
        elif message.max_tokens == 0:
            self._updates.append(Update(message.id, [], started=Started(0.0, 0.0), finish="length"))
        else:
            ends = frozenset(message.params.stop_token_ids)
            self.scheduler.add(message, ends if message.params.ignore_eos else ends | self._eos_ids)

    def step(self) -> Step:
        """Run one step; without work, just the engine's state."""
        for request, limit in self.scheduler.expired():
            self._fail(request, limit)
        plan = self.scheduler.plan()
        for chunk in plan.prefill:
            self._together([chunk.request], lambda _, chunk=chunk: self._prefill(chunk))
        self._together(plan.decode, self._decode)
        updates, self._updates = self._updates, []
        return Step(updates, len(self.scheduler.running), len(self.scheduler.waiting))

    def _together(self, requests: list[Request], work: Callable[[list[Request]], list[Picked]]) -> None:
        """Do `work` for all of `requests` and report what it picks. Where it fails, each is tried alone, and only those
        whose own work fails are given up: computing a position again writes the same keys and values again."""
        if len(requests) > 1 and not self._deterministic:
            try:
                picked = work(requests)
            except Exception:
                logger.exception("a step over %d requests failed; each is tried alone", len(requests))
            else:
                self._report(requests, picked)
                return
        for request in requests:
            try:
                self._report([request], work([request]))
            except Exception:
                logger.exception("a request failed")
                self._fail(request, "fault")

    def _prefill(self, chunk: Chunk) -> list[Picked]:
        request = chunk.request
        logits = self._runner.prefill(request.slot, request.prompt[chunk.start : chunk.end], chunk.start)
        picked = self._runner.pick(logits, [request.row], [request.submit.logprobs]) if chunk.last else []
        request.prefilled = chunk.end
        return picked

    def _decode(self, requests: list[Request]) -> list[Picked]:
        # The newest token of each row is not in its slot yet: it goes behind the prompt and the tokens before it.
        starts = [len(request.prompt) + len(request.row.output) - 1 for request in requests]
        tokens = [request.row.output[-1] for request in requests]
        logits = self._runner.decode([request.slot for request in requests], tokens, starts)
        rows = [request.row for request in requests]
        return self._runner.pick(logits, rows, [request.submit.logprobs for request in requests])

    def _report(self, requests: list[Request], picked: list[Picked]) -> None:
        if picked:  # none: the prompt needs more chunks
            for request, (token, logprobs) in zip(requests, picked, strict=True):
                self._updates.append(self._advance(request, token, logprobs))

    def _advance(self, request: Request, token: int, logprobs: TokenLogprobs | None) -> Update:
        """Add a token to a request, or end it."""
        update = Update(request.submit.id, [])
        if not request.row.output:
            now = self.scheduler.clock()
            update.started = Started(request.admitted - request.arrived, now - request.admitted)
        if token in request.row.end_ids:
            update.finish = "stop"
            update.stop_token = token if token in request.submit.params.stop_token_ids else None
        else:
            request.row.append(token)
            update.tokens = [token]
            update.logprobs = None if logprobs is None else [logprobs]
            update.finish = "length" if len(request.row.output) == request.submit.max_tokens else None
        if update.finish is not None:
            self.scheduler.remove(request)
        return update

    def _fail(self, request: Request, error: str) -> None:
        self.scheduler.remove(request)
        self._updates.append(Update(request.submit.id, [], error=error))
