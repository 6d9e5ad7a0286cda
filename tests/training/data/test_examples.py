from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import random_model, tiny_config

from model.gpt import GPT
from training.data.batch import IGNORE, TokenBatch
from training.data.examples import (
    Example,
    Packed,
    Padded,
    collate,
    fit_to_context,
    make_source,
    pack_lengths,
)
from training.objectives import LanguageModelLoss

WIDTH = 24
# (length, how many tokens at the end count)
sizes = st.lists(st.tuples(st.integers(2, WIDTH + 1), st.integers(1, WIDTH)), min_size=1, max_size=40)


def make(shapes: list[tuple[int, int]]) -> list[Example]:
    """Examples whose tokens are all different, so that each can be told from every other."""
    starts = np.cumsum([0, *(length for length, _ in shapes)])
    return [
        Example(np.arange(start + 1, start + 1 + n, dtype=np.int32), np.arange(n) >= max(1, n - counted))
        for (n, counted), start in zip(shapes, starts, strict=False)
    ]


def pairs(batch: TokenBatch) -> Counter[tuple[int, int]]:
    """(input, target) of every position that counts."""
    valid = batch.targets != IGNORE
    return Counter(zip(batch.tokens[valid].tolist(), batch.targets[valid].tolist(), strict=True))


def expected(examples: list[Example]) -> Counter[tuple[int, int]]:
    found: Counter[tuple[int, int]] = Counter()
    for example in examples:
        tokens = example.tokens.tolist()
        found.update((a, b) for a, b, c in zip(tokens, tokens[1:], example.counted[1:], strict=False) if c)
    return found


@given(shapes=sizes, layout=st.sampled_from(["packed", "padded"]), seed=st.integers(0, 9), rows=st.integers(1, 9))
def test_each_token_counts_exactly_once_an_epoch(shapes: list[tuple[int, int]], layout, seed: int, rows: int) -> None:
    examples = make(shapes)
    source = make_source(examples, layout, WIDTH, seed=seed, batch_rows=rows)
    n = source.samples_per_epoch
    for epoch in range(2):
        found: Counter[tuple[int, int]] = Counter()
        for start in range(0, n, rows):
            found += pairs(source.batch(epoch * n + start, min(rows, n - start)))
        assert found == expected(examples)


@given(shapes=sizes, seed=st.integers(0, 9), cursor=st.integers(0, 100))
def test_packing_keeps_examples_whole_and_apart(shapes: list[tuple[int, int]], seed: int, cursor: int) -> None:
    examples = {tuple(example.tokens[:-1].tolist()) for example in make(shapes)}
    batch = Packed(make(shapes), WIDTH, seed).batch(cursor, 5)
    assert batch.tokens.shape == batch.targets.shape == (5, WIDTH)
    assert batch.documents is not None
    for tokens, documents in zip(batch.tokens, batch.documents, strict=True):
        assert (documents.diff() >= 0).all()
        for document in documents.unique():
            own = tuple(tokens[documents == document].tolist())
            assert own in examples or not any(own)  # a whole example, or the padding at the end


@given(shapes=sizes, layout=st.sampled_from(["packed", "padded"]), cursor=st.integers(0, 200), cut=st.integers(0, 8))
def test_batches_are_a_function_of_the_cursor(shapes: list[tuple[int, int]], layout, cursor: int, cut: int) -> None:
    """A resumed run, or one that takes its rows in other portions, sees the same ones."""
    source, again = (make_source(make(shapes), layout, WIDTH, seed=3, batch_rows=8) for _ in range(2))
    source.batch(0, 4)
    whole = source.batch(cursor, 8)
    parts = [again.batch(cursor + start, rows) for start, rows in ((0, cut), (cut, 8 - cut)) if rows]
    assert sum((pairs(part) for part in parts), Counter()) == pairs(whole)
    assert pairs(again.batch(cursor, 8)) == pairs(whole)


