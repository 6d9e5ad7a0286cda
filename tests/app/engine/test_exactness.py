"""The engine's answers are the plain generator's, whatever else runs; bit for bit its own where that is promised."""

import asyncio
import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle import Oracle, make_adapters
from schedules import play, wishes
from stepping import Engine

from model.backend import BackendSpec, load_backend
from model.native import library
from model.sampling_params import SamplingParams

needs_native = pytest.mark.skipif(not library.available(), reason="the native kernels were not built")
relaxed = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]


@pytest.fixture(scope="module")
def adapters(model_dir, tmp_path_factory):
    return make_adapters(model_dir, tmp_path_factory.mktemp("adapters"))


@pytest.fixture(scope="module")
def oracle(model_dir, adapters):
    return Oracle(model_dir, adapters)


@pytest.fixture(scope="module")
def make_stepped(model_dir, adapters):
    """Engines to be stepped by hand, with the adapters loaded, over one back end of each kind."""
    backends = {}

    def make(kind, chunk=64, **options):
        if kind not in backends:
            name, _, quantize = kind.partition(" ")
            spec = BackendSpec(
                model=model_dir, dtype="float32", quantize=quantize or "none", backend=name, max_slots=4, context=256
            )
            backends[kind] = load_backend(spec)
        engine = Engine(chunk=chunk, backend=backends[kind], **options)
        for name, path in adapters.items():
            engine.core.adapters.load_now(name, str(path))
        return engine

    yield make
    for backend in backends.values():
        backend.close()


def unload(engine):
    """The back end is used again."""
    for name in list(engine.core.adapters.labels):
        engine.core.adapters.unload(name)
    engine.core.adapters.close()


chunks = st.sampled_from([1, 16, 64, 512])
schedules = wishes(most=8, classifiers=("mood",))


def check_against(oracle, wish, answer):
    assert answer.last.error is None
    if wish.kind == "embed":
        got = np.frombuffer(answer.last.embedding, "<f4")
        assert got == pytest.approx(oracle.embedding(wish.prompt, wish.adapter).numpy(), abs=1e-4)
    elif wish.kind == "classify":
        assert answer.last.scores == pytest.approx(oracle.scores(wish.prompt, wish.adapter).tolist(), abs=1e-4)
    else:
        assert oracle.explains(answer.tokens, wish.prompt, wish.params, wish.max_tokens, wish.adapter)
        assert answer.last.finish == ("length" if len(answer.tokens) == wish.max_tokens else "stop")
    if wish.kind == "score":
        known = [each.logprob for each in answer.scored if each is not None]
        expected = oracle.logprobs(wish.prompt, wish.adapter)[max(wish.shared, 1) - 1 :]
        assert known == pytest.approx(expected, abs=1e-4)
    if wish.logprobs is not None and answer.tokens:
        known = [each.logprob for each in answer.logprobs]
        whole = oracle.logprobs([*wish.prompt, *answer.tokens], wish.adapter)
        assert known == pytest.approx(whole[len(wish.prompt) - 1 :], abs=1e-3)


@pytest.mark.parametrize("kind", ["torch", pytest.param("native", marks=needs_native)])
@pytest.mark.parametrize("deterministic", [False, True])
def test_random_schedules_give_the_plain_generators_answers(make_stepped, oracle, kind, deterministic):
    @settings(max_examples=12, deadline=None, suppress_health_check=relaxed)
    @given(schedules, chunks)
    def check(schedule, chunk):
        engine = make_stepped(kind, chunk, deterministic=deterministic)
        for wish, answer in play(engine, schedule):
            check_against(oracle, wish, answer)
        unload(engine)

    check()


def everything(answer):
    """All of an answer that numbers could differ in."""
    last = answer.last
    return (answer.tokens, answer.scored, answer.logprobs, last.finish, last.scores, last.embedding)


def alone(make_stepped, kind, chunk, wish, **options):
    """The answer of a request that nothing ran before or beside."""
    engine = make_stepped(kind, chunk, speculate=False, **options)
    number = engine.submit(wish.prompt, wish.max_tokens, wish.params, **wish.fields)
    answer = engine.run().answers[number]
    unload(engine)
    return answer


@needs_native
@pytest.mark.parametrize("kind", ["native", "native int8", "native int4"])
def test_native_answers_are_bit_for_bit_those_given_alone(make_stepped, kind):
    @settings(max_examples=12, deadline=None, suppress_health_check=relaxed)
    @given(schedules, chunks)
    def check(schedule, chunk):
        engine = make_stepped(kind, chunk)
        answers = play(engine, schedule)
        unload(engine)
        for wish, answer in answers:  # other chunks, no drafts, nothing warm
            assert everything(answer) == everything(alone(make_stepped, kind, 512, wish))

    check()


