"""The simulations that docs/scale.md shows, each a list of rows; and the checks of the simulation against formulas."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from benchmarks.scale import constants as c
from benchmarks.scale import queueing
from benchmarks.scale.replica import Speed
from benchmarks.scale.serving import CHAT, Kind, bears, by_number, cpu_kind, gpu_kind, requests_in
from benchmarks.scale.shapes import LARGE
from benchmarks.scale.simulate import Autoscale, Cluster, Policy, Result, simulate
from benchmarks.scale.workload import Lengths, Traffic

Row = dict[str, str | float]
POLICIES: tuple[Policy, ...] = ("random", "round robin", "two choices", "least loaded", "prefix")
WARM = 20.0  # seconds in which a cluster fills; not looked at
LOAD = 0.7  # of what a replica bears: the load that the fleets of the plan have


def traffic(kind: Kind, rate: float, seconds: float, **changes: object) -> Traffic:
    """The kind's own requests at `rate` a second."""
    return replace(Traffic(rate, seconds, kind.ask.prompt, kind.ask.answer), **changes)  # type: ignore[arg-type]


def figures(result: Result, warm: float = WARM) -> Row:
    """What a row shows of a result: first tokens in milliseconds, requests in shares of all."""
    first = result.first_tokens(warm) * 1e3
    p50, p95, p99 = (float(np.quantile(first, q)) for q in (0.5, 0.95, 0.99)) if len(first) else (np.nan,) * 3
    pace = result.of(lambda r: (r.done - r.first) / (r.answer - 1) if r.answer > 1 else np.nan, warm)
    return {
        "p50": p50,
        "p95": p95,
        "p99": p99,
        "whole p99": float(np.quantile(result.of(lambda r: r.done - r.arrived, warm), 0.99)) * 1e3
        if len(first)
        else np.nan,
        "pace": float(np.nanmean(pace)) * 1e3 if len(pace) else np.nan,
        "refused": result.refused / len(result.requests),
        "busy": result.utilisation,
        "slots": result.occupancy,
    }


def loads(seconds: float = 80) -> Iterator[Row]:
    """How late the first token is, by load: the peak of 1 M an hour on so many pairs of cores, Poisson and in bursts."""
    kind = cpu_kind()
    for load in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0):
        replicas = round(c.REQUESTS.value / bears(kind) / load)
        rate = replicas * bears(kind) * load
        cluster = Cluster(kind.speed, replicas)
        poisson = simulate(cluster, traffic(kind, rate, seconds), 1)
        bursty = simulate(cluster, traffic(kind, rate, seconds, burst=0.3, phase=5.0), 1)
        row: Row = {"load": load, "replicas": replicas}
        yield row | figures(poisson) | {f"bursts {k}": v for k, v in figures(bursty).items()}


def policies(seconds: float = 60) -> Iterator[Row]:
    """Who gets the next request: each policy with loads as they are and as they were up to half a second ago."""
    kind = cpu_kind()
    replicas = round(c.REQUESTS.value / bears(kind) / 0.85)
    rate = replicas * bears(kind) * 0.85
    asked = traffic(kind, rate, seconds, groups=400)
    for policy in POLICIES:
        fresh = Cluster(kind.speed, replicas, policy)
        row: Row = {"policy": policy} | figures(simulate(fresh, asked, 2))
        stale = figures(simulate(replace(fresh, reported=0.5), asked, 2))
        shared = simulate(replace(fresh, prefix_share=0.6), asked, 2)
        prompts = sum(r.prompt for r in shared.requests if not r.refused)
        yield row | {
            "stale p99": stale["p99"], "stale refused": stale["refused"], "shared p50": figures(shared)["p50"],
            "shared p99": figures(shared)["p99"], "shared busy": shared.utilisation, "unread": 1 - shared.read / prompts,
        }  # fmt: skip


def queues(seconds: float = 120) -> Iterator[Row]:
    """A minute of half more than the cluster bears, with long and short queues: waiting or refusing."""
    kind = cpu_kind()
    replicas = 8
    rate = replicas * bears(kind) * LOAD
    for limit in (512, 128, 32, 8, 0):
        surge = traffic(kind, rate, seconds, surge=(30.0, 60.0, 1.5 / LOAD))
        result = simulate(Cluster(kind.speed, replicas, max_queue=limit), surge, 3)
        late = result.of(lambda r: r.first - r.arrived > 2)
        yield {"queue": limit, "late": float(late.mean()), "served": result.answered / len(result.requests)} | figures(
            result
        )


def scaling(seconds: float = 600) -> Iterator[Row]:
    """The load doubles for four minutes: replicas follow after their start, or were there all along."""
    kind = cpu_kind()
    rate = 6 * bears(kind) * LOAD
    surge = traffic(kind, rate, seconds, surge=(120.0, 360.0, 2.0))
    for name, start in (
        ("12 all along", None),
        ("6 to 16, 3 s", 3.0),
        ("10 s", 10.0),
        ("60 s", 60.0),
        ("300 s", 300.0),
    ):
        rule = None if start is None else Autoscale(target=kind.speed.slots / 2, least=6, most=16, start=start)
        cluster = Cluster(kind.speed, 12 if rule is None else 6, autoscale=rule)
        result = simulate(cluster, surge, 4)
        row: Row = {"start": name, "hours": result.replica_seconds / 3600, "peak": result.peak_replicas}
        yield row | figures(result)


