"""One replica in the simulation: slots, a queue, and steps as the engine makes them.

A step decodes a token for every running stream and prefills as much of the waiting prompts as app/engine/costs.py allows; its
time is that of so many rows, plus so much for each prompt token. Left out: the split of that room between the oldest prompt and
the shortest (here: the oldest first), speculation, and that a longer context makes a step longer.
"""

import heapq
from collections import OrderedDict, deque
from dataclasses import dataclass, field

_LONGEST, _STRETCH, _LEAST = 0.16, (0.8, 3.0), 8  # those of app/engine/costs.py


@dataclass(frozen=True)
class Speed:
    """What a replica's steps cost. `decode`: seconds of a step with 0, 1, ..., `slots` rows; `token`: seconds of a prompt token."""

    slots: int
    decode: tuple[float, ...]
    token: float
    chunk: int = 512  # prompt tokens in a step at most: `prefill_chunk`

    def room(self, rows: int, prompts: int) -> int:
        """Prompt tokens that go along in a step with `rows` streams while `prompts` are being read."""
        if self.token <= 0:
            return 1 << 60
        if rows == 0:
            return max(min(self.chunk, int(_LONGEST / self.token)), _LEAST)
        decode, (low, high) = self.decode[rows], _STRETCH
        seconds = min(min(max(prompts / rows, low), high) * decode, max(_LONGEST - decode, _LONGEST / 4))
        return min(max(int(seconds / self.token), _LEAST), self.chunk)


@dataclass(slots=True, eq=False)
class Request:
    """A request and what became of it; times in seconds, nan until they are known."""

    number: int
    arrived: float
    prompt: int
    answer: int
    group: int
    first: float = float("nan")
    done: float = float("nan")
    refused: bool = False
    failed: bool = False
    unread: int = 0


@dataclass(slots=True, eq=False)
class Replica:
    """See the module. The caller begins a step, is told when it ends, and ends it then; `version` tells a step that counts."""

    speed: Speed
    max_queue: int
    prefix_share: float
    ready: float = 0.0  # when it takes requests
    alive: bool = True
    draining: bool = False
    queue: deque[Request] = field(default_factory=deque)
    reading: deque[Request] = field(default_factory=deque)
    running: list[tuple[int, int, Request]] = field(default_factory=list)  # (step of the last token, number, request)
    steps: int = 0
    version: int = 0
    begun: float = 0.0
    ends: float = 0.0
    pace: float = 0.0  # seconds of each of several like steps taken at once
    ahead: int = 0  # how many; 0: idle
    busy: float = 0.0  # seconds computed
    rows: float = 0.0  # seconds x rows
    read: int = 0  # prompt tokens computed
    _plan: list[tuple[Request, int]] = field(default_factory=list)
    _warm: OrderedDict[int, None] = field(default_factory=OrderedDict)

    @property
    def outstanding(self) -> int:
        """Requests here, waiting or running."""
        return len(self.queue) + len(self.reading) + len(self.running)

    @property
    def full(self) -> bool:
        """Whether a request would be refused."""
        return len(self.reading) + len(self.running) >= self.speed.slots and len(self.queue) >= self.max_queue

    def take(self, request: Request, now: float) -> bool:
        """Queue a request; whether the steps under way have been cut short for it, or must begin."""
        self.queue.append(request)
        if self.ahead == 0:
            return True
        if self.ahead > 1 and len(self.reading) + len(self.running) < self.speed.slots:
            made = min(
                self.ahead, int((now - self.begun) / self.pace) + 1
            )  # it joins when the step that runs has ended
            self.ends, self.ahead = self.begun + made * self.pace, made
            return True
        return False

    def begin(self, now: float) -> bool:
        """Begin a step, or several that will be alike, if there is work; `ends` tells when."""
        while self.queue and len(self.reading) + len(self.running) < self.speed.slots:
            request = self.queue.popleft()
            request.unread = self._cold(request)
            self.reading.append(request)
        rows, room = len(self.running), 0
        self._plan = []
        if self.reading:
            room = self.speed.room(rows, len(self.reading))
            for request in self.reading:
                part = min(request.unread, room)
                self._plan.append((request, part))
                room -= part
                if room <= 0:
                    break
        self.begun, self.version = now, self.version + 1
        if not rows and not self._plan:
            self.ahead = 0
            return False
        self.ahead = 1 if self._plan else self.running[0][0] - self.steps
        self.pace = self.speed.decode[rows] + self.speed.token * sum(part for _, part in self._plan)
        self.ends = now + self.ahead * self.pace
        return True

    def end(self, now: float) -> list[Request]:
        """End what was begun; the requests that are done with it."""
        self.busy += now - self.begun
        self.rows += (now - self.begun) * len(self.running)
        self.steps += self.ahead
        done = []
        while self.running and self.running[0][0] <= self.steps:
            done.append(heapq.heappop(self.running)[2])
        for request, part in self._plan:
            request.unread -= part
            self.read += part
            if request.unread == 0:
                self.reading.popleft()  # the plan's are the oldest, in order
                request.first = now
                if request.answer == 1:
                    done.append(request)
                else:
                    heapq.heappush(self.running, (self.steps + request.answer - 1, request.number, request))
        self._plan, self.ahead = [], 0
        for request in done:
            request.done = now
        return done

    def die(self) -> tuple[list[Request], list[Request]]:
        """Lose everything: requests whose answers had begun, and those of which nothing was sent yet."""
        begun = [request for _, _, request in self.running]
        unsent = [*self.reading, *self.queue]
        self.running, self._plan, self.ahead = [], [], 0
        self.reading.clear()
        self.queue.clear()
        self._warm.clear()
        self.alive, self.version = False, self.version + 1
        return begun, unsent

    def _cold(self, request: Request) -> int:
        """Prompt tokens to compute: the rest behind the prefix where a slot still holds it. At least the last one."""
        if self.prefix_share <= 0:
            return request.prompt
        warm = request.group in self._warm
        self._warm[request.group] = None
        self._warm.move_to_end(request.group)
        if len(self._warm) > self.speed.slots:
            self._warm.popitem(last=False)
        return max(1, round(request.prompt * (1 - self.prefix_share))) if warm else request.prompt
