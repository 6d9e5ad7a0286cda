"""Whatever comes when, with whatever in common, and leaves early: each gets the answer it gets alone."""

import numpy as np
import pytest
from fake_backend import extend, hidden_of, logits_of, reference
from hypothesis import given, settings
from hypothesis import strategies as st
from stepping import Engine, prompt_of

from model.sampling_params import SamplingParams

params = st.one_of(
    st.just(SamplingParams(temperature=0.0)),
    st.builds(
        SamplingParams,
        temperature=st.sampled_from([0.7, 1.0]),
        seed=st.integers(0, 3),
        ignore_eos=st.booleans(),
        repetition_penalty=st.sampled_from([1.0, 1.2]),
        stop_token_ids=st.sampled_from([(), (1, 2, 3)]),
        min_tokens=st.sampled_from([0, 2]),
    ),
)
requests = st.fixed_dictionaries(
    {
        "prefix": st.sampled_from([(0, 0), (1, 20), (1, 70), (2, 40)]),  # a common beginning, and its length
        "own": st.tuples(st.integers(1, 60), st.integers(0, 3)),
        "max_tokens": st.integers(0, 12),
        "params": params,
        "kind": st.sampled_from(["generate", "generate", "generate", "score", "embed"]),
        "adapter": st.sampled_from([None, None, "one", "two"]),
        "after": st.integers(0, 6),  # steps before it comes
        "leave": st.sampled_from([None, None, None, 0, 1, 5]),  # steps before it is given up
        "speculate": st.booleans(),
    }
)


@settings(max_examples=80)
@given(
    st.lists(requests, min_size=1, max_size=12),
    st.sampled_from([1, 3, 16, 64, 512]),
    st.integers(1, 5),
    st.booleans(),
)
def test_random_schedules(requests, chunk, n_slots, deterministic):
    engine = Engine(n_slots, chunk, deterministic=deterministic, invariant=not deterministic)
    engine.load("one", 1).load("two", 2)
    numbers = {None: 0, "one": 1, "two": 2}
    asked, leaving = [], []
    for request in requests:
        engine.step(request["after"])
        for when in [when for when in leaving if when[0] <= len(engine.backend.forwards)]:
            engine.cancel(when[1])
        seed, length = request["prefix"]
        prompt = prompt_of(70, seed)[:length] + prompt_of(request["own"][0], 10 + request["own"][1])
        fields = {"adapter": request["adapter"], "speculate": request["speculate"]}
        if request["kind"] == "score":
            fields |= {"prompt_logprobs": 0, "score_from": length}
        elif request["kind"] == "embed":
            fields |= {"task": "embed"}
        tokens = 0 if request["kind"] == "embed" else request["max_tokens"]
        number = engine.submit(prompt, tokens, request["params"], **fields)
        asked.append((number, prompt, request))
        if request["leave"] is not None:
            leaving.append((len(engine.backend.forwards) + request["leave"], number))
        engine.core.check_integrity()
    engine.run()
    left = {number for _, number in leaving}
    for number, prompt, request in asked:
        answer, adapter = engine.answers[number], numbers[request["adapter"]]
        if number in left and answer.last is None:
            continue
        assert answer.last is not None
        assert answer.last.error is None
        states = []
        extend(states, prompt, adapter)
        if request["kind"] == "embed":
            expected = hidden_of(states).double().mean(0).float().numpy()
            assert np.frombuffer(answer.last.embedding, "<f4") == pytest.approx(expected, rel=1e-6)
            continue
        expected = reference(prompt, request["params"], request["max_tokens"], adapter)
        assert answer.tokens == expected
        assert answer.last.finish == ("length" if len(expected) == request["max_tokens"] else "stop")
        if request["kind"] == "score":
            table = logits_of(hidden_of(states)).log_softmax(-1)
            first = max(request["prefix"][1], 1)
            values = [float(table[i - 1, prompt[i]]) for i in range(first, len(prompt))]
            got = [known.logprob for known in answer.scored if known is not None]
            assert got == pytest.approx(values, abs=1e-5)
