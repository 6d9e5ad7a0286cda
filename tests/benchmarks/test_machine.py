import math
import os
import time

from benchmarks.peers.machine import Watch, median, memory, percentile, read_bandwidth, timed


def test_percentiles_interpolate() -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], 0.5) == 2.5
    assert percentile([1.0, 2.0], 1.0) == 2.0
    assert percentile([7.0], 0.99) == 7.0
    assert math.isnan(percentile([], 0.5))
    assert math.isnan(median([]))


def test_own_work_is_not_foreign_but_anothers_is(monkeypatch) -> None:
    machine = iter([100.0, 101.5])  # busy seconds of all processors, before and after
    own = iter([10.0, 10.5])
    monkeypatch.setattr("benchmarks.peers.machine._busy_seconds", lambda: next(machine))
    monkeypatch.setattr("benchmarks.peers.machine.group_seconds", lambda group: next(own))
    clock = iter([0.0, 2.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    timing = Watch().read()
    assert timing.seconds == 2.0
    assert timing.foreign == 0.5  # one second of others over two


def test_a_disturbed_try_is_made_again_on_something_new(monkeypatch) -> None:
    machine, foreign = iter(range(10)), iter([0.9, 0.4, 0.0])

    class Fake:
        def read(self):
            from benchmarks.peers.machine import Timing

            return Timing(1.0, next(foreign))

    monkeypatch.setattr("benchmarks.peers.machine.Watch", Fake)
    seen: list[int] = []
    assert timed(lambda: next(machine), seen.append, limit=0.1).foreign == 0.0
    assert seen == [0, 1, 2]
    foreign = iter([0.9, 0.4, 0.7])
    assert timed(lambda: next(machine), seen.append, limit=0.1).foreign == 0.4  # the quietest of all


def test_memory_of_this_group() -> None:
    held = memory()
    assert 1 < held["now"] <= held["peak"]
    assert memory(group=2**30) == {"now": 0.0, "peak": 0.0}
    assert os.getpgid(0) > 0


def test_bandwidth_is_some() -> None:
    assert read_bandwidth(1, megabytes=2, seconds=0.01) > 1e6
