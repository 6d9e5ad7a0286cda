"""The engine's steps, one by one, over a back end whose answers give every mix-up away."""

from concurrent.futures import Future

import pytest
from fake_backend import reference
from stepping import GREEDY, Engine, prompt_of

from app.engine.messages import Grammar, GrammarError
from model.sampling_params import SamplingParams


def test_all_work_of_a_step_is_one_forward():
    engine = Engine(chunk=64)
    engine.submit(prompt_of(5), 40)
    engine.step(3)
    before = len(engine.backend.forwards)
    engine.submit(prompt_of(7, 1))
    engine.submit(prompt_of(9, 2))
    engine.step()
    assert len(engine.backend.forwards) == before + 1
    assert [len(s.tokens) for s in engine.backend.forwards[-1]] == [1, 7, 9]
    assert [s.outputs for s in engine.backend.forwards[-1]] == [1, 1, 1]


class Grammars:
    """A compiler whose work is done when the test says so."""

    def __init__(self):
        self.futures = {}

    def submit(self, grammar):
        self.futures[grammar.value] = Future()
        return self.futures[grammar.value]


class Evens:
    """A constraint: even tokens alone, and after three of them the end."""

    def __init__(self, ends_after=3):
        self.taken, self.ends_after = 0, ends_after

    finished = property(lambda self: self.taken >= self.ends_after)

    def allow(self, logits, ends=frozenset()):
        logits[1::2] = float("-inf")

    def accept(self, token):
        self.taken += 1
        return token % 2 == 0

    def forced(self):
        return []

    def valid(self, tokens):
        return 0


def test_a_grammar_that_compiles_holds_up_nobody_else():
    grammars = Grammars()
    engine = Engine(n_slots=1, compiler=grammars)
    waits = engine.submit(prompt_of(5), 9, grammar=Grammar("regex", "evens"))
    others = [engine.submit(prompt_of(5, seed), 3) for seed in range(3)]
    engine.run()
    assert all(engine.answers[other].last.finish == "length" for other in others)
    assert not engine.core.busy
    assert not engine.answers[waits].last
    grammars.futures["evens"].set_result(Evens())
    engine.step()
    engine.run()
    answer = engine.answers[waits]
    assert (len(answer.tokens), answer.last.finish) == (3, "stop")
    assert all(token % 2 == 0 for token in answer.tokens)


def test_a_bad_grammar_fails_its_request_alone():
    grammars = Grammars()
    engine = Engine(compiler=grammars)
    bad = engine.submit(prompt_of(5), 9, grammar=Grammar("regex", "("))
    late = engine.submit(prompt_of(5), 9, grammar=Grammar("regex", "late"))
    good = engine.submit(prompt_of(5), 3)
    grammars.futures["("].set_exception(GrammarError("regex: unclosed group"))
    engine.run()
    assert (engine.answers[bad].last.error, engine.answers[bad].last.message) == ("grammar", "regex: unclosed group")
    assert engine.answers[good].tokens == reference(prompt_of(5), GREEDY, 3)
    engine.cancel(late)
    assert grammars.futures["late"].cancelled()
    engine.run()


def test_a_grammar_that_fails_in_the_middle_fails_its_request_alone():
    class Breaks(Evens):
        def allow(self, logits, ends=frozenset()):
            if self.taken == 2:
                raise GrammarError("too complex to go on")
            super().allow(logits, ends)

    grammars = Grammars()
    engine = Engine(compiler=grammars)
    bad, good = engine.submit(prompt_of(5), 9, grammar=Grammar("regex", "x")), engine.submit(prompt_of(6), 9)
    grammars.futures["x"].set_result(Breaks(99))
    engine.run()
    assert engine.answers[bad].last.error == "grammar"
    assert engine.answers[good].tokens == reference(prompt_of(6), GREEDY, 9)


@pytest.mark.parametrize(
    ("error", "told"), [(GrammarError("too complex"), "grammar"), (RuntimeError("inside"), "fault")]
)
def test_a_grammar_that_fails_at_a_draft_fails_its_request_alone(error, told):
    class Breaks(Evens):
        def forced(self):
            raise error

    grammars = Grammars()
    engine = Engine(compiler=grammars)
    bad, good = engine.submit(prompt_of(5), 9, grammar=Grammar("regex", "x")), engine.submit(prompt_of(6), 9)
    grammars.futures["x"].set_result(Breaks(99))
    engine.run()
    assert engine.answers[bad].last.error == told
    assert engine.answers[good].tokens == reference(prompt_of(6), GREEDY, 9)


