"""Scoring, embedding and classifying: in the same steps as generating, and exact."""

import numpy as np
import pytest
import torch
from fake_backend import extend, hidden_of, logits_of, reference
from stepping import GREEDY, Engine, prompt_of


def test_only_the_last_position_of_a_prompt_gives_an_output():
    engine = Engine(chunk=10)
    engine.submit(prompt_of(25), 1)
    engine.run()
    assert [[s.outputs for s in segments] for segments in engine.backend.forwards] == [[0], [0], [1]]


@pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
def test_prompt_logprobs(chunk):
    engine = Engine(chunk=chunk)
    prompt = prompt_of(40)
    warm = engine.submit(prompt, 1)
    engine.run()
    scored = engine.submit(prompt, 2, prompt_logprobs=2)
    late = engine.submit(prompt, 0, prompt_logprobs=0, score_from=35)
    none = engine.submit(prompt, 0, prompt_logprobs=0, score_from=40)
    engine.run()
    states = []
    extend(states, prompt, 0)
    table = logits_of(hidden_of(states)).log_softmax(-1)
    answer = engine.answers[scored]
    assert answer.scored[0] is None
    assert len(answer.scored) == 40
    for i, known in enumerate(answer.scored[1:], 1):
        assert known.logprob == pytest.approx(float(table[i - 1, prompt[i]]), abs=1e-5)
        assert known.top_ids == table[i - 1].topk(2).indices.tolist()
    assert answer.tokens == reference(prompt, GREEDY, 2)
    assert [k.logprob for k in engine.answers[late].scored] == [k.logprob for k in answer.scored[35:]]
    assert engine.answers[late].last.finish == "length"
    assert engine.answers[none].scored == []
    assert [engine.answers[n].started.cached for n in (warm, scored, late, none)] == [0, 0, 34, 39]


@pytest.mark.parametrize("chunk", [1, 7, 64, 100, 1000])
def test_embeddings_are_the_mean_and_the_same_to_the_last_bit_however_the_prompt_is_cut(chunk):
    prompt = prompt_of(200)
    results = []
    for size in (chunk, 1000):
        engine = Engine(chunk=size)
        stream = engine.submit(prompt_of(3), 300)
        engine.step(3)
        number = engine.submit(prompt, 0, task="embed")
        while not engine.answers[number].last:
            engine.step()
        assert engine.answers[number].last.finish == "done"
        results.append(engine.answers[number].last.embedding)
        engine.cancel(stream)
        engine.run()
    assert results[0] == results[1]
    states = []
    extend(states, prompt, 0)
    expected = hidden_of(states).double().mean(0).numpy()
    assert np.frombuffer(results[0], "<f4") == pytest.approx(expected, rel=1e-6)


def test_classifying_uses_the_last_position_and_the_adapters_own_head():
    engine = Engine(labels=3)
    prompt = prompt_of(30)
    head = torch.randn(2, 4)
    engine.load("mood", 5, labels=("good", "bad"), score=head)
    base, other = engine.submit(prompt, 0, task="classify"), engine.submit(prompt, 0, task="classify", adapter="mood")
    wrong = engine.submit(prompt, 1)
    engine.run()
    for number, matrix, adapter in ((base, engine.backend.score_head, 0), (other, head, 5)):
        states = []
        extend(states, prompt, adapter)
        expected = (hidden_of(states[-1:]) @ matrix.T)[0].tolist()
        assert engine.answers[number].last.scores == pytest.approx(expected, rel=1e-5)
    assert engine.answers[wrong].last.error == "model"
    plain = Engine()
    number = plain.submit(prompt, 0, task="classify")
    plain.run()
    assert plain.answers[number].last.error == "model"


@pytest.mark.parametrize("task", ["embed", "classify", "score"])
def test_broken_numbers_are_never_a_result(task):
    engine = Engine(labels=2 if task == "classify" else 0)
    engine.backend.damage = lambda segments, hidden: hidden.fill_(float("nan"))
    fields = {"prompt_logprobs": 0} if task == "score" else {"task": task}
    number = engine.submit(prompt_of(20), 0, **fields)
    engine.run()
    assert engine.answers[number].last.error == "fault"


def test_nothing_to_generate():
    engine = Engine()
    number = engine.submit(prompt_of(3), 0)
    assert engine.core.busy
    engine.run()
    assert engine.answers[number].last.finish == "length"
    assert not engine.backend.forwards
