"""A cluster of replicas behind a router, event by event: the part of the plan that formulas tell only roughly.

Deterministic: a seed and the settings give the same result. The router sees loads as they are, or as they were at the last
report (`reported` seconds apart); it costs no time itself.
"""

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from benchmarks.scale.replica import Replica, Request, Speed
from benchmarks.scale.workload import Traffic

Policy = Literal["random", "round robin", "least loaded", "two choices", "prefix"]


@dataclass(frozen=True)
class Autoscale:
    """Replicas follow the requests waiting and running: `target` of them each, looked at every `interval` seconds. A new one takes
    requests after `start` seconds; one too many for `patience` seconds is drained."""

    target: float
    least: int
    most: int
    start: float
    interval: float = 5.0
    patience: float = 60.0


@dataclass(frozen=True)
class Cluster:
    """What is simulated. `max_queue`: requests waiting in a replica; one more is refused (429). `dies`: (when, how many replicas),
    each back after `restart` seconds; `retry`: requests of which nothing was sent yet go to another replica, else they fail too.
    `overload`: with the policy "prefix", how many times the mean load its replica may have; beyond, the least loaded is taken."""

    speed: Speed
    replicas: int
    policy: Policy = "least loaded"
    max_queue: int = 128
    prefix_share: float = 0.0
    overload: float = 1.5
    reported: float = 0.0
    dies: tuple[float, int] | None = None
    restart: float = 10.0
    retry: bool = True
    autoscale: Autoscale | None = None


@dataclass
class Result:
    """What happened. `replica_seconds`: paid for; `in_system`: the integral of the requests in the system over time; `begun` and
    `ended`: of the time that is looked at."""

    requests: list[Request]
    replica_seconds: float
    busy: float
    rows: float
    slots: int
    in_system: float
    ended: float
    peak_replicas: int
    retried: int = 0
    read: int = 0  # prompt tokens computed

    def of(self, what: Callable[[Request], float], warm: float = 0.0) -> np.ndarray:
        """A figure of every answered request that came after `warm` seconds."""
        return np.array([what(r) for r in self.requests if not (r.refused or r.failed) and r.arrived >= warm])

    def first_tokens(self, warm: float = 0.0) -> np.ndarray:
        """Seconds from arrival to the first token."""
        return self.of(lambda r: r.first - r.arrived, warm)

    @property
    def answered(self) -> int:
        """Requests that ended well."""
        return sum(not (r.refused or r.failed) for r in self.requests)

    @property
    def refused(self) -> int:
        """Requests that got a 429."""
        return sum(r.refused for r in self.requests)

    @property
    def failed(self) -> int:
        """Requests that a dying replica lost."""
        return sum(r.failed for r in self.requests)

    @property
    def utilisation(self) -> float:
        """Share of the replicas' time that they computed."""
        return self.busy / self.replica_seconds

    @property
    def occupancy(self) -> float:
        """Share of the slots that decoded, over the replicas' time."""
        return self.rows / self.replica_seconds / self.slots


def simulate(cluster: Cluster, traffic: Traffic, seed: int = 0) -> Result:
    """Play `traffic` through, until the last request has left."""
    return _Simulation(cluster, traffic.draw(seed), seed).run()


