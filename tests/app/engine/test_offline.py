"""The engine without a server."""

import gc
import itertools
import math

import numpy as np
import pytest

from app.engine import Engine, Grammar, SamplingParams
from app.engine.grammar import Constraint
from app.engine.messages import GrammarError, InvalidRequest
from model.checkpoint import load_model
from model.errors import ContextLengthError, HomegrownError, SamplingError
from model.generate import generate
from model.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def offline(model_dir):
    with Engine(model_dir, threads=1, max_slots=3, dtype="float32") as engine:
        yield engine


@pytest.fixture(scope="module")
def model(model_dir):
    return load_model(model_dir)


def test_a_batch_comes_back_in_order_and_is_the_plain_generators(offline, model, capfd):
    prompts = [[5 * i + 1, 7, i + 2] for i in range(11)]
    params = SamplingParams(temperature=0.0)
    answers = offline.generate(prompts, params, max_tokens=6, progress=True)
    assert [answer.token_ids for answer in answers] == [list(generate(model, p, params, 6)) for p in prompts]
    assert all(answer.error is None and answer.prompt_tokens == 3 for answer in answers)
    assert "11/11" in capfd.readouterr().err


def test_texts_stream_and_whole_answers_agree(offline):
    params = SamplingParams(temperature=0.9, seed=3)
    (whole,) = offline.generate(["Once upon a time"], params, max_tokens=20)
    pieces = list(offline.stream("Once upon a time", params, max_tokens=20))
    assert "".join(pieces) == whole.text
    assert len(whole.tokens) == 20


def test_a_stream_left_early_frees_its_slot(offline):
    for _ in range(5):  # more than there are slots
        for _ in offline.stream("Hello", max_tokens=100):
            break
    assert len(offline.generate(["Hello"], max_tokens=3)[0].tokens) == 3


def test_scores_are_the_models_log_probabilities(offline, model, model_dir):
    import torch

    ids = Tokenizer.from_directory(model_dir).encode("The old man and the sea")
    (scores,) = offline.score(["The old man and the sea"])
    table = model(torch.tensor([ids]))[0].log_softmax(-1)
    expected = [float(table[i, token]) for i, token in enumerate(ids[1:])]
    assert scores == pytest.approx(expected, abs=1e-4)


def test_embeddings_are_of_length_one(offline, model):
    vectors = offline.embed(["One text", "Another, longer text"])
    assert len(vectors) == 2
    for vector in vectors:
        assert len(vector) == model.config.d_model
        assert math.hypot(*vector) == pytest.approx(1.0, abs=1e-5)


def test_a_prompt_too_long_is_named_before_anything_runs(offline):
    with pytest.raises(ContextLengthError, match="prompt 1"):
        offline.generate([[1, 2], [3] * 1500], max_tokens=4)


def test_a_grammar_holds(offline):
    grammar = Grammar("choice", '["yes", "no"]')
    answers = offline.generate(["Is it?"] * 4, SamplingParams(temperature=1.0), max_tokens=8, grammar=grammar)
    assert {answer.text for answer in answers} <= {"yes", "no"}
    assert {answer.finish_reason for answer in answers} == {"stop"}


def test_the_failure_of_one_request_is_its_own(offline, monkeypatch):
    pytest.importorskip("llguidance")
    accept, calls = Constraint.accept, itertools.count()

    def failing(self, token):
        if next(calls) == 4:
            raise GrammarError("the grammar can't be followed any further")
        return accept(self, token)

    monkeypatch.setattr(Constraint, "accept", failing)
    answers = offline.generate(list("abcd"), max_tokens=6, grammar=Grammar("regex", "[a-z ]+"))
    assert sorted(answer.error is None for answer in answers) == [False, True, True, True]
    assert "the grammar can't be followed any further" in {answer.error for answer in answers}


def test_what_is_wrong_with_all_is_raised(offline):
    pytest.importorskip("llguidance")
    with pytest.raises(GrammarError):
        offline.generate(["a"] * 9, max_tokens=3, grammar=Grammar("regex", "("))
    with pytest.raises(InvalidRequest, match="there is no 'x'"):
        offline.generate(["a", "b"], max_tokens=3, adapter="x")
    with pytest.raises(InvalidRequest, match="stop"):
        offline.generate(["a", "b"], max_tokens=3, stop="text")
    with pytest.raises(SamplingError, match="prompt 1: prompt: 300"):
        offline.generate([[1], [300]], max_tokens=3)
    with pytest.raises(InvalidRequest, match="prompt 1: prompt must be"):
        offline.score([[1], [1.5]])


def test_arrays_of_ids_are_prompts(offline):
    ids = [5, 6, 7]
    assert offline.generate([np.array(ids)], max_tokens=3) == offline.generate([ids], max_tokens=3)


def test_in_a_process_of_its_own_the_answers_are_the_same(offline, model_dir):
    params = SamplingParams(temperature=1.0, seed=9)
    with Engine(model_dir, process=True, threads=1, max_slots=3, dtype="float32") as other:
        theirs = other.generate(["Hello"], params, max_tokens=8)[0].token_ids
    assert theirs == offline.generate(["Hello"], params, max_tokens=8)[0].token_ids


def test_a_closed_engine_may_be_closed_again(model_dir):
    engine = Engine(model_dir, threads=1, max_slots=1)
    engine.close()
    engine.close()


@pytest.mark.filterwarnings("error")
def test_a_closed_engine_says_so(model_dir):
    engine = Engine(model_dir, threads=1, max_slots=1)
    begun, fresh = engine.stream("Hello", max_tokens=50), engine.stream("Hello", max_tokens=50)
    next(begun)
    engine.close()
    for ask in (
        lambda: engine.generate(["a"], max_tokens=2),
        lambda: engine.embed(["a"]),
        lambda: engine.load_adapter("a", "b"),
        lambda: next(begun),
        lambda: next(fresh),
    ):
        with pytest.raises(RuntimeError, match="the engine is closed"):
            ask()
    begun.close()
    gc.collect()


def test_without_a_server_all_processors_compute(model_dir, monkeypatch):
    monkeypatch.setattr("app.engine.offline.available_cpus", lambda: 3)
    with Engine(model_dir, max_slots=1) as engine:
        assert engine.info.threads == 3


@pytest.mark.parametrize("wrong", [{"prefill_chunk": -1}, {"max_slots": 0}, {"threads": 0}, {"context": 10**9}])
def test_settings_that_cannot_be_are_named(model_dir, wrong):
    with pytest.raises(HomegrownError, match=next(iter(wrong))):
        Engine(model_dir, **{"threads": 1, **wrong})