def test_epochs_and_seeds_differ() -> None:
    examples = make([(5, 2)] * 50)
    for source, other in (
        (Packed(examples, WIDTH, 0), Packed(examples, WIDTH, 1)),
        (Padded(examples, 0, 8), Padded(examples, 1, 8)),
    ):
        n = source.samples_per_epoch
        assert not torch.equal(source.batch(0, n).tokens, source.batch(n, n).tokens)
        assert not torch.equal(source.batch(0, n).tokens, other.batch(0, n).tokens)


@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=80))
def test_packing_wastes_little(lengths: list[int]) -> None:
    rows = pack_lengths(sorted(lengths, reverse=True), 50)
    assert sorted(item for row in rows for item in row) == list(range(len(lengths)))
    falling = sorted(lengths, reverse=True)
    assert all(sum(falling[item] for item in row) <= 50 for row in rows)
    assert len(rows) == 1 or sum(lengths) > 25 * (len(rows) - 1)  # no two rows would have gone into one


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_packed_loss_and_gradient_equal_padded_ones(architecture: str) -> None:
    shapes = [(9, 3), (4, 2), (17, 17), (2, 1), (12, 5), (25, 6), (3, 1), (8, 2)]
    examples = make(shapes)
    losses, gradients = [], []
    for layout in ("packed", "padded"):
        model = random_model(tiny_config(architecture, vocab_size=128, bos_token_id=0, eos_token_ids=(0,)))
        assert isinstance(model, GPT)
        model.requires_grad_(True)
        source = make_source(examples, layout, WIDTH, seed=0, batch_rows=4)
        batch = source.batch(0, source.samples_per_epoch)
        loss = LanguageModelLoss(model, bf16=False)(**batch.tensors()) / batch.weight
        loss.backward()
        losses.append(loss.item())
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert len(Packed(examples, WIDTH, 0)._rows) < len(examples)
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-5)


def test_examples_too_long_are_dropped_or_cut_and_counted() -> None:
    long_answer = Example(np.arange(40, dtype=np.int32), np.arange(40) >= 10)
    long_prompt = Example(np.arange(40, dtype=np.int32), np.arange(40) >= 30)
    no_answer = Example(np.arange(9, dtype=np.int32), np.zeros(9, bool))
    exact = Example(np.arange(WIDTH + 1, dtype=np.int32), np.arange(WIDTH + 1) >= 5)
    every = [long_answer, long_prompt, no_answer, exact]
    dropped = fit_to_context(every, WIDTH, "drop")
    assert dropped.examples == [exact]
    assert dropped.dropped == {"dropped, longer than the context": 2, "dropped, no answer to learn": 1}
    cut = fit_to_context(every, WIDTH, "truncate")
    assert [example.positions for example in cut.examples] == [WIDTH, WIDTH]
    assert cut.examples[0].tokens.tolist() == list(range(WIDTH + 1))
    assert (cut.truncated, cut.too_long, cut.unanswered) == (1, 1, 1)


def test_examples_of_like_length_come_together() -> None:
    """Within a batch lengths differ little, in the first batch of an epoch too, where the last one ended in the middle of one."""
    lengths = [2 + n % 20 for n in range(205)]
    source = Padded(make([(n, 1) for n in lengths]), seed=0, batch_rows=8)
    widths, used = 0, 0
    for update in range(75):
        batch = source.batch(8 * update, 8)
        widths += batch.tokens.numel()
        used += int((batch.tokens != 0).sum())
    assert used > 0.85 * widths


def test_padding_counts_for_nothing() -> None:
    batch = collate(make([(3, 1), (6, 2)]))
    assert batch.tokens.tolist() == [[1, 2, 0, 0, 0], [4, 5, 6, 7, 8]]
    assert batch.targets.tolist() == [[IGNORE, 3, IGNORE, IGNORE, IGNORE], [IGNORE, IGNORE, IGNORE, 8, 9]]
    assert batch.documents is None
    assert batch.weight == 3
