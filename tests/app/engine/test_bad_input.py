"""Requests of the wrong types or sizes: refused by name where they are made, and nobody else notices."""

import numpy as np
import pytest

from app.engine.messages import EngineSpec, Grammar, InvalidRequest
from app.engine.scheduler import Scheduler
from model.errors import ConfigError, SamplingError
from model.sampling_params import SamplingParams

PROMPT = list(b"hello")
GREEDY = SamplingParams(temperature=0.0, ignore_eos=True)


@pytest.mark.parametrize(("param", "fields"), [
    ("max_tokens", {"max_tokens": 5.0}),
    ("max_tokens", {"max_tokens": -1}),
    ("prompt", {"prompt": [1, 2.5]}),
    ("prompt", {"prompt": "hello"}),
    ("prompt", {"prompt": 5}),
    ("prompt", {"prompt": np.zeros((2, 2), np.int64)}),
    ("logprobs", {"logprobs": 1.0}),
    ("prompt_logprobs", {"prompt_logprobs": "1"}),
    ("score_from", {"score_from": None}),
    ("stop", {"stop": "one text"}),
    ("stop", {"stop": [b"bytes"]}),
    ("speculate", {"speculate": "yes"}),
    ("grammar", {"grammar": Grammar("regex", "\ud800")}),
    ("grammar", {"grammar": Grammar("poem", "x")}),
    ("grammar", {"grammar": "[a-z]+"}),
    ("ignore_eos", {"params": SamplingParams(ignore_eos="no")}),
    ("temperature", {"params": SamplingParams(temperature=np.float32(0.5))}),
])  # fmt: skip
def test_a_mistake_is_named_keeps_no_place_and_harms_nobody(loop, engine, param, fields):
    asked = {"prompt": PROMPT, "params": GREEDY, "max_tokens": 4, **fields}

    async def scenario():
        beside = engine.generate(PROMPT, GREEDY, 4)
        with pytest.raises(InvalidRequest) as caught:
            engine.generate(**asked)
        assert caught.value.param == param
        assert str(caught.value).startswith(param)
        assert len((await beside.collect()).tokens) == 4
        assert engine.status.in_flight == 0

    loop.run(scenario())


@pytest.mark.parametrize(("param", "value"), [
    ("top_k", 10**30), ("top_k", 2**31), ("top_k", 1.5), ("min_tokens", 2**70), ("min_tokens", True), ("seed", 0.5),
    ("stop_token_ids", ("a",)), ("logit_bias", {"7": 1.0}),
])  # fmt: skip
def test_sampling_parameters_are_whole_numbers_that_fit(param, value):
    with pytest.raises(SamplingError) as caught:
        SamplingParams(**{param: value})
    assert caught.value.param == param
    assert SamplingParams(top_k=2**31 - 1, min_tokens=2**31 - 1)


def test_any_librarys_whole_numbers_are_taken(loop, engine):
    async def ids(prompt, max_tokens):
        delta = await engine.generate(prompt, GREEDY, max_tokens, logprobs=np.int8(1)).collect()
        return [token.id for token in delta.tokens]

    assert loop.run(ids(np.array(PROMPT), np.int64(6))) == loop.run(ids(PROMPT, 6))
    assert loop.run(engine.embed(np.array(PROMPT))) == pytest.approx(loop.run(engine.embed(PROMPT)))


def test_an_adapter_that_cannot_be_asked_for_can_be_asked_for_again(loop, engine):
    async def scenario():
        for name, path, param in (("a\ud800", "/tmp", "name"), ("new", 5, "path")) * 2:
            with pytest.raises(InvalidRequest) as caught:
                await engine.load_adapter(name, path)
            assert caught.value.param == param

    loop.run(scenario())


@pytest.mark.parametrize("wrong", [
    {"prefill_chunk": 0}, {"prefill_chunk": None}, {"max_slots": 0}, {"threads": 0}, {"threads": 1.5}, {"context": -1},
])  # fmt: skip
def test_settings_that_can_be_none_are_named(wrong):
    (name,) = wrong
    with pytest.raises(ConfigError, match=f"^{name} must be a whole number of at least 1, not"):
        EngineSpec(model="m", **wrong)


def test_an_error_of_the_engine_is_in_the_log_even_an_os_error(loop, make_engine, monkeypatch, caplog):
    engine = make_engine()
    plan = Scheduler.plan

    def failing(self):
        if self.waiting:
            raise OSError(24, "too many open files")
        return plan(self)

    async def scenario():
        with pytest.raises(Exception, match="engine_dead"):
            await engine.generate(PROMPT, GREEDY, 4).collect()

    with monkeypatch.context() as patch:
        patch.setattr(Scheduler, "plan", failing)
        loop.run(scenario())
    loop.run(engine.close())
    assert "the engine stops: unexpected error" in caplog.text
    assert "too many open files" in caplog.text


def test_an_error_that_ends_the_supervisor_is_in_the_log(loop, make_engine, monkeypatch, caplog):
    engine = make_engine()

    def broken(message):
        raise ValueError("a mistake in here")

    monkeypatch.setattr(engine, "on_message", broken)

    async def scenario():
        engine.generate(PROMPT, GREEDY, 2)
        with pytest.raises(ValueError, match="in here"):
            await engine.supervise()
        assert engine.status.state == "failed"

    loop.run(scenario())
    assert "the engine is given up: unexpected error" in caplog.text
    assert "a mistake in here" in caplog.text
