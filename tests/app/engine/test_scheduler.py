"""Slots, prefixes, fairness, limits: who computes what, and when."""

import pytest
from fake_backend import reference
from stepping import GREEDY, Answer, Engine, prompt_of

from model.sampling_params import SamplingParams


def test_the_choices_of_one_prompt_share_its_prefill():
    engine = Engine(n_slots=5, chunk=32, speculate=False)
    prompt = prompt_of(100)
    seeds = [SamplingParams(seed=i) for i in range(5)]
    numbers = [engine.submit(prompt, 6, p) for p in seeds]
    engine.run()
    # Once whole, and then one token for each of the others: its logits are needed.
    assert sum(len(s.tokens) for f in engine.backend.forwards for s in f if len(s.tokens) > 1 or s.start == 99) == 104
    for number, p in zip(numbers, seeds, strict=True):
        assert engine.answers[number].tokens == reference(prompt, p, 6)
    assert sorted(engine.answers[n].started.cached for n in numbers) == [0, 99, 99, 99, 99]


def test_a_common_beginning_is_prefilled_once_and_then_each_goes_its_way():
    engine = Engine(n_slots=4, chunk=16, speculate=False)
    shared = prompt_of(50)
    prompts = [[*shared, *prompt_of(20, seed)] for seed in (1, 2, 3)]
    numbers = [engine.submit(prompt, 5) for prompt in prompts]
    engine.run()
    for number, prompt in zip(numbers, prompts, strict=True):
        assert engine.answers[number].tokens == reference(prompt, GREEDY, 5)
    assert engine.backend.n_tokens == 50 + 3 * 20 + 3 * 4


def test_short_common_beginnings_are_not_waited_for():
    engine = Engine(n_slots=2)
    for seed in (1, 2):
        engine.submit([1, 2, 3, *prompt_of(30, seed)], 1)
    engine.step()
    assert len(engine.backend.forwards[0]) == 2


def test_a_warm_slot_is_continued():
    engine = Engine()
    prompt = prompt_of(60)
    first = engine.submit(prompt, 8)
    engine.run()
    spent = engine.backend.n_tokens
    following = [*prompt, *engine.answers[first].tokens, 5, 6]
    second = engine.submit(following, 1)
    engine.run()
    # The last token that was generated was never fed.
    assert engine.answers[second].started.cached == len(prompt) + 7
    assert engine.backend.n_tokens - spent == 3
    assert engine.answers[second].tokens == reference(following, GREEDY, 1)
    assert not engine.backend.copies


def test_a_running_requests_tokens_are_copied_even_those_it_generated():
    engine = Engine(speculate=False)
    prompt = prompt_of(30)
    first = engine.submit(prompt, 100)
    engine.step(40)
    following = [*prompt, *engine.answers[first].tokens[:20], 9]
    second = engine.submit(following, 1)
    engine.step(2)
    assert engine.answers[second].started.cached == 50
    assert engine.answers[second].tokens == reference(following, GREEDY, 1)
    engine.run()
    assert engine.answers[first].tokens == reference(prompt, GREEDY, 100)


def test_the_whole_prompt_again_computes_one_token():
    engine = Engine()
    prompt = prompt_of(40)
    for _ in range(2):
        number = engine.submit(prompt, 1)
        engine.run()
    assert engine.answers[number].started.cached == 39
    assert engine.backend.n_tokens == 41


@pytest.mark.parametrize("when", [1, 2, 3])
def test_followers_go_on_when_the_one_they_wait_for_is_cancelled(when):
    engine = Engine(n_slots=4, chunk=16, speculate=False)
    prompt = prompt_of(60)
    numbers = [engine.submit(prompt, 3, SamplingParams(seed=i)) for i in range(4)]
    engine.step(when)
    engine.cancel(numbers[0])
    engine.core.check_integrity()
    engine.run()
    for i, number in enumerate(numbers[1:], 1):
        assert engine.answers[number].tokens == reference(prompt, SamplingParams(seed=i), 3)
    # What had been prefilled for the one that left was not done again, nor more twice than is worth waiting for.
    assert engine.backend.n_tokens <= 60 + 2 * 16 + 3 * 3


def test_a_cancelled_follower_is_gone_at_once():
    engine = Engine(n_slots=2, chunk=16)
    prompt = prompt_of(60)
    first, second = engine.submit(prompt), engine.submit(prompt)
    engine.step()
    assert engine.core.scheduler.running[0].followers or engine.core.scheduler.running[1].followers
    engine.cancel(second)
    engine.core.check_integrity()
    third = engine.submit([7, 8])
    engine.step()
    assert engine.answers[third].tokens
    engine.run()
    assert engine.answers[first].tokens == reference(prompt, GREEDY, 4)
    assert engine.answers[second] == Answer()


def test_followers_of_followers_never_wait_in_a_circle():
    engine = Engine(n_slots=6, chunk=16)
    a, b = prompt_of(40, 1), prompt_of(40, 2)
    prompts = [a, [*a, *b], [*a, *b, 1], [*a, *b, 2], [*a, 3], [*a, *b, 1, 2]]
    numbers = [engine.submit(prompt, 2) for prompt in prompts]
    engine.step(2)
    engine.cancel(numbers[0])
    engine.step(1)
    engine.cancel(numbers[1])
    engine.run()
    for number, prompt in list(zip(numbers, prompts, strict=True))[2:]:
        assert engine.answers[number].tokens == reference(prompt, GREEDY, 2)


