import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.engine.messages import Submit
from app.engine.scheduler import Scheduler
from model.sampling_params import SamplingParams


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def submit(number, length=4, **limits):
    return Submit(number, [1] * length, 8, SamplingParams(), 0, **limits)


def test_admission_is_in_order_of_arrival_and_slots_are_reused():
    scheduler = Scheduler(2, 64)
    for number in range(4):
        scheduler.add(submit(number), frozenset())
    scheduler.plan()
    assert [r.submit.id for r in scheduler.running.values()] == [0, 1]
    scheduler.remove(next(iter(scheduler.running.values())))
    scheduler.plan()
    assert sorted(r.submit.id for r in scheduler.running.values()) == [1, 2]
    scheduler.check_integrity()


def test_a_long_prompt_is_cut_at_multiples_of_the_chunk_and_decoding_goes_on():
    scheduler = Scheduler(2, 100)
    scheduler.add(submit(0, 1), frozenset())
    plan = scheduler.plan()
    plan.prefill[0].request.prefilled = 1
    scheduler.add(submit(1, 250), frozenset())
    spans = []
    for _ in range(3):
        plan = scheduler.plan()
        assert [r.submit.id for r in plan.decode] == [0]
        (chunk,) = plan.prefill
        spans.append((chunk.start, chunk.end, chunk.last))
        chunk.request.prefilled = chunk.end
    assert spans == [(0, 100, False), (100, 200, False), (200, 250, True)]
    assert len(scheduler.plan().decode) == 2


@given(st.lists(st.integers(1, 300), min_size=1, max_size=12), st.integers(1, 128))
def test_each_step_prefills_a_bounded_amount_in_order_and_all_of_it_in_the_end(lengths, chunk):
    scheduler = Scheduler(len(lengths), chunk)
    for number, length in enumerate(lengths):
        scheduler.add(submit(number, length), frozenset())
    done = []
    while len(done) < len(lengths):
        plan = scheduler.plan()
        assert plan.prefill
        assert sum(c.end - c.start for c in plan.prefill) <= chunk
        for c in plan.prefill:
            assert c.start == c.request.prefilled
            assert c.start % chunk == 0
            c.request.prefilled = c.end
            if c.last:
                done.append(c.request.submit.id)
    assert done == sorted(done)


def test_limits_are_found_for_waiting_and_running_requests():
    clock = Clock()
    scheduler = Scheduler(1, 64, clock)
    scheduler.add(submit(0, queue_limit=5, run_limit=20), frozenset())
    scheduler.add(submit(1, queue_limit=5, run_limit=20), frozenset())
    scheduler.plan()
    clock.now = 6
    assert [(r.submit.id, why) for r, why in scheduler.expired()] == [(1, "queue_timeout")]
    clock.now = 21
    assert ("run_timeout" in {why for r, why in scheduler.expired() if r.submit.id == 0}) is True


@given(st.lists(st.tuples(st.sampled_from(["add", "cancel", "plan", "finish"]), st.integers(0, 30)), max_size=60))
def test_no_slot_is_lost_or_doubled(actions):
    scheduler = Scheduler(3, 16)
    known = set()
    for action, number in actions:
        if action == "add" and number not in known:
            known.add(number)
            scheduler.add(submit(number), frozenset())
        elif action == "cancel":
            scheduler.cancel(number)  # also one that is not there
            known.discard(number)
        elif action == "plan":
            scheduler.plan()
        elif action == "finish" and scheduler.running:
            request = next(iter(scheduler.running.values()))
            known.discard(request.submit.id)
            scheduler.remove(request)
        scheduler.check_integrity()
        assert scheduler.busy == bool(known)


def test_integrity_check_notices_a_lost_slot():
    scheduler = Scheduler(2, 16)
    scheduler.add(submit(0), frozenset())
    scheduler.plan()
    del scheduler.running[next(iter(scheduler.running))]
    with pytest.raises(RuntimeError):
        scheduler.check_integrity()
