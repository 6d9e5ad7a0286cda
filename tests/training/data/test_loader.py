"""Windows over a run of tokens: which, in which order, and the documents in them."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.data.batch import IGNORE
from training.data.loader import Windows
from training.errors import DataError


@given(st.integers(40, 400), st.integers(2, 17), st.integers(0, 5))
def test_an_epoch_is_every_window_once(n: int, context: int, seed: int) -> None:
    tokens = np.arange(n, dtype=np.uint16)
    if (n - 1) // context < 2:
        with pytest.raises(DataError, match="too few"):
            Windows(tokens, context, seed)
        return
    windows = Windows(tokens, context, seed)
    for epoch in range(2):
        batch = windows.batch(epoch * windows.samples_per_epoch, windows.samples_per_epoch)
        assert batch.tokens.dtype == batch.targets.dtype == torch.int64
        assert batch.documents is None
        assert (batch.targets == batch.tokens + 1).all()
        starts = sorted(batch.tokens[:, 0].tolist())
        assert starts == list(range(starts[0], starts[0] + context * windows.samples_per_epoch, context))


@given(st.integers(20, 120), st.integers(1, 7), st.integers(0, 3), st.data())
def test_order_is_a_function_of_seed_and_cursor_alone(n: int, context: int, seed: int, data: st.DataObject) -> None:
    """However a range of samples is cut, in whatever order and by whichever of several loaders it is read."""
    tokens = np.arange(n, dtype=np.uint32)
    loaders = [Windows(tokens, context, seed, eot=7) for _ in range(3)]
    total = 3 * loaders[0].samples_per_epoch + 2
    whole = Windows(tokens, context, seed, eot=7).batch(0, total)
    cuts = sorted({0, total, *data.draw(st.lists(st.integers(0, total), max_size=6))})
    for start, end in data.draw(st.permutations(list(pairwise(cuts)))):
        batch = data.draw(st.sampled_from(loaders)).batch(start, end - start)
        assert torch.equal(batch.tokens, whole.tokens[start:end])
        assert torch.equal(batch.targets, whole.targets[start:end])
        assert batch.documents is not None
        assert whole.documents is not None
        assert torch.equal(batch.documents, whole.documents[start:end])


def test_other_seeds_and_epochs_have_other_orders() -> None:
    tokens = np.arange(2000, dtype=np.uint16)
    one, other = Windows(tokens, 8, 1), Windows(tokens, 8, 2)
    n = one.samples_per_epoch
    assert not torch.equal(one.batch(0, n).tokens, other.batch(0, n).tokens)
    first, second = (one.batch(epoch * n, n).tokens[:, 0].tolist() for epoch in (0, 1))
    assert first != second
    assert Counter(x % 8 for x in first) != Counter(x % 8 for x in second)  # another offset each epoch


@given(st.lists(st.integers(0, 3), min_size=20, max_size=200), st.integers(1, 9))
def test_an_end_token_begins_a_document_and_every_target_counts(values: list[int], context: int) -> None:
    tokens = np.array(values, np.uint16)
    if (len(tokens) - 1) // context < 2:
        return
    windows = Windows(tokens, context, 0, eot=0)
    batch = windows.batch(0, windows.samples_per_epoch)
    assert batch.documents is not None
    assert batch.documents.dtype == torch.int64
    for row, documents in zip(batch.tokens.tolist(), batch.documents.tolist(), strict=True):
        assert documents == [row[: i + 1].count(0) for i in range(context)]
    assert (batch.targets != IGNORE).all()
    assert batch.weight == batch.targets.numel()