def test_a_model_that_computes_nothing_any_more_ends_the_engine():
    engine = Engine(n_slots=2)
    engine.submit(prompt_of(5), 9)
    engine.submit(prompt_of(6), 9)
    engine.step(3)

    def fail(segments):
        raise OSError("the device is gone")

    engine.backend.before = fail
    with pytest.raises(RuntimeError, match="the device is gone") as caught:
        engine.step()
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize("deterministic", [False, True])
def test_requests_that_all_fail_end_no_engine_that_could_go_on(deterministic):
    engine = Engine(n_slots=2, deterministic=deterministic, invariant=not deterministic)
    bad = [engine.submit([7, *prompt_of(5 + i)], 9) for i in range(2)]

    def fail(segments):
        if any(len(segment.tokens) > 1 for segment in segments):
            raise RuntimeError("a kernel failed")

    engine.backend.before = fail
    engine.run()
    assert [engine.answers[number].last.error for number in bad] == ["fault"] * 2
    engine.backend.before = lambda _: None
    good = engine.submit([7, *prompt_of(5)], 9)
    engine.run()
    assert engine.answers[good].tokens == reference([7, *prompt_of(5)], GREEDY, 9)


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("kind", ["nan", "raise"])
def test_a_fault_fails_that_request_alone(kind, deterministic):
    engine = Engine(n_slots=4, deterministic=deterministic, invariant=not deterministic)
    slots = set()

    def mark(segments):
        for segment in segments:
            if segment.start == 0:
                (slots.add if segment.tokens[0] == 7 else slots.discard)(segment.slot)
            elif kind == "raise" and segment.slot in slots:
                raise RuntimeError("a kernel failed")

    def damage(segments, hidden):
        row = 0
        for segment in segments:
            if kind == "nan" and segment.slot in slots and segment.start:
                hidden[row : row + segment.outputs] = float("nan")
            row += segment.outputs

    engine.backend.before, engine.backend.damage = mark, damage
    prompts = [prompt_of(20 + i, i) for i in range(3)]
    prompts = [[1, *prompt] for prompt in prompts]
    good = [engine.submit(prompt, 12) for prompt in prompts]
    bad = engine.submit([7, *prompt_of(10)], 12)
    engine.run()
    assert engine.answers[bad].last.error == "fault"
    for number, prompt in zip(good, prompts, strict=True):
        assert engine.answers[number].tokens == reference(prompt, GREEDY, 12)
    spent = engine.backend.n_tokens
    engine.backend.before, engine.backend.damage = lambda _: None, lambda *_: None
    again = engine.submit([7, *prompt_of(10)], 12)
    engine.run()
    # What was computed for it can't be trusted, and is computed again.
    assert engine.answers[again].started.cached == 0
    assert engine.answers[again].tokens == reference([7, *prompt_of(10)], GREEDY, 12)
    assert engine.backend.n_tokens > spent


def test_what_the_client_should_have_refused_reaches_no_tensor():
    engine = Engine(context=64)
    for prompt, max_tokens in (([], 3), (prompt_of(60), 5)):
        number = engine.submit(prompt, max_tokens)
        engine.step()
        assert engine.answers[number].last.error == "prompt"
    number = engine.submit([1], 3, grammar=Grammar("regex", "x"))
    unknown = engine.submit([1], 3, adapter="nobody")
    engine.step()
    assert engine.answers[number].last.error == "grammar"
    assert engine.answers[unknown].last.error == "adapter"
    assert not engine.backend.forwards
    engine.run()


def test_drafts_change_no_answer_and_save_steps():
    # A bias makes every prompt repeat itself.
    params = SamplingParams(temperature=0.0, ignore_eos=True, logit_bias=dict.fromkeys((3, 4), 30.0))
    loop = SamplingParams(temperature=0.0, ignore_eos=True, logit_bias={5: 100.0})
    fast, slow = Engine(), Engine(speculate=False)
    numbers = []
    for engine in (fast, slow):
        numbers = [engine.submit(prompt_of(30), 60, p) for p in (params, loop)]
        engine.run()
    for number, p in zip(numbers, (params, loop), strict=True):
        assert fast.answers[number].tokens == slow.answers[number].tokens == reference(prompt_of(30), p, 60)
    assert fast.answers[numbers[1]].steps < slow.answers[numbers[1]].steps == 60


def test_a_request_can_forbid_drafts():
    engine = Engine()
    number = engine.submit([5] * 30, 30, SamplingParams(temperature=0.0, logit_bias={5: 100.0}), speculate=False)
    engine.run()
    assert engine.answers[number].steps == 30
