import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.likelihood import (
    CONTENT_FREE,
    DEFAULT_TEMPLATE,
    BiasCache,
    Prompter,
    calibrated,
    content_free_bias,
    mean_logprob,
    softmax,
)
from model.errors import ContextLengthError
from model.tokenizer import Tokenizer
from training.evaluate.fewshot import CONTENT_FREE as EVALUATED_CONTENT_FREE
from training.evaluate.fewshot import PROMPT
from training.evaluate.scoring import encode_pair

LABELS = ["World", "Sports", "Science and technology", "1.5"]
EXAMPLES = [("They won again.", "Sports"), ("A new moon was found.", "Science and technology")]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.gpt2()


def test_the_prompt_is_the_one_that_evaluate_measures():
    assert (DEFAULT_TEMPLATE, CONTENT_FREE) == (PROMPT, EVALUATED_CONTENT_FREE)


@pytest.mark.parametrize(
    "template", [DEFAULT_TEMPLATE, "{text} ({label}", "{text}{label}", "Q: {text}\n\n{label}", "{text} : {label}"]
)
@given(text=st.text(max_size=30))
def test_tokens_are_those_of_the_evaluation(tokenizer, template, text):
    before, after = template.removesuffix("{label}").split("{text}")
    for examples in ((), EXAMPLES):
        prompter = Prompter(tokenizer, LABELS, context=512, template=template, examples=examples)
        shown = "".join(f"{before}{each}{after}{label}\n\n" for each, label in examples)
        question = prompter.question(text)
        assert not question.truncated
        for label, continuation in zip(LABELS, question.continuations, strict=True):
            prompt = f"{shown}{before}{text.strip()}{after}"
            wanted = encode_pair(tokenizer, prompt, label)
            ids = continuation.prompt + continuation.label
            assert tokenizer.decode(ids).removeprefix("<|endoftext|>") == prompt + label
            assert continuation.label == list(wanted.target)
            assert continuation.prompt
            if (
                tokenizer.decode([*wanted.context, *wanted.target]) == prompt + label
            ):  # not where the label merges with it
                assert continuation.prompt == list(wanted.context)


def test_labels_share_their_prompt(tokenizer):
    question = Prompter(tokenizer, LABELS, context=512, examples=EXAMPLES).question("The river rose.")
    (prompt,) = {tuple(each.prompt) for each in question.continuations}
    assert question.n_tokens == len(prompt) + sum(len(each.label) for each in question.continuations)


@given(text=st.text(min_size=1, max_size=400), context=st.integers(40, 80))
def test_a_long_text_loses_its_end_and_everything_fits(tokenizer, text, context):
    question = Prompter(tokenizer, LABELS, context=context).question(text)
    longest = max(map(len, question.continuations))
    assert longest <= context
    first = question.continuations[0]
    assert tokenizer.decode(first.prompt + first.label).endswith("\nLabel: World")
    whole = Prompter(tokenizer, LABELS, context=10_000).question(text)
    assert question.truncated == (max(map(len, whole.continuations)) > context)
    if question.truncated:
        assert longest >= context - 8, "no more is cut than has to be"


def test_what_is_written_in_a_text_is_only_text(tokenizer):
    nasty = "{label} {text} {0.__class__} {{7*7}} <|endoftext|>"
    question = Prompter(tokenizer, LABELS, context=512, examples=[(nasty, "World")]).question(nasty)
    for label, each in zip(LABELS, question.continuations, strict=True):
        shown = f"Text: {nasty}\nLabel: World\n\nText: {nasty}\nLabel: {label}"
        assert tokenizer.decode(each.prompt + each.label) == shown
        assert tokenizer.eos_token_id not in each.prompt + each.label


def test_examples_without_room_are_refused(tokenizer):
    with pytest.raises(ContextLengthError, match="fewer or shorter") as error:
        Prompter(tokenizer, LABELS, context=64, examples=EXAMPLES * 5)
    assert error.value.n_ctx == 64
    assert error.value.n_prompt_tokens > 56


def test_a_long_label_does_not_lose_by_its_length():
    assert mean_logprob([-2.0] * 5) == mean_logprob([-2.0])
    assert math.isfinite(mean_logprob([-math.inf, -1.0]))


def test_calibration_takes_away_what_the_model_likes_anyway():
    liked = [-1.0, -5.0]  # it says the first whatever the text
    bias = content_free_bias([liked, liked, liked])
    assert calibrated(liked, bias) == pytest.approx([0.5, 0.5])
    assert calibrated([-1.0, -4.5], bias)[1] > 0.6


@given(
    means=st.lists(st.floats(-50, 0), min_size=2, max_size=6),
    free=st.lists(st.floats(-50, 0), min_size=18, max_size=18),
)
def test_the_probabilities_are_zhaos(means, free):
    n = len(means)
    rows = [free[i * n : (i + 1) * n] for i in range(3)]
    empty = [max(sum(column) / 3, 1e-12) for column in zip(*map(softmax, rows), strict=True)]
    weighted = [p / e for p, e in zip(softmax(means), empty, strict=True)]
    result = calibrated(means, content_free_bias(rows))
    assert result == pytest.approx([w / sum(weighted) for w in weighted], abs=1e-9)
    assert math.fsum(result) == pytest.approx(1.0)


def test_the_cache_forgets_what_was_not_asked_for_the_longest():
    cache = BiasCache(size=2)
    a, b, c = (cache.key([name, "x"], DEFAULT_TEMPLATE, []) for name in "abc")
    cache.put(a, [1.0])
    cache.put(b, [2.0])
    assert cache.get(a) == [1.0]
    cache.put(c, [3.0])
    assert (cache.get(a), cache.get(b), cache.get(c)) == ([1.0], None, [3.0])
    assert cache.key(["a", "x"], "{text}{label}", []) != a != cache.key(["a", "x"], DEFAULT_TEMPLATE, [("t", "a")])
