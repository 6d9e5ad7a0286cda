"""The engine's tokens are the plain generator's, whatever else runs."""

import asyncio
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.checkpoint import load_model
from model.generate import generate
from model.sampling_params import SamplingParams


@pytest.fixture(scope="module")
def model(model_dir):
    return load_model(model_dir)


params = st.one_of(
    st.builds(SamplingParams, temperature=st.just(0.0)),
    st.builds(
        SamplingParams,
        temperature=st.sampled_from([0.5, 1.0, 1.7]),
        top_p=st.sampled_from([1.0, 0.8]),
        top_k=st.sampled_from([0, 20]),
        seed=st.integers(-(2**63), 2**63 - 1),
        frequency_penalty=st.sampled_from([0.0, 0.7]),
        repetition_penalty=st.sampled_from([1.0, 1.3]),
        ignore_eos=st.booleans(),
        min_tokens=st.sampled_from([0, 3]),
        stop_token_ids=st.sampled_from([(), (1, 2, 3, 50, 60, 70, 200)]),
    ),
)
requests = st.lists(
    st.tuples(
        st.integers(1, 60),  # prompt length
        st.integers(0, 12),  # max_tokens
        params,
        st.sampled_from([0.0, 0.0, 0.002, 0.01]),  # when it comes, in seconds
        st.sampled_from([None, None, None, 1, 3]),  # after how many deltas it is given up
    ),
    min_size=1,
    max_size=9,
)


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


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests)
def test_random_schedules_give_the_plain_generators_tokens(loop, engine, model, requests):
    async def scenario():
        return await asyncio.gather(*(ask(engine, *request) for request in requests))

    for (length, max_tokens, p, _, _), (ids, finish) in zip(requests, loop.run(scenario()), strict=True):
        expected = list(generate(model, prompt_of(length), p, max_tokens))
        if finish is None:
            assert ids == expected[: len(ids)]
        else:
            assert ids == expected
            assert finish.reason == ("length" if len(expected) == max_tokens else "stop")
            assert finish.prompt_tokens == length
            assert finish.completion_tokens == len(expected)


def test_all_is_free_again_afterwards(loop, engine):
    loop.run(asyncio.sleep(0.2))
    status = engine.status
    assert (status.state, status.running, status.waiting, status.in_flight) == ("ready", 0, 0, 0)


@pytest.mark.parametrize("chunk", [1, 7, 64, 1024])
def test_chunks_change_nothing(loop, make_engine, model, chunk):
    engine = make_engine(prefill_chunk=chunk)
    p = SamplingParams(temperature=0.9, seed=4)
    ids, _ = loop.run(ask(engine, 100, 10, p))
    assert ids == list(generate(model, prompt_of(100), p, 10))


def test_deterministic_mode_is_the_same_to_the_last_bit_in_any_company(loop, make_engine):
    engine = make_engine(deterministic=True, prefill_chunk=16)
    p = SamplingParams(temperature=1.2, seed=8)

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


def test_logprobs_are_of_the_models_own_distribution(loop, engine, model):
    import torch

    p = SamplingParams(temperature=0.3, top_k=5, logit_bias={65: 100.0}, seed=1)

    async def scenario():
        async with engine.generate(prompt_of(9), p, 4, logprobs=3) as stream:
            return await stream.collect()

    delta = loop.run(scenario())
    assert [t.id for t in delta.tokens] == [65] * 4
    sequence = torch.tensor([prompt_of(9) + [65] * 4])
    table = model(sequence)[0].log_softmax(-1)
    for i, token in enumerate(delta.tokens):
        row = table[9 - 1 + i]
        assert token.logprobs.logprob == pytest.approx(float(row[65]), abs=1e-4)
        assert token.logprobs.top_ids == row.topk(3).indices.tolist()
        assert token.logprobs.top_logprobs == pytest.approx(row.topk(3).values.tolist(), abs=1e-4)