def test_deterministic_answers_are_bit_for_bit_those_given_alone(make_stepped):
    @settings(max_examples=15, deadline=None, suppress_health_check=relaxed)
    @given(schedules, st.sampled_from([16, 64]))
    def check(schedule, chunk):
        engine = make_stepped("torch", chunk, deterministic=True)
        answers = play(engine, schedule)
        unload(engine)
        for wish, answer in answers:
            assert everything(answer) == everything(alone(make_stepped, "torch", chunk, wish, deterministic=True))

    check()


def prompt_of(length: int) -> list[int]:
    return random.Random(length).choices(range(256), k=length)


async def ask(engine, length, max_tokens, params, delay=0.0, leave=None, logprobs=None):
    await asyncio.sleep(delay)
    ids, seen = [], 0
    async with engine.generate(prompt_of(length), params, max_tokens, logprobs=logprobs) as stream:
        async for delta in stream:
            ids += [token.id for token in delta.tokens]
            seen += 1
            if seen == leave:
                return ids, None
            finish = delta.finish
    return ids, finish


requests = st.lists(
    st.tuples(
        st.integers(1, 60),  # prompt length
        st.integers(0, 12),  # max_tokens
        st.builds(SamplingParams, temperature=st.sampled_from([0.0, 0.9]), seed=st.integers(0, 9)),
        st.sampled_from([0.0, 0.0, 0.002, 0.01]),  # when it comes, in seconds
        st.sampled_from([None, None, None, 1, 3]),  # after how many deltas it is given up
    ),
    min_size=1,
    max_size=9,
)


@settings(max_examples=15, deadline=None, suppress_health_check=relaxed)
@given(requests)
def test_through_the_client_too(loop, engine, oracle, requests):
    async def scenario():
        return await asyncio.gather(*(ask(engine, *request) for request in requests))

    for (length, max_tokens, p, _, _), (ids, finish) in zip(requests, loop.run(scenario()), strict=True):
        if finish is None:
            assert oracle.explains(ids, prompt_of(length), p, max(len(ids), 1), None) or not ids
        else:
            assert oracle.explains(ids, prompt_of(length), p, max_tokens, None)
            assert finish.reason == ("length" if len(ids) == max_tokens else "stop")
            assert (finish.prompt_tokens, finish.completion_tokens) == (length, len(ids))


def test_all_is_free_again_afterwards(loop, engine):
    loop.run(asyncio.sleep(0.2))
    status = engine.status
    assert (status.state, status.running, status.waiting, status.in_flight) == ("ready", 0, 0, 0)


def test_deterministic_mode_is_the_same_to_the_last_bit_in_any_company(loop, make_engine):
    engine = make_engine(deterministic=True, prefill_chunk=16)
    p = SamplingParams(temperature=1.2, seed=8)
    assert engine.info.invariant

    async def values():
        async with engine.generate(prompt_of(45), p, 12, logprobs=5) as stream:
            return (await stream.collect()).tokens

    async def crowd():
        others = [ask(engine, 3 + 11 * i, 15, SamplingParams(seed=i), delay=0.001 * i) for i in range(6)]
        return (await asyncio.gather(*others[:3], values(), *others[3:]))[3]

    alone = loop.run(values())
    assert len(alone) > 0
    for _ in range(3):
        assert loop.run(crowd()) == alone


def test_without_a_seed_answers_differ(loop, engine):
    answers = [tuple(loop.run(ask(engine, 5, 12, SamplingParams()))[0]) for _ in range(4)]
    assert len(set(answers)) > 1


def test_logprobs_are_of_the_models_own_distribution(loop, engine, oracle):
    p = SamplingParams(temperature=0.3, top_k=5, logit_bias={65: 100.0}, seed=1)

    async def scenario():
        async with engine.generate(prompt_of(9), p, 4, logprobs=3) as stream:
            return await stream.collect()

    delta = loop.run(scenario())
    assert [t.id for t in delta.tokens] == [65] * 4
    table = oracle.logits(prompt_of(9) + [65] * 4, None).log_softmax(-1)
    for i, token in enumerate(delta.tokens):
        row = table[9 - 1 + i]
        assert token.logprobs.logprob == pytest.approx(float(row[65]), abs=1e-4)
        assert token.logprobs.top_ids == row.topk(3).indices.tolist()
        assert token.logprobs.top_logprobs == pytest.approx(row.topk(3).values.tolist(), abs=1e-4)
