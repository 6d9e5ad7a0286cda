"""The engine's step: plan, one forward over everything, pick, report. One `Step` out for each."""

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from app.engine.adapters import Adapter, Adapters, Reply
from app.engine.compiling import Compiler
from app.engine.intake import Intake
from app.engine.messages import (
    Cancel,
    InvalidRequest,
    LoadAdapter,
    Started,
    Step,
    Submit,
    UnloadAdapter,
    Update,
)
from app.engine.picking import Ask, pick
from app.engine.requests import Outcome, Request, Work
from app.engine.results import settle
from app.engine.scheduler import Scheduler
from app.engine.speculation import acceptance_needed, draft_budget
from model.backend import Backend, Segment
from model.errors import SamplingError

logger = logging.getLogger(__name__)


class EngineCore:
    """Owns the requests and drives the back end; knows no sockets.

    `deterministic` runs each piece of work by itself where the back end's results depend on company, so that a request's
    answers are bit for bit the same in any. (The scheduler must then have `fixed_chunks`.)
    """

    def __init__(
        self,
        backend: Backend,
        scheduler: Scheduler,
        eos_ids: frozenset[int],
        *,
        deterministic: bool = False,
        speculate: bool = True,
        compiler: Compiler | None = None,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        """`wake` is called, on another thread, when a step has something to do that it hadn't before."""
        self._backend, self.scheduler = backend, scheduler
        self._alone = deterministic and not backend.invariant
        # A drafted token makes a wider product, so a back end that isn't invariant would give other last bits with drafts.
        self._speculate = speculate and not self._alone
        self._compiler = compiler
        self.adapters = Adapters(backend, wake, scheduler.slots.forget)
        self._intake = Intake(backend, self.adapters, compiler, eos_ids, wake, speculate=self._speculate)
        self._updates: list[Update] = []
        self._replies: list[Reply] = []

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return self.scheduler.busy or bool(self._updates) or bool(self._replies)

    def handle(self, message: Submit | Cancel | LoadAdapter | UnloadAdapter) -> None:
        """Take in a message; costs next to nothing."""
        match message:
            case Submit():
                self._submit(message)
            case Cancel():
                request = self.scheduler.get(message.id)
                if request is not None:  # else it has ended already
                    self._remove(request)
            case LoadAdapter():
                self._reply(self.adapters.load(message.name, message.path))
            case UnloadAdapter():
                self._reply(self.adapters.unload(message.name))

    def step(self) -> Step:
        """Run one step; without work, just the engine's state."""
        for request, limit in self.scheduler.expired():
            self._end(request, Update(request.submit.id, [], error=limit))
        if self._intake.pending or self.adapters.reading:
            self._replies += self.adapters.poll()
            for request, error in self._intake.settle():
                self._fail(request, error)
        seconds, rows = self._run_step()
        updates, self._updates = self._updates, []
        return Step(updates, len(self.scheduler.running), len(self.scheduler.waiting), seconds, rows)

    def replies(self) -> list[Reply]:
        """Answers about adapters since the last call."""
        replies, self._replies = self._replies, []
        return replies

    def check_integrity(self) -> None:
        """RuntimeError when something was lost, doubled or left behind. For when the engine is idle."""
        self.scheduler.check_integrity(self._backend.context, self.adapters.numbers)
        used: dict[Adapter, int] = {}
        for request in self.scheduler.requests():
            if request.adapter is not None:
                used[request.adapter] = used.get(request.adapter, 0) + 1
        problem = self.adapters.problem(used)
        waiting = {id(request) for request in self.scheduler.waiting.values() if request.pending}
        if not problem and waiting != {id(request) for request in self._intake.pending}:
            problem = (
                f"{len(self._intake.pending)} requests wait for a grammar or an adapter, {len(waiting)} in the queue"
            )
        if problem:
            raise RuntimeError(problem)

    def close(self) -> None:
        """End the threads beside the steps, and free the model."""
        self.adapters.close()
        if self._compiler is not None:
            self._compiler.close()
        self._backend.close()

    def _submit(self, submit: Submit) -> None:
        if submit.task == "generate" and submit.max_tokens == 0 and submit.prompt_logprobs is None:
            self._updates.append(Update(submit.id, [], started=Started(0.0, 0.0), finish="length"))
            return
        try:
            self.scheduler.add(self._intake.make(submit, self.scheduler.clock()))
        except Exception as error:
            if not isinstance(error, InvalidRequest):
                logger.exception("a request could not be taken in")
            self._updates.append(_failure(submit.id, error))

    @torch.inference_mode()
    def _run_step(self) -> tuple[float, int]:
        """Plan and compute; how long that took, and for how many requests."""
        plan = self.scheduler.plan()
        if not plan.decode and not plan.prefill:
            return 0.0, 0
        began = self.scheduler.clock()
        works = self._draft(plan.decode, speculate=not plan.prefill)
        n_decoding, n_drafted = len(works), sum([len(work.segment.tokens) - 1 for work in works])
        works += plan.prefill
        failed = self._run_all([[work] for work in works] if self._alone else [works] if works else [])
        if failed:
            self._give_up(failed, everything=len(failed) == len(works))
            return 0.0, 0  # its time says nothing of other steps
        n_prompt = sum([len(work.segment.tokens) for work in plan.prefill])
        seconds = self.scheduler.clock() - began
        self.scheduler.costs.observe(n_decoding, n_prompt, seconds, n_drafted=n_drafted)
        return seconds, len(works)

    def _draft(self, decode: Sequence[Request], *, speculate: bool) -> list[Work]:
        """The decoding requests' work, with drafted tokens where they pay; beside prompts there is no room for them."""
        cost = self.scheduler.costs.speculation
        n_decoding = len(decode)
        room = draft_budget(n_decoding, cost) if speculate and self._speculate else 0
        if room <= 0:
            return [Work.decode(request, ()) for request in decode]
        least = acceptance_needed(n_decoding, cost)
        works = []
        for request in decode:
            drafts: list[int] = []
            left = request.submit.max_tokens - len(request.row.output) - 1
            if request.drafter is not None and room > 0 and left > 0:
                output, constraint = request.row.output, request.ask.constraint
                try:
                    drafts = request.drafter.draft(output, min(room, left), constraint=constraint, least=least)
                except Exception as error:  # the grammar's parser has a part in it
                    self._refuse(request, error)
                    continue
                room -= len(drafts)
            works.append(Work.decode(request, drafts))
        return works

    def _run_all(self, groups: list[list[Work]]) -> list[tuple[Work, Exception]]:
        """Compute each group at once and report. Where one fails, its works are tried alone: computing a position again writes
        the same keys and values again. Those that fail alone too, with the reason."""
        failed: list[tuple[Work, Exception]] = []
        for group in groups:
            error = self._run(group)
            if error is not None and len(group) > 1:
                logger.error("a step over %d requests failed; each is tried alone", len(group), exc_info=error)
                failed += self._run_all([[work] for work in group])
            elif error is not None:
                failed.append((group[0], error))
        return failed

    def _run(self, works: list[Work]) -> Exception | None:
        """Compute `works` together and report; or nothing of it, where computing fails."""
        try:
            outcomes = self._compute(works)
        except Exception as error:
            return error
        for work, outcome in zip(works, outcomes, strict=True):
            try:
                self._settle(work, outcome)
            except Exception as error:
                self._refuse(work.request, error, spoilt=isinstance(error, FloatingPointError))
        return None

    def _give_up(self, failed: list[tuple[Work, Exception]], *, everything: bool) -> None:
        """End the requests whose work failed. If that is `everything` there was to do, the back end is tried on a single
        token: RuntimeError where that fails too, for only a new start can mend it."""
        for work, error in failed:
            logger.error("a request failed", exc_info=error)
            self._fail(work.request, error, spoilt=True)
        if not everything:
            return
        try:
            # What slots without a request held has just been given up, so there is nothing to be lost.
            hidden = self._backend.forward([Segment(failed[0][0].segment.slot, 0, [0])])
            if self._backend.score_head is None:
                self._backend.logits(hidden)
        except Exception as error:
            raise RuntimeError(f"the model can't compute any more: {error}") from error

    def _compute(self, works: list[Work]) -> list[Outcome]:
        """One forward, then logits for the rows that give tokens alone."""
        hidden = self._backend.forward([work.segment for work in works])  # [all outputs, D]
        outcomes: list[Outcome] = []
        rows: list[int] = []
        asks: list[Ask] = []
        asking: list[Outcome] = []
        end = 0
        for work in works:
            begin, end = end, end + work.segment.outputs
            outcome = Outcome(begin, end, hidden)
            outcomes.append(outcome)
            if work.picks:
                ask = work.request.ask
                rows.extend(range(end - 1 - len(ask.drafts), end))
                asks.append(ask)
                asking.append(outcome)
        if asks:
            for outcome, picked in zip(asking, pick(self._backend.logits(_select(hidden, rows)), asks), strict=True):
                outcome.picked = picked
        return outcomes

    def _settle(self, work: Work, outcome: Outcome) -> None:
        request = work.request
        if work.prefill:
            self.scheduler.prefilled(request, work.segment.tokens)
        update = settle(work, outcome, self._backend, self.scheduler.clock())
        if update is None:
            return
        if update.finish is None:
            self._updates.append(update)
        else:
            self._end(request, update)

    def _refuse(self, request: Request, error: Exception, *, spoilt: bool = False) -> None:
        if not isinstance(error, InvalidRequest | SamplingError):
            logger.error("a request failed", exc_info=error)
        self._fail(request, error, spoilt=spoilt)

    def _fail(self, request: Request, error: Exception, *, spoilt: bool = False) -> None:
        self._end(request, _failure(request.submit.id, error), spoilt=spoilt)

    def _end(self, request: Request, update: Update, *, spoilt: bool = False) -> None:
        self._remove(request, spoilt=spoilt)
        self._updates.append(update)

    def _remove(self, request: Request, *, spoilt: bool = False) -> None:
        self._intake.drop(request)
        self.scheduler.remove(request, spoilt=spoilt)
        if request.adapter is not None:
            self._reply(self.adapters.release(request.adapter))

    def _reply(self, reply: Reply | None) -> None:
        if reply is not None:
            self._replies.append(reply)


def _select(hidden: Tensor, rows: list[int]) -> Tensor:
    """Rows [R, D] of hidden; itself, or its beginning, where these are the ones."""
    if rows[-1] == len(rows) - 1:  # they rise, so they are 0, 1, ...
        return hidden[: len(rows)] if len(rows) < len(hidden) else hidden
    return hidden[torch.tensor(rows, device=hidden.device)]


def _failure(request_id: int, error: Exception) -> Update:
    """A person can mend an invalid parameter; of anything else only the log says more."""
    if isinstance(error, InvalidRequest | SamplingError):
        return Update(request_id, [], error=error.param, message=str(error))
    return Update(request_id, [], error="fault")