def deaths(seconds: float = 90) -> Iterator[Row]:
    """Replicas die at second 40 of the peak, without and with spares; what was lost, and how late others became."""
    kind = cpu_kind()
    needed = round(c.REQUESTS.value / bears(kind) / LOAD)
    for name, extra, dying, retry in (
        ("none", 0, 0, True), ("1", 0, 1, True), ("1, unsent requests lost too", 0, 1, False), ("4 (a rack)", 0, 4, True),
        ("4, with 4 spare", 4, 4, True),
    ):  # fmt: skip
        cluster = Cluster(kind.speed, needed + extra, dies=(40.0, dying) if dying else None, restart=30.0, retry=retry)
        result = simulate(cluster, traffic(kind, c.REQUESTS.value, seconds), 5)
        row: Row = {"dying": name, "failed": float(result.failed), "sent again": float(result.retried)}
        yield row | figures(result, 40.0)


def gpus(seconds: float = 60) -> Iterator[Row]:
    """The 7 B's chats on H100s, by load: the same simulation with speeds from data sheets."""
    kind = gpu_kind(LARGE, CHAT)
    for load in (0.5, 0.7, 0.85):
        replicas = round(c.REQUESTS.value / bears(kind) / load)
        result = simulate(Cluster(kind.speed, replicas), traffic(kind, replicas * bears(kind) * load, seconds), 6)
        row: Row = {"load": load, "replicas": replicas}
        yield row | figures(result)


def checks(requests: int = 80_000) -> Iterator[Row]:
    """The simulation beside formulas where they hold: {"case", "simulated", "formula", "off", "allowed"}."""
    step, mean, servers = 0.002, 1000, 8  # steps so short that they hardly show
    service = step * mean
    speed = Speed(servers, (step,) * (servers + 1), 0.0)
    for load in (0.5, 0.8):
        rate = load * servers / service
        asked = Traffic(rate, requests / rate, Lengths(1, 0, 1), Lengths(mean, 0, 1 << 30), geometric=True)
        result = simulate(Cluster(speed, 1, max_queue=1 << 30), asked, 7)
        waits = result.first_tokens() - 1.5 * step  # the first step, and half of one that it can't join
        formula = queueing.wait_mmc(rate, service, servers)
        yield _check(f"M/M/8 at {load:.0%}: mean wait, s", float(waits.mean()), formula, 0.10)
        waiting = float((waits > step).mean())
        yield _check(
            f"M/M/8 at {load:.0%}: share that waits", waiting, queueing.erlang_c(rate * service, servers), 0.08
        )
        stayed = result.of(lambda r: r.done - r.arrived)
        little = len(stayed) / result.ended * float(stayed.mean())
        yield _check(
            f"Little's law at {load:.0%}: requests in the system", result.in_system / result.ended, little, 1e-6
        )
    constant = Traffic(0.7 / service, requests * service, Lengths(1, 0, 1), Lengths(mean, 0, mean))
    result = simulate(Cluster(Speed(1, (step, step), 0.0), 1, max_queue=1 << 30), constant, 8)
    waits = result.first_tokens() - 1.5 * step
    yield _check(
        "M/D/1 at 70%: mean wait, s", float(waits.mean()), queueing.wait_mgc(0.7 / service, service, 1, 0), 0.10
    )
    spread = Lengths(500, 1.0, 10_000)
    rate = 7 / (spread.mean * step)
    lossy = Traffic(rate, requests / rate, Lengths(1, 0, 1), spread)
    result = simulate(Cluster(speed, 1, max_queue=0), lossy, 9)
    share = result.refused / len(result.requests)
    yield _check("log-normal, 8 slots, no queue: share refused", share, queueing.erlang_b(7, servers), 0.08)
    kind = cpu_kind()
    for load in (0.5, 0.8):
        rate = bears(kind) * load
        result = simulate(Cluster(kind.speed, 1), traffic(kind, rate, requests / 4 / rate), 10)
        there = result.in_system / result.ended
        yield _check(f"one replica at {load:.0%}: requests in it", there, requests_in(kind, rate), 0.20)
        idle = by_number(kind, rate)[0]
        yield _check(f"one replica at {load:.0%}: time it computes", result.utilisation, 1 - idle, 0.02)


def _check(case: str, simulated: float, formula: float, allowed: float) -> Row:
    return {
        "case": case, "simulated": simulated, "formula": formula, "off": simulated / formula - 1, "allowed": allowed
    }  # fmt: skip


SCENARIOS: dict[str, Callable[[], Iterator[Row]]] = {
    "checks": checks, "loads": loads, "policies": policies, "queues": queues, "scaling": scaling, "deaths": deaths,
    "gpus": gpus,
}  # fmt: skip
