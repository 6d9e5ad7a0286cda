"""Whatever comes when, with whatever in common, and leaves early: each gets the answer it gets alone.

Over the fake back end: here it is about who gets what, not about numbers.
"""

import numpy as np
import pytest
from fake_backend import extend, hidden_of, logits_of, reference
from hypothesis import given, settings
from hypothesis import strategies as st
from schedules import play, wishes
from stepping import Engine


@settings(max_examples=100)
@given(wishes(), st.sampled_from([1, 3, 16, 64, 512]), st.integers(1, 5), st.booleans())
def test_random_schedules(schedule, chunk, n_slots, deterministic):
    engine = Engine(n_slots, chunk, deterministic=deterministic, invariant=not deterministic)
    engine.load("one", 1).load("two", 2)
    for wish, answer in play(engine, schedule):
        adapter = {None: 0, "one": 1, "two": 2}[wish.adapter]
        assert answer.last.error is None
        states = []
        extend(states, wish.prompt, adapter)
        if wish.kind == "embed":
            expected = hidden_of(states).double().mean(0).float().numpy()
            assert np.frombuffer(answer.last.embedding, "<f4") == pytest.approx(expected, rel=1e-6)
            continue
        expected = reference(wish.prompt, wish.params, wish.max_tokens, adapter)
        assert answer.tokens == expected
        assert answer.last.finish == ("length" if len(expected) == wish.max_tokens else "stop")
        assert len(answer.logprobs) == (0 if wish.logprobs is None else len(expected))
        if wish.kind == "score":
            table = logits_of(hidden_of(states)).log_softmax(-1)
            values = [float(table[i - 1, wish.prompt[i]]) for i in range(max(wish.shared, 1), len(wish.prompt))]
            got = [known.logprob for known in answer.scored if known is not None]
            assert got == pytest.approx(values, abs=1e-5)
