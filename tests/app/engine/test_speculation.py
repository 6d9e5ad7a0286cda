"""Guesses: what is looked up, when guessing stops and starts again, and what a step's cost makes of it."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.engine.grammar import GrammarCompiler
from app.engine.messages import Grammar
from app.engine.speculation import Drafter, StepCost, acceptance_needed, draft_budget
from model.tokenizer import Tokenizer


def by_scanning(tokens: list[int], n: int) -> list[int]:
    """The definition of the look-up, without an index: of the latest 8 places behind the last pair, the first that agrees
    with most of the last 8 tokens."""
    end = len(tokens)
    places = [p for p in range(end - 1, 1, -1) if tokens[p - 2 : p] == tokens[end - 2 :]][:8] if end >= 2 else []

    def agreement(place: int) -> int:
        pairs = zip(reversed(tokens[:place][-8:]), reversed(tokens[-8:]), strict=False)
        return next((i for i, (a, b) in enumerate(pairs) if a != b), min(place, 8))

    if not places:
        return []
    text = list(tokens)
    best = max(places, key=agreement)
    for i in range(n):
        text.append(text[best + i])
    return text[end:]


@settings(max_examples=200)
@given(st.lists(st.integers(0, 3), max_size=60), st.lists(st.integers(0, 3), max_size=60), st.integers(1, 12))
def test_drafts_are_what_a_scan_of_the_text_finds(prompt: list[int], output: list[int], limit: int) -> None:
    drafter = Drafter(prompt, longest=12)
    drafter._length = 12
    whole = drafter.draft(output, limit)
    assert whole == by_scanning(prompt + output, limit)
    stepwise = Drafter(prompt, longest=12)
    stepwise._length = 12
    for i in range(0, len(output), 3):
        stepwise.draft(output[: i + 1], 1)
    assert stepwise.draft(output, limit) == whole


def run(text: list[int], n_prompt: int, least: float = 0.0) -> tuple[int, int, int]:
    """Generate text[n_prompt:] with drafts: steps taken, tokens drafted, tokens accepted."""
    drafter, at, steps, drafted, accepted = Drafter(text[:n_prompt]), n_prompt, 0, 0, 0
    while at < len(text):
        drafts = drafter.draft(text[n_prompt:at], len(text) - at - 1, least=least)
        right = next((i for i, token in enumerate(drafts) if token != text[at + i]), len(drafts))
        drafter.learn(len(drafts), right)
        steps, drafted, accepted, at = steps + 1, drafted + len(drafts), accepted + right, at + right + 1
    return steps, drafted, accepted


def test_a_text_that_repeats_its_prompt_takes_far_fewer_steps() -> None:
    prompt = random.Random(0).sample(range(1000), 200)
    steps, drafted, accepted = run(prompt + prompt, 200)
    assert steps < 200 / 6
    assert accepted == drafted or accepted > 0.95 * drafted


def test_a_text_that_never_repeats_itself_is_hardly_guessed_at() -> None:
    numbers = random.Random(1)
    text = [numbers.randrange(12) for _ in range(3000)]  # pairs come again all the time, and mean nothing
    steps, drafted, accepted = run(text, 200)
    assert drafted < 0.1 * steps
    assert steps + accepted == 2800


def test_guessing_starts_again_where_it_pays_again() -> None:
    numbers = random.Random(2)
    noise = [numbers.randrange(12) for _ in range(1500)]
    song = numbers.sample(range(100, 900), 40)
    steps, _, _ = run(noise + song * 40, 100)
    alone, _, _ = run(noise, 100)
    assert steps - alone < 1600 / 2


def test_below_the_share_needed_only_tries_are_made() -> None:
    numbers = random.Random(3)
    # Every other word comes true: a share of about a half.
    text = [token for _ in range(800) for token in (7, 8, numbers.choice((1, 2)))]
    steps, drafted, _ = run(text, 50, least=0.95)
    freely, guessed, _ = run(text, 50)
    assert 0 < drafted < 0.25 * guessed
    assert steps > freely


def test_limits_and_empty_texts() -> None:
    assert Drafter([]).draft([], 5) == []
    assert Drafter([1]).draft([], 5) == []
    assert Drafter([1, 2, 1]).draft([2], 0) == []
    assert Drafter([1, 2, 3, 1]).draft([2], 2) == [3, 1]
    assert Drafter([5, 5]).draft([5], 3) == [5, 5, 5]


def test_a_grammar_forces_and_cuts_drafts() -> None:
    tokenizer = Tokenizer.gpt2()
    compiler = GrammarCompiler(tokenizer, 50257, frozenset({50256}))
    limits = compiler.submit(Grammar("regex", '\\{"temperature": [0-9]+\\}')).result()
    start = tokenizer.encode('{"')
    drafter = Drafter(start)
    for token in start:
        assert limits.accept(token)
    forced = drafter.draft([], 8, constraint=limits)
    assert tokenizer.decode(forced) == 'temperature":'
    drafter.learn(len(forced), 0)  # tells nothing of the look-up
    assert drafter.draft(start * 4, 4, least=0.99)

    digits = compiler.submit(Grammar("regex", "[0-9 ]+")).result()
    words = tokenizer.encode("1 2 3 four 1 2 3")
    drafter = Drafter(words, longest=8)
    drafter._length = 8
    n_digits = 3
    for token in words[-n_digits:]:
        assert digits.accept(token)
    assert drafter.draft([], 8, constraint=digits) == []  # " four" was to follow
    assert len(drafter.draft([], 8)) == 8


def test_the_more_rows_the_surer_a_guess_must_be() -> None:
    cost = StepCost(base=1.0, row=0.15)
    needed = [acceptance_needed(n, cost) for n in range(65)]
    assert needed == sorted(needed)
    assert needed[1] < 0.2
    assert needed[32] > 0.8
    assert draft_budget(0, cost) == 0
    assert draft_budget(1, cost) >= 6
    assert draft_budget(64, cost) == 0
    assert draft_budget(8, StepCost(base=1.0, row=0.001)) == 1000
    assert draft_budget(1, StepCost(base=1.0, row=10.0)) == 0


def observed(steps: list[tuple[int, float]]) -> StepCost:
    cost = StepCost()
    for rows, seconds in steps:
        cost.observe(rows, seconds)
    return cost


@settings(max_examples=50, deadline=None)
@given(st.floats(1e-4, 0.1), st.floats(0.02, 2), st.integers(0, 99))
def test_costs_are_fitted_to_steps(base: float, share: float, seed: int) -> None:
    numbers = random.Random(seed)
    rows = [numbers.randint(1, 32) for _ in range(300)]
    cost = observed([(n, base * (1 + share * n) * numbers.uniform(0.97, 1.03)) for n in rows])
    assert cost.row == pytest.approx(base * share, rel=0.2)
    assert cost.base + 8 * cost.row == pytest.approx(base * (1 + 8 * share), rel=0.1)


def test_steps_all_alike_leave_the_guess_and_pauses_count_little() -> None:
    alike = observed([(4, 0.02)] * 50)
    assert alike.row / alike.base == pytest.approx(0.15)
    assert alike.base + 4 * alike.row == pytest.approx(0.02)
    paused = observed([(4, 0.02)] * 50 + [(4, 10.0)])
    assert paused.base + 4 * paused.row < 0.025
    assert observed([(1000, 1.0), (0, 1.0), (3, 0.0)]) == StepCost()
