"""Who runs next: a queue in order of arrival, fixed slots, prompts cut into chunks, prefixes shared. Holds no tensors.

A request is admitted when a slot is free. Every slot is as long as the context and prompt and max_tokens have been checked
against it, so an admitted request always runs to its end: nothing is ever preempted.
"""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from app.engine.costs import StepCosts
from app.engine.requests import Request, Work
from app.engine.slots import SlotTable, common_prefix

_WORTH_WAITING = 16  # tokens: a shorter part that another request is just prefilling is not waited for
_CHECK_SECONDS = 0.02  # how often limits are looked at


@dataclass(frozen=True, slots=True)
class Plan:
    """One step: one token (and drafts) for each of `decode`, and these chunks of prompts."""

    decode: list[Request]
    prefill: list[Work]


class Scheduler:
    """Queue and slots. All times come from `clock`, in seconds.

    `fixed_chunks`: prompts are cut at multiples of costs.prefill_chunk whatever else runs, and only such chunks are taken over
    from other slots: for back ends whose results depend on the cut.
    """

    def __init__(
        self,
        n_slots: int,
        costs: StepCosts,
        copy: Callable[[int, int, int], None],
        *,
        fixed_chunks: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.n_slots, self.costs, self.clock = n_slots, costs, clock
        self.slots = SlotTable(n_slots, copy, grain=costs.prefill_chunk if fixed_chunks else 1)
        self.waiting: dict[int, Request] = {}  # by id, in order of arrival
        self.running: dict[int, Request] = {}  # by slot, in order of admission
        self._by_id: dict[int, Request] = {}
        self._fixed_chunks = fixed_chunks
        self._admissions = 0
        self._checked = clock()
        self._oldest_first = False

    @property
    def busy(self) -> bool:
        """Whether a step would do anything: not while all that wait, wait for a grammar or an adapter."""
        return bool(self.running) or any(not request.pending for request in self.waiting.values())

    def get(self, request_id: int) -> Request | None:
        """A request that waits or runs."""
        return self._by_id.get(request_id)

    def requests(self) -> list[Request]:
        """All that wait or run."""
        return list(self._by_id.values())

    def add(self, request: Request) -> None:
        """Put a request at the end of the queue."""
        self._by_id[request.submit.id] = request
        self.waiting[request.submit.id] = request

    def remove(self, request: Request, *, spoilt: bool = False) -> None:
        """Take a request out and free its slot, which stays warm. `spoilt`: what it computed can't be trusted."""
        del self._by_id[request.submit.id]
        slot = request.slot
        if slot is None:
            del self.waiting[request.submit.id]
            return
        del self.running[slot.index]
        if request.leader is not None:
            request.leader.followers.remove(request)
        self.slots.release(slot)
        if spoilt:
            # Where the damage began can't be known, and it is rare: all that is warm is given up, not only this slot.
            self.slots.forget()
        followers, request.followers = sorted(request.followers, key=_order), []
        for follower in followers:
            follower.leader = None  # one by one: those that still have it set count as followers for the others
            self._join_or_follow(follower)

    def expired(self) -> Iterator[tuple[Request, str]]:
        """Requests past one of their limits, with the limit's name: "queue_timeout" or "run_timeout"."""
        now = self.clock()
        if now - self._checked < _CHECK_SECONDS:
            return
        self._checked = now
        for request in self.requests():
            age = now - request.arrived
            if request.slot is None and age > request.submit.queue_limit:
                yield request, "queue_timeout"
            elif age > request.submit.run_limit:
                yield request, "run_timeout"

    def plan(self) -> Plan:
        """Admit who can be admitted, and say what the next step does."""
        self._admit()
        decode = [request for request in self.running.values() if request.decoding]
        return Plan(decode, self._chunks(len(decode)) if len(decode) < len(self.running) else [])

    def prefilled(self, request: Request, tokens: Sequence[int]) -> None:
        """A chunk of a prompt is in its slot now: followers that waited for it take it over."""
        slot = request.slot
        assert slot is not None
        chunk = self.costs.prefill_chunk
        if slot.whole == len(slot.tokens) and slot.whole % chunk == 0 and len(tokens) == chunk:
            slot.whole += chunk
        slot.tokens.extend(tokens)
        ready = [follower for follower in request.followers if follower.needed <= len(slot.tokens)]
        for follower in ready:
            request.followers.remove(follower)
            follower.leader = None
            self._join_or_follow(follower)

    def check_integrity(self, context: int | None = None, adapters: Collection[int] = ()) -> None:
        """RuntimeError when slots, requests or followers were lost or doubled, or a slot holds tokens of an adapter that is none
        of `adapters`. Called when idle, where it costs nobody anything."""
        known = {id(request) for request in self._by_id.values()}
        held = {id(request) for request in [*self.waiting.values(), *self.running.values()]}
        if known != held or len(known) != len(self.waiting) + len(self.running):
            raise RuntimeError(f"{len(known)} requests known, {len(self.waiting)} wait and {len(self.running)} run")
        for index, request in self.running.items():
            if request.slot is None or request.slot.index != index:
                raise RuntimeError(f"a request has slot {request.slot} but is listed in slot {index}")
            leader = request.leader
            if leader is not None and (id(leader) not in held or request not in leader.followers):
                raise RuntimeError(f"the request in slot {index} follows one that is gone")
            if any(follower.leader is not request for follower in request.followers):
                raise RuntimeError(f"the request in slot {index} has a follower that doesn't follow it")
        problem = self.slots.problem(set(self.running), {0, *adapters}, context)
        if problem:
            raise RuntimeError(problem)

    def _admit(self) -> None:
        if not self.waiting or not self.slots.n_free:
            return
        for request in list(self.waiting.values()):
            if request.pending:
                continue  # keeps its place; who comes after it must not wait for its grammar
            if not self.slots.n_free:
                return
            del self.waiting[request.submit.id]
            self._admissions += 1
            request.order, request.admitted = self._admissions, self.clock()
            self._place(request)

    def _place(self, request: Request) -> None:
        """Give a request the slot from which least is left to compute, or let it follow one that is on the way."""
        limit = self.slots.whole(min(request.first_output, len(request.prompt) - 1))
        source, held = self.slots.find(request.number, request.prompt, limit)
        leader, coming = self._find_leader(request, limit)
        if leader is not None and coming - held >= _WORTH_WAITING:
            source, held = None, 0
        else:
            leader = None
        slot = self.slots.take(request.number, request.prompt, source, held)
        request.slot, request.cached = slot, len(slot.tokens)
        self.running[slot.index] = request
        if leader is not None:
            self._follow(request, leader, coming)

    def _join_or_follow(self, request: Request) -> None:
        """What it waited for is there, or won't come: take over what there is, or follow another."""
        slot = request.slot
        assert slot is not None
        limit = self.slots.whole(min(request.first_output, len(request.prompt) - 1))
        source, held = self.slots.find(request.number, request.prompt, limit)
        leader, coming = self._find_leader(request, limit)
        if leader is not None and coming - held >= _WORTH_WAITING:
            self._follow(request, leader, coming)
        elif source is not None:
            self.slots.fill(slot, request.prompt, source, held)
        request.cached = len(slot.tokens)

    def _follow(self, request: Request, leader: Request, coming: int) -> None:
        request.leader, request.needed = leader, coming
        leader.followers.append(request)

    def _find_leader(self, request: Request, limit: int) -> tuple[Request | None, int]:
        """The running request that will prefill most of this one's prompt, and how many tokens that is. Of those that follow
        others only older ones count: so nobody waits in a circle."""
        best, best_length = None, 0
        prompt = request.prompt
        for other in self.running.values():
            if other.decoding or other is request or other.number != request.number or other.prompt[0] != prompt[0]:
                continue
            if other.leader is not None and other.order > request.order:
                continue
            length = common_prefix(other.prompt, prompt, limit)
            if self._fixed_chunks:
                length = self.slots.whole(length)
            if length > best_length:
                best, best_length = other, length
        return best, best_length

    def _chunks(self, n_decoding: int) -> list[Work]:
        """The parts of prompts that the next step prefills: at least half of the room for the shortest rest, so that a long
        prompt doesn't hold up a short one, and up to half for the oldest, so that none starves."""
        ready = [request for request in self.running.values() if not request.decoding and request.leader is None]
        if not ready:
            return []
        oldest = ready[0]
        ready.sort(key=_remaining)
        if self._fixed_chunks:
            return self._whole_chunks(ready, oldest)
        room = self.costs.budget(n_decoding, len(ready))
        grants: dict[Request, int] = {}
        if ready[0] is not oldest:
            grants[oldest] = min(max(room // 2, 1), _remaining(oldest))
            room -= grants[oldest]
        for request in ready:
            if room == 0:
                break
            had = grants.get(request, 0)
            more = min(room, _remaining(request) - had)
            grants[request] = had + more
            room -= more
        return [_chunk(request, size) for request, size in grants.items() if size]

    def _whole_chunks(self, ready: list[Request], oldest: Request) -> list[Work]:
        """Chunks that end at multiples of prefill_chunk, at least one; shortest rest and oldest come first in turn."""
        self._oldest_first = not self._oldest_first
        if self._oldest_first:
            ready.remove(oldest)
            ready.insert(0, oldest)
        room, chunks = self.costs.prefill_chunk, []
        for request in ready:
            size = min(self.costs.prefill_chunk, _remaining(request))
            if size > room:
                break
            chunks.append(_chunk(request, size))
            room -= size
        return chunks


def _order(request: Request) -> int:
    return request.order


def _remaining(request: Request) -> int:
    return len(request.prompt) - request.prefilled


def _chunk(request: Request, size: int) -> Work:
    return Work.chunk(request, request.prefilled, request.prefilled + size)
