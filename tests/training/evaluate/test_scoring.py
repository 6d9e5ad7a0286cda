"""Log-probabilities of continuations against transformers, however they are batched, shared or cut."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import random_model, tiny_config
from transformers import AutoModelForCausalLM

from model.errors import ContextLengthError
from model.gpt import GPT
from model.tokenizer import Tokenizer
from training.evaluate.scoring import Request, Scorer, encode_pair, rolling_requests
from training.evaluate.subject import load_subject

CONTEXT = 128


def some_requests(seed: int, vocab: int = 50257) -> list[Request]:
    """Alone, in groups of one context, behind one long beginning, longer than the context, of a single token."""
    rng = np.random.default_rng(seed)

    def tokens(n: int) -> list[int]:
        return rng.integers(0, vocab, n).tolist()

    requests = [Request(tokens(n), tokens(m)) for n, m in ((1, 1), (5, 9), (60, 1), (1, 128), (128, 1), (200, 40))]
    begin = tokens(40)
    for n in (1, 7, 30, 60):
        context = begin + tokens(n)
        requests += [Request(context, tokens(m)) for m in (1, 4, 12, 28)]
    requests += [Request(tokens(3), t) for t in (tokens(2), tokens(2))]  # a context too short to share
    same = tokens(20)
    requests += [Request(same, tokens(1)) for _ in range(5)]  # only first tokens
    wide = tokens(110)
    requests += [Request(wide, tokens(m)) for m in (3, 25)]  # the second loses context, so they share none
    return [requests[i] for i in rng.permutation(len(requests))]


def grouped_requests(seed: int) -> list[Request]:
    """Several continuations of contexts that all begin alike: what few-shot prompts are."""
    rng = np.random.default_rng(seed)
    begin = rng.integers(0, 50257, 50).tolist()
    contexts = [begin + rng.integers(0, 50257, n).tolist() for n in (1, 2, 20, 60)]
    return [Request(c, rng.integers(0, 50257, m).tolist()) for c in contexts for m in (1, 2, 9)]


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("make", [some_requests, grouped_requests])
def test_the_same_as_transformers(
    architecture: str, make: Callable[[int], list[Request]], request: pytest.FixtureRequest
) -> None:
    directory: Path = request.getfixturevalue(f"tiny_{architecture}_dir")
    theirs = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    model, requests, expected = load_subject(directory).language_model, make(3), []
    for asked in requests:
        n = len(asked.target)
        whole = torch.tensor([*asked.context, *asked.target])[-(CONTEXT + 1) :]
        with torch.no_grad():
            table = theirs(whole[None, :-1]).logits[0, -n:].log_softmax(-1)
        logprobs = table.gather(1, whole[-n:, None])[:, 0].double().numpy()
        expected.append((logprobs, (table.argmax(-1) == whole[-n:]).tolist()))
    for share in (True, False):
        for batch_tokens in (150, 100_000):
            scores = Scorer(model, batch_tokens=batch_tokens, progress=False).score(requests, share=share)
            for (logprobs, greedy), scored in zip(expected, scores, strict=True):
                assert np.abs(scored.logprobs - logprobs).max() <= 1e-4
                assert scored.greedy.tolist() == greedy
                assert scored.total == pytest.approx(logprobs.sum(), abs=1e-3)


def test_a_shared_context_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(tiny_config("llama"))
    assert isinstance(model, GPT)
    computed, plain = [], model.hidden_states

    def counted(tokens: torch.Tensor, **cached: Any) -> torch.Tensor:
        computed.append(tokens.numel())
        return plain(tokens, **cached)

    monkeypatch.setattr(model, "hidden_states", counted)
    requests = [Request(list(range(100)), [i, i]) for i in range(10)]
    Scorer(model, progress=False).score(requests)
    assert sum(computed) == 100 + 10  # the context, and the first token of each continuation
    computed.clear()
    Scorer(model, progress=False).score(requests, share=False)
    assert sum(computed) == 10 * 101
    computed.clear()
    behind = [Request([*range(100), 500 + i], [j]) for i in range(10) for j in range(3)]
    Scorer(model, progress=False).score(behind)
    assert sum(computed) == 100 + 10  # what all begin with, and the last token of each context


def test_greedy_continuations_are_recognised() -> None:
    model = random_model(tiny_config("llama"))
    assert isinstance(model, GPT)
    context = [11, 22, 33, 44, 55, 66, 77, 88, 99]
    tokens = list(context)
    for _ in range(4):
        with torch.no_grad():
            tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
    right = tokens[len(context) :]
    wrong = [*right[:2], right[2] + 1, right[3]]
    exact, other = Scorer(model, progress=False).score([Request(context, right), Request(context, wrong)])
    assert exact.exact
    assert other.greedy.tolist()[:3] == [True, True, False]
    assert not other.exact


def test_bfloat16_is_near_and_the_model_is_left_as_it_was() -> None:
    model = random_model(tiny_config("llama"))
    assert isinstance(model, GPT)
    model.train()
    requests = some_requests(5)
    exact, near = (Scorer(model, bf16=bf16, progress=False).score(requests) for bf16 in (False, True))
    assert model.training
    means = [np.mean([scored.total / len(scored.logprobs) for scored in scores]) for scores in (exact, near)]
    assert means[0] != means[1] == pytest.approx(means[0], rel=0.02)


@pytest.mark.parametrize("asked", [Request([], [1]), Request([1], [])])
def test_nothing_to_score_is_refused(asked: Request) -> None:
    model = random_model(tiny_config("llama"))
    assert isinstance(model, GPT)
    with pytest.raises(ValueError, match="at least one token"):
        Scorer(model).score([asked])


def test_a_continuation_longer_than_the_context_is_refused() -> None:
    model = random_model(tiny_config("llama"))
    assert isinstance(model, GPT)
    with pytest.raises(ContextLengthError, match="129 tokens"):
        Scorer(model).score([Request([1], [2] * 129)])


@pytest.mark.parametrize("n", [1, 7, 8, 9, 16, 21])
def test_rolling_windows_score_each_token_once_with_the_most_context(n: int) -> None:
    tokens = list(range(100, 100 + n))
    requests = rolling_requests(tokens, 7, 8)
    assert [int(t) for r in requests for t in r.target] == tokens
    whole = [7, *tokens]
    for r in requests:
        end = whole.index(int(r.target[-1]))
        fed = [*map(int, r.context), *map(int, r.target)]
        assert fed == whole[max(0, end - 8) : end + 1]


@pytest.mark.parametrize(("context", "continuation"), [
    ("The sea", " is green"), ("The sea ", "is green"), ("Caf", "é"), ("", "Start"), ("  ", "Start"), ("foo b", "ar"),
])  # fmt: skip
def test_pairs_are_encoded_together(context: str, continuation: str) -> None:
    tokenizer = Tokenizer.gpt2()
    pair = encode_pair(tokenizer, context, continuation)
    whole = tokenizer.encode(context + continuation)
    assert len(pair.context) >= 1
    assert whole[-len(pair.target) :] == list(pair.target)
    if context.strip() and context + continuation != "foo bar":
        assert [*pair.context, *pair.target] == whole
