"""Who runs next: a queue in order of arrival, fixed slots, and prompts cut into chunks. Holds no tensors.

A request is admitted when a slot is free. Every slot is as long as the context and the client has checked that prompt and
max_tokens fit into it, so an admitted request always runs to its end: nothing is ever preempted.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from app.engine.messages import Submit
from model.sampling import SamplingRow

# A forward pass reads all weights however few its tokens, so a short prompt costs about as much as this many tokens. Counting
# it so bounds the forwards, and with them the pause of the running streams, when many short prompts come at once.
_LEAST_COST = 64


@dataclass(eq=False, slots=True)
class Request:
    """A submitted request on the engine's side."""

    submit: Submit
    row: SamplingRow
    arrived: float
    admitted: float = 0.0
    slot: int = -1  # -1: waiting
    prefilled: int = 0  # prompt tokens whose keys and values are in the slot

    @property
    def prompt(self) -> list[int]:
        """The prompt's token ids."""
        return self.submit.prompt

    @property
    def decoding(self) -> bool:
        """Whether the whole prompt is in the slot: each step adds a token."""
        return self.prefilled == len(self.prompt)


@dataclass(frozen=True, slots=True)
class Chunk:
    """The part [start, end) of a request's prompt that one step prefills."""

    request: Request
    start: int
    end: int

    @property
    def last(self) -> bool:
        """Whether the prompt is complete with it: its last position gives the first token."""
        return self.end == len(self.request.prompt)


@dataclass(frozen=True, slots=True)
class Plan:
    """One step: prefill these chunks, then decode one token for each of these requests."""

    prefill: list[Chunk]
    decode: list[Request]


@dataclass(slots=True)
class Scheduler:
    """Slots and queue. All times come from `clock`, in seconds."""

    n_slots: int
    prefill_chunk: int
    clock: Callable[[], float] = time.monotonic
    waiting: deque[Request] = field(default_factory=deque, init=False)
    running: dict[int, Request] = field(default_factory=dict, init=False)  # by slot, in order of admission
    _free: list[int] = field(init=False)
    _by_id: dict[int, Request] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._free = list(range(self.n_slots))

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._by_id)

    def add(self, submit: Submit, end_ids: frozenset[int]) -> None:
        """Put a request at the end of the queue."""
        row = SamplingRow(submit.params, submit.seed, submit.prompt, end_ids=end_ids)
        request = Request(submit, row, self.clock())
        self._by_id[submit.id] = request
        self.waiting.append(request)

    def cancel(self, request_id: int) -> None:
        """Forget a request, wherever it is; unknown ones have ended already."""
        request = self._by_id.get(request_id)
        if request is not None:
            self.remove(request)

    def remove(self, request: Request) -> None:
        """Take a request out and free its slot."""
        del self._by_id[request.submit.id]
        if request.slot < 0:
            self.waiting.remove(request)
        else:
            del self.running[request.slot]
            self._free.append(request.slot)

    def expired(self) -> Iterable[tuple[Request, str]]:
        """Requests past one of their limits, with the limit's name: "queue_timeout" or "run_timeout"."""
        now = self.clock()
        for request in list(self._by_id.values()):
            age = now - request.arrived
            if request.slot < 0 and age > request.submit.queue_limit:
                yield request, "queue_timeout"
            elif age > request.submit.run_limit:
                yield request, "run_timeout"

    def plan(self) -> Plan:
        """Admit who can be admitted, and say what the next step does: a bounded prefill, and a token for every running row."""
        while self._free and self.waiting:
            request = self.waiting.popleft()
            request.slot = self._free.pop()
            request.admitted = self.clock()
            self.running[request.slot] = request
        decode = [request for request in self.running.values() if request.decoding]
        return Plan(self._chunks(), decode)

    def _chunks(self) -> list[Chunk]:
        """Chunks in order of admission. They end at multiples of `prefill_chunk`, whatever else runs: where a prompt is cut
        may show in the last bit of its results, so it must not depend on company."""
        chunks: list[Chunk] = []
        budget = self.prefill_chunk
        for request in self.running.values():
            if request.decoding:
                continue
            start = request.prefilled
            end = min(start + self.prefill_chunk, len(request.prompt))
            cost = max(end - start, min(_LEAST_COST, self.prefill_chunk))
            if cost > budget:
                break
            chunks.append(Chunk(request, start, end))
            budget -= cost
        return chunks

    def check_integrity(self) -> None:
        """RuntimeError when slots or requests were lost or doubled. Called when idle, where it costs nobody anything."""
        slots = sorted([*self._free, *self.running])
        known = {id(request) for request in self._by_id.values()}
        held = {id(request) for request in [*self.waiting, *self.running.values()]}
        if slots != list(range(self.n_slots)) or known != held:
            raise RuntimeError(f"slots {slots} of {self.n_slots}, {len(known)} requests known but {len(held)} held")
