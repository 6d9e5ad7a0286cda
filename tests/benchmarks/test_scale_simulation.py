"""The simulated cluster of docs/scale.md: against formulas, and what must hold whatever it simulates."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from benchmarks.scale import queueing
from benchmarks.scale.replica import Replica, Request, Speed
from benchmarks.scale.scenarios import POLICIES, checks, figures, queues, traffic
from benchmarks.scale.serving import SHORT, bears, cpu_kind
from benchmarks.scale.simulate import Autoscale, Cluster, Result, simulate
from benchmarks.scale.tables import kept
from benchmarks.scale.workload import Lengths, Traffic

KIND = cpu_kind()
SIX = Cluster(KIND.speed, 6)


def asked(load: float, seconds: float = 20, replicas: int = 6, **changes: object) -> Traffic:
    return traffic(KIND, replicas * bears(KIND) * load, seconds, **changes)


def account(result: Result) -> None:
    """Every request has exactly one end, and its times are in order."""
    assert result.answered + result.refused + result.failed == len(result.requests)
    for request in result.requests:
        ended = not (request.refused or request.failed)
        assert not (request.refused and request.failed)
        assert ended == (request.done == request.done)  # not nan
        if ended:
            assert request.arrived <= request.first <= request.done


def test_it_agrees_with_formulas() -> None:
    for row in checks(15_000):  # fewer requests than for the page, so more noise: waits have 14 % of it
        assert abs(float(row["off"])) <= 2.5 * float(row["allowed"]), row


def test_waits_have_the_quantiles_of_m_m_c() -> None:
    step, mean, servers = 0.002, 1000, 4
    service, rate = step * mean, 0.7 * 4 / (step * mean)
    requests = Traffic(rate, 20_000 / rate, Lengths(1, 0, 1), Lengths(mean, 0, 1 << 30), geometric=True)
    result = simulate(Cluster(Speed(servers, (step,) * 5, 0.0), 1, max_queue=1 << 30), requests, 4)
    for quantile in (0.8, 0.95):
        formula = queueing.wait_quantile_mmc(rate, service, servers, quantile)
        assert float(np.quantile(result.first_tokens(), quantile)) == pytest.approx(
            formula, rel=0.2
        )  # a run's noise is 8 %


@pytest.mark.parametrize("policy", POLICIES)
def test_no_request_is_lost_or_answered_twice(policy: str) -> None:
    crowded = replace(SIX, policy=policy, max_queue=4, dies=(8.0, 2), restart=3.0, prefix_share=0.5, reported=0.2)
    result = simulate(crowded, asked(1.1, groups=50), 1)
    account(result)
    assert result.refused > 0
    assert result.failed > 0


def test_time_in_the_system_adds_up() -> None:
    result = simulate(SIX, asked(0.8), 1)
    assert result.refused == result.failed == 0
    assert result.in_system == pytest.approx(float(result.of(lambda r: r.done - r.arrived).sum()))
    assert result.rows <= result.busy * result.slots
    assert 0 < result.occupancy < result.utilisation <= 1


def test_a_seed_gives_the_same_again_and_another_does_not() -> None:
    same = [
        simulate(replace(SIX, policy="two choices"), asked(0.7, burst=0.3), seed).first_tokens() for seed in (5, 5, 6)
    ]
    assert np.array_equal(same[0], same[1])
    assert len(same[0]) != len(same[2]) or not np.array_equal(same[0], same[2])


def test_what_is_kept_is_what_is_simulated() -> None:
    for now, before in islice(zip(queues(), kept()["queues"], strict=True), 2):
        assert now == pytest.approx(before, rel=0.01), "run python -m benchmarks.scale --simulate --write"


def test_looking_at_loads_is_no_worse_than_chance() -> None:
    late = {policy: figures(simulate(replace(SIX, policy=policy), asked(0.85, 40), 3), 5.0) for policy in POLICIES}
    for policy in ("two choices", "least loaded"):
        assert float(late[policy]["p99"]) < float(late["random"]["p99"])
        assert float(late[policy]["whole p99"]) < float(late["random"]["whole p99"])


def test_old_loads_make_the_least_loaded_replica_a_bad_choice() -> None:
    fresh = simulate(SIX, asked(0.85, 40), 3).first_tokens(5.0)
    stale = simulate(replace(SIX, reported=1.0), asked(0.85, 40), 3).first_tokens(5.0)
    assert np.quantile(stale, 0.99) > np.quantile(fresh, 0.99)


def test_more_load_or_bursts_make_first_tokens_later() -> None:
    p95 = [float(np.quantile(simulate(SIX, asked(load), 2).first_tokens(5.0), 0.95)) for load in (0.4, 0.7, 1.0)]
    assert p95 == sorted(p95)
    bursty = simulate(SIX, asked(0.7, burst=0.6, phase=3.0), 2).first_tokens(5.0)
    assert float(np.quantile(bursty, 0.95)) > p95[1]


def test_prefix_routing_reads_fewer_prompt_tokens() -> None:
    shared = asked(0.7, groups=300)
    read = {p: simulate(replace(SIX, policy=p, prefix_share=0.6), shared, 2).read for p in ("random", "prefix")}
    assert read["prefix"] < 0.85 * read["random"]
    assert simulate(SIX, shared, 2).read == sum(request.prompt for request in shared.draw(2))


def test_a_short_queue_refuses_and_keeps_others_early() -> None:
    short, long = (simulate(replace(SIX, max_queue=n), asked(1.5), 2) for n in (4, 1 << 30))
    assert short.refused > 0 == long.refused
    assert np.quantile(short.first_tokens(5.0), 0.95) < np.quantile(long.first_tokens(5.0), 0.95)


def test_a_dying_replica_loses_only_what_it_had_begun_to_send() -> None:
    quiet, dying = (simulate(replace(SIX, dies=d, restart=2.0), asked(0.7), 2) for d in (None, (10.0, 1)))
    assert quiet.failed == 0 < dying.failed <= KIND.speed.slots
    strict = simulate(replace(SIX, dies=(10.0, 1), restart=2.0, retry=False), asked(0.7), 2)
    assert strict.failed == dying.failed + dying.retried
    nobody = simulate(replace(SIX, dies=(10.0, 6), restart=2.0), asked(0.7), 2)
    account(nobody)
    assert 0 < nobody.refused < 0.25 * len(nobody.requests)  # two of twenty seconds


def test_replicas_follow_the_load_and_leave_again() -> None:
    rule = Autoscale(target=8, least=2, most=6, start=2.0, interval=1.0, patience=5.0)
    surge = asked(0.6, 60, replicas=2, surge=(10.0, 30.0, 2.5))
    few, scaled, many = (
        simulate(Cluster(KIND.speed, n, autoscale=r), surge, 2) for n, r in ((2, None), (2, rule), (6, None))
    )
    account(scaled)
    assert scaled.peak_replicas > 2
    assert few.replica_seconds < scaled.replica_seconds < many.replica_seconds
    assert np.quantile(scaled.first_tokens(), 0.99) < np.quantile(few.first_tokens(), 0.99)


def test_arrivals_have_the_rate_that_is_asked_for() -> None:
    lengths = Lengths(100, 0.5, 400)
    steady = Traffic(50, 400, lengths, lengths)
    for asking in (steady, replace(steady, burst=0.5, phase=0.5)):
        drawn = asking.draw(1)
        times = np.array([request.arrived for request in drawn])
        assert len(drawn) == pytest.approx(20_000, rel=0.05)
        assert (np.diff(times) >= 0).all()
        per_second = np.histogram(times, bins=400, range=(0, 400))[0]
        dispersion = per_second.var() / per_second.mean()
        assert dispersion > 3 if asking.burst else dispersion == pytest.approx(1, abs=0.25)
    surge = Traffic(50, 100, lengths, lengths, surge=(20, 40, 3.0)).draw(1)
    assert sum(20 <= request.arrived < 40 for request in surge) == pytest.approx(3000, rel=0.08)
    assert np.mean([request.prompt for request in drawn]) == pytest.approx(lengths.mean, rel=0.02)
    assert Lengths(7, 0, 9).mean == 7


def test_prompts_beside_streams_are_cut_as_the_engine_cuts_them() -> None:
    speed = KIND.speed
    assert speed.room(0, 1) == speed.chunk  # 512 tokens take less than 0.16 s
    for rows in (1, 8, 28):
        share = min(max(1 / rows, 0.8), 3.0)
        assert speed.room(rows, 1) == max(int(share * speed.decode[rows] / speed.token), 8)
        assert speed.room(rows, 3 * rows) == min(int(3 * speed.decode[rows] / speed.token), speed.chunk)


def test_a_request_joins_when_the_step_that_runs_has_ended() -> None:
    replica = Replica(Speed(2, (0.0, 1.0, 1.5), 0.0), 8, 0.0)
    first, second = Request(0, 0.0, 1, 10, 0), Request(1, 4.2, 1, 2, 0)
    assert replica.take(first, 0.0)
    replica.begin(0.0)
    replica.end(replica.ends)
    assert first.first == 0.0
    replica.begin(0.0)
    assert replica.ahead == 9
    assert replica.take(second, 4.2)
    assert (replica.ends, replica.ahead) == (5.0, 5)
    assert replica.end(5.0) == []
    replica.begin(5.0)
    assert replica.ends == 6.0  # it is read in a step of its own, here for nothing, beside the stream
    replica.end(6.0)
    replica.begin(6.0)
    assert (second.first, replica.ends) == (6.0, 7.5)
    assert replica.end(7.5) == [second]


def test_mean_lengths_of_short_requests_fit_the_context() -> None:
    assert SHORT.prompt.most + SHORT.answer.most <= KIND.shape.config.context_length
