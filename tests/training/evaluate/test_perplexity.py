"""Perplexity and the n-gram baseline against slow, plain computations."""

import math
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
from tiny import random_model, tiny_config

from model.gpt import GPT
from training.evaluate import ngram
from training.evaluate.ngram import KneserNey, NgramCounts, baselines
from training.evaluate.perplexity import score_stream

CONFIG = tiny_config("llama", vocab_size=64, bos_token_id=0, eos_token_ids=(0,), context_length=16)


@pytest.mark.parametrize("n", [2, 10, 17, 18, 24, 25, 26, 100, 133])
@pytest.mark.parametrize("stride", [8, 16, 5])
def test_every_token_counts_once_with_enough_context(n: int, stride: int) -> None:
    model = random_model(CONFIG)
    assert isinstance(model, GPT)
    tokens = np.random.default_rng(0).integers(0, 64, n).astype(np.uint16)
    expected = 0.0
    for i in range(1, n):
        # The window that counts target i is the first that holds it.
        start = max(0, -(-(i - 16) // stride) * stride)
        with torch.no_grad():
            logits = model(torch.tensor(tokens[start:i].astype(np.int64))[None])[0, -1]
        expected -= float(logits.log_softmax(-1)[tokens[i]])
    score = score_stream(model, tokens, stride=stride)
    assert score.tokens == n - 1
    assert score.nats == pytest.approx(expected, rel=1e-5)
    assert score.bits_per_byte(10) == pytest.approx(expected / math.log(2) / 10, rel=1e-5)


def slow_kneser_ney(tokens: list[int], order: int, vocab: int):
    """Modified, interpolated Kneser-Ney by dictionaries, after Chen and Goodman's formulas."""
    counts: dict[int, Counter[tuple[int, ...]]] = {}
    for n in range(1, order + 1):
        grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
        if n == order:
            counts[n] = Counter(grams)
        else:
            longer = {tuple(tokens[i : i + n + 1]) for i in range(len(tokens) - n)}
            counts[n] = Counter(g[1:] for g in longer)
            counts[n].update(dict.fromkeys(set(grams) - set(counts[n]), 0))

    def discounts(n: int) -> list[float]:
        having = [sum(1 for c in counts[n].values() if c == k) for k in (1, 2, 3, 4)]
        y = having[0] / max(1, having[0] + 2 * having[1])
        found = [min(k - (k + 1) * y * having[k] / max(1, having[k - 1]), float(k)) for k in (1, 2, 3)]
        return [0.0, *(d if d > 0 else k / 2 for k, d in enumerate(found, 1))]

    d = {n: discounts(n) for n in counts}
    followers: dict[tuple[int, ...], list[tuple[int, int]]] = defaultdict(list)
    for n in counts:
        for gram, count in counts[n].items():
            followers[(n, *gram[:-1])].append((gram[-1], count))

    def probability(history: tuple[int, ...], token: int) -> float:
        n = len(history) + 1
        lower = probability(history[1:], token) if history else 1.0 / vocab
        seen = followers.get((n, *history), [])
        total = sum(count for _, count in seen)
        if not total:
            return lower
        freed = sum(min(d[n][min(count, 3)], count) for _, count in seen)
        own = next((max(count - d[n][min(count, 3)], 0) for t, count in seen if t == token), 0.0)
        return own / total + freed / total * lower

    return probability


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_kneser_ney_against_the_formulas(order: int) -> None:
    rng = np.random.default_rng(order)
    train, held_out = (np.cumsum(rng.integers(0, 3, n)) % 11 for n in (400, 60))
    slow = slow_kneser_ney(train.tolist(), order, 12)
    expected = sum(
        -math.log(slow(tuple(held_out[max(0, i - order + 1) : i].tolist()), int(held_out[i]))) for i in range(1, 60)
    )
    assert KneserNey(NgramCounts(train, 4, 12), order).score(held_out).nats == pytest.approx(expected, rel=1e-9)


def test_a_corpus_too_small_to_estimate_discounts_leaves_something_to_what_was_never_seen() -> None:
    counts = NgramCounts(np.array([1, 2, 1, 2, 1, 2, 1, 2]), 3, 6)
    for order in (1, 2, 3):
        assert math.isfinite(KneserNey(counts, order).score(np.array([1, 5, 4, 2])).loss)


def test_a_stream_scored_in_pieces_has_the_same_score(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    counts, tokens = NgramCounts(rng.integers(0, 5, 2000), 4, 5), rng.integers(0, 5, 101).astype(np.uint16)
    for order in (1, 2, 4):
        model = KneserNey(counts, order)
        whole = model.score(tokens)
        assert whole.nats == pytest.approx(-model.logprobs(tokens).sum())
        for piece in (1, 3, 7, 100):
            monkeypatch.setattr(ngram, "_PIECE", piece)
            assert model.score(tokens).nats == pytest.approx(whole.nats, rel=1e-12)
            assert model.score(tokens).tokens == 100


def test_a_trigram_model_learns_what_two_tokens_tell() -> None:
    rng = np.random.default_rng(0)
    stream = [0, 1]
    for _ in range(6000):  # the next token mostly follows from the last two
        stream.append((stream[-1] * 3 + stream[-2]) % 9 if rng.random() < 0.9 else int(rng.integers(9)))
    rows = baselines(np.array(stream[:5000]), np.array(stream[5000:]), 9, n_bytes=1000, order=3)
    losses = [row["loss"] for row in rows]
    assert losses[2] < min(losses[:2]) - 0.5
    assert losses[2] > 0.1 * math.log(9)