def test_short_prompts_get_through_beside_a_long_one_and_it_gets_on():
    engine = Engine(n_slots=8, chunk=64)
    stream = engine.submit(prompt_of(4), 400)
    engine.step(5)
    long = engine.submit(prompt_of(400, 1), 1)
    engine.step()
    shorts = [engine.submit(prompt_of(12, seed), 1) for seed in range(2, 6)]
    for _ in range(60):
        engine.step()
        if all(engine.answers[short].last for short in shorts):
            break
    assert not engine.answers[long].last
    for _ in range(60):
        shorts.append(engine.submit(prompt_of(12, 100 + len(shorts)), 1))
        engine.step()
    assert engine.answers[long].last, "a stream of short prompts starves the long one"
    engine.cancel(stream)
    engine.run()


def test_running_streams_get_a_token_in_every_step_of_a_long_prefill():
    engine = Engine(chunk=512, speculate=False)
    stream = engine.submit(prompt_of(4), 300)
    engine.step(30)
    engine.submit(prompt_of(400, 1), 1)
    before, sizes = len(engine.answers[stream].tokens), []
    for _ in range(20):
        engine.step()
        sizes.append(sum(len(s.tokens) for s in engine.backend.forwards[-1]) - 1)
    assert len(engine.answers[stream].tokens) == before + 20
    assert max(sizes) <= 32
    assert min(size for size in sizes if size) >= 8


def test_no_more_than_a_chunk_is_prefilled_in_a_step():
    engine = Engine(n_slots=8, chunk=50)
    for seed in range(8):
        engine.submit(prompt_of(10 + 13 * seed, seed), 1)
    engine.run()
    sizes = [sum(len(s.tokens) for s in segments) for segments in engine.backend.forwards]
    assert max(sizes) == 50
    assert sum(sizes) == sum(10 + 13 * seed for seed in range(8))


def test_admission_is_in_order_of_arrival():
    engine = Engine(n_slots=2)
    numbers = [engine.submit(prompt_of(5, seed), 3) for seed in range(8)]
    ended = []
    while engine.core.busy:
        engine.step()
        ended += [n for n in numbers if engine.answers[n].last and n not in ended]
    assert ended == numbers


def test_the_limits_of_waiting_and_living():
    engine = Engine(n_slots=1)
    first = engine.submit(prompt_of(5), 100, queue_limit=5, run_limit=20)
    second = engine.submit(prompt_of(5), 100, queue_limit=5, run_limit=20)
    engine.step()
    engine.clock.now += 6
    engine.step()
    assert engine.answers[second].last.error == "queue_timeout"
    assert not engine.answers[first].last
    engine.clock.now += 15
    engine.step()
    assert engine.answers[first].last.error == "run_timeout"
    engine.run()


def test_in_deterministic_mode_each_piece_runs_alone_and_is_cut_at_fixed_places():
    engine = Engine(n_slots=4, chunk=16, deterministic=True, invariant=False)
    shared = prompt_of(40)
    prompts = [[*shared, *prompt_of(15, seed)] for seed in range(1, 5)]
    numbers = [engine.submit(prompt, 4) for prompt in prompts]
    engine.run()
    again = engine.submit(prompts[0], 4)
    engine.run()
    for segments in engine.backend.forwards:
        assert len(segments) == 1
        (segment,) = segments
        assert segment.start % 16 == 0 or len(segment.tokens) == 1
        if segment.start < 40:
            assert (segment.start + len(segment.tokens)) % 16 == 0
    for number, prompt in zip(numbers, prompts, strict=True):
        assert engine.answers[number].tokens == reference(prompt, GREEDY, 4)
    # Whole chunks alone are taken over: never part of one, never what was decoded.
    assert {engine.answers[n].started.cached for n in numbers} == {0, 32}
    assert engine.answers[again].started.cached == 48


def test_the_integrity_check_notices_what_is_wrong():
    engine = Engine().load("one", 1)
    engine.submit(prompt_of(30), 50)
    engine.submit(prompt_of(30, 1), 50, adapter="one")
    engine.step(3)
    engine.core.check_integrity()
    scheduler = engine.core.scheduler
    request = next(iter(scheduler.running.values()))
    for damage, mend in (
        (lambda: scheduler.running.pop(0), lambda: scheduler.running.update({0: request})),
        (lambda: setattr(request, "leader", request), lambda: setattr(request, "leader", None)),
        (lambda: request.followers.append(request), request.followers.clear),
        (lambda: request.slot.tokens.extend([0] * 600), lambda: request.slot.tokens.__delitem__(slice(40, None))),
        (lambda: setattr(request.slot, "adapter", 9), lambda: setattr(request.slot, "adapter", 0)),
    ):
        damage()
        with pytest.raises(RuntimeError):
            engine.core.check_integrity()
        mend()
    engine.core.check_integrity()
    engine.core.adapters._named["one"].users += 1
    with pytest.raises(RuntimeError, match="one"):
        engine.core.check_integrity()