@dataclass
class _Simulation:
    cluster: Cluster
    requests: list[Request]
    seed: int
    now: float = 0.0
    _events: list[tuple[float, int, Callable[..., None], tuple]] = field(default_factory=list)
    _count: int = 0
    _in_system: int = 0
    _area: float = 0.0
    _paid: float = 0.0
    _turn: int = 0
    _retried: int = 0
    _waiting: int = 0  # requests that are still to come
    _few_since: float = math.inf  # since when fewer replicas would do

    def run(self) -> Result:
        """See simulate."""
        cluster = self.cluster
        self._random = np.random.default_rng([self.seed, 1])
        self._draws = iter(())
        self.replicas = [self._replica() for _ in range(cluster.replicas)]
        self._seen: list[int] | None = None
        self._waiting, self._peak = len(self.requests), cluster.replicas
        self._changed()
        for request in self.requests:
            self._at(request.arrived, self._arrive, request)
        if cluster.dies:
            self._at(cluster.dies[0], self._die, cluster.dies[1])
        if cluster.autoscale:
            self._at(cluster.autoscale.interval, self._scale)
        if cluster.reported:
            self._at(0.0, self._report)
        while self._events:
            at, _, act, what = heapq.heappop(self._events)
            self._area += (at - self.now) * self._in_system
            self._paid += (at - self.now) * self._alive
            self.now = at
            act(*what)
        everyone = self.replicas
        return Result(
            self.requests, self._paid, sum(r.busy for r in everyone), sum(r.rows for r in everyone),
            cluster.speed.slots, self._area, self.now, self._peak, self._retried,
            sum(r.read for r in everyone),
        )  # fmt: skip

    def _replica(self, ready: float = 0.0) -> Replica:
        return Replica(self.cluster.speed, self.cluster.max_queue, self.cluster.prefix_share, ready)

    def _at(self, when: float, act: Callable[..., None], *what: object) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, act, what))

    def _arrive(self, request: Request) -> None:
        self._waiting -= 1
        self._in_system += 1
        self._send(request)

    def _send(self, request: Request) -> None:
        if self.now >= self._able_until:
            self._changed()
        able = self._able
        chosen = self.replicas[self._choose(able, request)] if able else None
        if chosen is None or chosen.full:
            request.refused = True
            self._in_system -= 1
        elif chosen.take(request, self.now):
            self._step(chosen)

    def _changed(self) -> None:
        """Find out anew which replicas are there and which take requests; the latter holds until another one gets ready."""
        self._alive = sum(r.alive for r in self.replicas)
        here = [(i, r) for i, r in enumerate(self.replicas) if r.alive and not r.draining]
        self._able = [i for i, r in here if r.ready <= self.now]
        self._able_until = min((r.ready for _, r in here if r.ready > self.now), default=math.inf)

    def _choose(self, able: list[int], request: Request) -> int:
        policy = self.cluster.policy
        if policy == "random":
            return able[self._draw(len(able))]
        if policy == "round robin":
            self._turn += 1
            return able[self._turn % len(able)]
        if policy == "two choices":
            pair = able[self._draw(len(able))], able[self._draw(len(able))]
            return min(pair, key=self._load)
        if policy == "prefix":
            home = able[(request.group * 2654435761) % (1 << 32) % len(able)]
            mean = sum(self._load(i) for i in able) / len(able)
            if self._load(home) <= self.cluster.overload * max(mean, 1.0):
                return home
        begin = self._draw(len(able))  # ties are broken at random: the first would get all of them
        return min(able[begin:] + able[:begin], key=self._load)

    def _load(self, which: int) -> int:
        if self._seen is not None and which < len(self._seen):
            return self._seen[which]
        return self.replicas[which].outstanding

    def _draw(self, n: int) -> int:
        """A number below `n`."""
        value = next(self._draws, None)
        if value is None:
            self._draws = iter(self._random.random(4096).tolist())
            value = next(self._draws)
        return int(value * n)

    def _step(self, replica: Replica) -> None:
        """Begin a step, or tell anew when the one under way ends."""
        if replica.ahead == 0 and not replica.begin(self.now):
            if replica.draining:
                replica.alive = False
                self._changed()
            return
        replica.version += 1
        self._at(replica.ends, self._stepped, replica, replica.version)

    def _stepped(self, replica: Replica, version: int) -> None:
        if version == replica.version:
            self._in_system -= len(replica.end(self.now))
            self._step(replica)

    def _report(self) -> None:
        self._seen = [r.outstanding for r in self.replicas]
        if self._waiting:
            self._at(self.now + self.cluster.reported, self._report)

    def _die(self, how_many: int) -> None:
        for replica in [r for r in self.replicas if r.alive and r.ready <= self.now][:how_many]:
            begun, unsent = replica.die()
            self.replicas.append(self._replica(self.now + self.cluster.restart))
            self._changed()
            lost = begun if self.cluster.retry else begun + unsent
            for request in lost:
                request.failed = True
            self._in_system -= len(lost)
            for request in unsent if self.cluster.retry else ():
                self._retried += 1
                self._send(request)

    def _scale(self) -> None:
        rule = self.cluster.autoscale
        assert rule is not None
        there = [r for r in self.replicas if r.alive and not r.draining]
        wanted = min(max(math.ceil(sum(r.outstanding for r in there) / rule.target), rule.least), rule.most)
        if wanted >= len(there):
            self._few_since = math.inf
            self.replicas += [self._replica(self.now + rule.start) for _ in range(wanted - len(there))]
            self._peak = max(self._peak, wanted)
        else:
            self._few_since = min(self._few_since, self.now)
            if self.now - self._few_since >= rule.patience:
                for replica in sorted(there, key=lambda r: r.outstanding)[: len(there) - wanted]:
                    replica.draining = True
                    replica.alive = replica.outstanding > 0
                self._few_since = math.inf
        self._changed()
        if self._waiting:
            self._at(self.now + rule.interval, self._scale)
