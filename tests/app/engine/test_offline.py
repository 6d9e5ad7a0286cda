"""The engine without a server."""

import math

import pytest

from app.engine import Engine, Grammar, SamplingParams
from model.checkpoint import load_model
from model.errors import ContextLengthError
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


def test_in_a_process_of_its_own_the_answers_are_the_same(offline, model_dir):
    params = SamplingParams(temperature=1.0, seed=9)
    with Engine(model_dir, process=True, threads=1, max_slots=3, dtype="float32") as other:
        theirs = other.generate(["Hello"], params, max_tokens=8)[0].token_ids
    assert theirs == offline.generate(["Hello"], params, max_tokens=8)[0].token_ids


def test_a_closed_engine_may_be_closed_again(model_dir):
    engine = Engine(model_dir, threads=1, max_slots=1)
    engine.close()
    engine.close()
