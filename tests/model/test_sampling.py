"""The sampler against the rules, on distributions small enough to check by hand."""

import math
from collections import Counter
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model import sampling_cpu
from model.errors import SamplingError
from model.native import rows as native
from model.sampling import SamplingRow, adjust, logprobs, sample, sample_row, sample_sorted
from model.sampling_params import SamplingParams, derive_seed, uniform


def draw(logits: list[float], n: int = 4000, output: tuple[int, ...] = (), **params) -> Counter[int]:
    """How often each token is drawn, over n different seeds."""
    rows = [SamplingRow(SamplingParams(**params), seed, [], list(output)) for seed in range(n)]
    return Counter(sample(torch.tensor(logits).repeat(n, 1), rows).tolist())


def test_draws_follow_the_softmax() -> None:
    probabilities = [0.5, 0.3, 0.15, 0.05]
    counts = draw([math.log(p) for p in probabilities])
    for token, p in enumerate(probabilities):
        assert abs(counts[token] / 4000 - p) < 4 * math.sqrt(p * (1 - p) / 4000)


def test_temperature_sharpens_and_flattens() -> None:
    logits = [math.log(p) for p in (0.6, 0.4)]
    cold, hot = draw(logits, temperature=0.25), draw(logits, temperature=2.0)
    expected_cold = 0.6**4 / (0.6**4 + 0.4**4)
    expected_hot = 0.6**0.5 / (0.6**0.5 + 0.4**0.5)
    assert abs(cold[0] / 4000 - expected_cold) < 0.03
    assert abs(hot[0] / 4000 - expected_hot) < 0.035


@pytest.mark.parametrize(("params", "kept"), [
    ({"top_k": 2}, {0, 1}), ({"top_k": 99}, {0, 1, 2, 3}), ({"top_p": 0.5}, {0}), ({"top_p": 0.51}, {0, 1}),
    ({"top_p": 0.79}, {0, 1}), ({"top_p": 1e-9}, {0}), ({"min_p": 0.25}, {0, 1, 2}), ({"min_p": 1.0}, {0}),
    ({"top_k": 3, "top_p": 0.9}, {0, 1, 2}),
])  # fmt: skip
def test_cuts(params: dict, kept: set[int]) -> None:
    logits = [math.log(p) for p in (0.5, 0.3, 0.15, 0.05)]
    assert set(draw(logits, **params)) == kept


def test_top_p_is_of_what_top_k_left() -> None:
    # Of the two kept, token 0 has 0.5 / 0.8 = 0.625 >= 0.6 alone.
    assert set(draw([math.log(p) for p in (0.5, 0.3, 0.2)], top_k=2, top_p=0.6)) == {0}


def test_zero_temperature_is_greedy_whatever_else() -> None:
    assert set(draw([1.0, 3.0, 2.0], n=50, temperature=0.0, top_p=0.1, top_k=1, seed=5)) == {1}


@st.composite
def sampling_rows(draw) -> SamplingRow:
    maybe = lambda off, some: draw(st.one_of(st.just(off), some))  # noqa: E731
    params = SamplingParams(
        temperature=maybe(1.0, st.floats(0, 2)),
        top_p=maybe(1.0, st.floats(0.01, 1)),
        top_k=maybe(0, st.integers(0, 600)),
        min_p=maybe(0.0, st.floats(0, 1)),
        presence_penalty=maybe(0.0, st.floats(-2, 2)),
        frequency_penalty=maybe(0.0, st.floats(-2, 2)),
        repetition_penalty=maybe(1.0, st.floats(0.3, 3)),
        logit_bias=maybe({}, st.dictionaries(st.integers(0, 600), st.floats(-100, 100), max_size=4)),
        min_tokens=maybe(0, st.integers(0, 5)),
    )
    tokens = st.lists(st.integers(0, 499), max_size=8)
    ends = frozenset(draw(st.sets(st.integers(0, 510), max_size=3)))
    return SamplingRow(params, draw(st.integers(0, 2**62)), draw(tokens), draw(tokens), ends)


@settings(max_examples=120, deadline=None)
@given(st.lists(sampling_rows(), min_size=1, max_size=4), st.integers(0, 999), st.sampled_from([0.0, 0.01, 1.0, 30.0]))
def test_rows_on_a_cpu_are_drawn_as_by_sorting(rows: list[SamplingRow], seed: int, spread: float) -> None:
    with patch.object(sampling_cpu, "_RANKS", (90, 20)), patch.object(native, "_kernels", lambda: None):
        check_drawn_as_by_sorting(rows, seed, spread)


@pytest.mark.skipif(native._kernels() is None, reason="no kernels were built here")
@settings(max_examples=60, deadline=None)
@given(st.lists(sampling_rows(), min_size=1, max_size=4), st.integers(0, 999), st.sampled_from([0.0, 0.01, 1.0, 30.0]))
def test_rows_with_kernels_are_drawn_as_by_sorting(rows: list[SamplingRow], seed: int, spread: float) -> None:
    check_drawn_as_by_sorting(rows, seed, spread)


def check_drawn_as_by_sorting(rows: list[SamplingRow], seed: int, spread: float) -> None:
    logits = torch.randn(len(rows), 500, generator=torch.Generator().manual_seed(seed)) * spread
    if seed % 2:
        logits = logits.round()  # many equals: the lower id stands first
    before = logits.clone()
    assert sample(logits, rows).tolist() == sample_sorted(logits, rows).tolist()
    for i, row in enumerate(rows):
        assert sampling_cpu.adjust(logits[i].numpy(), row).tolist() == adjust(logits[i : i + 1], [row])[0].tolist()
    assert torch.equal(logits, before)


def test_what_was_counted_is_taken_back_with_the_output() -> None:
    row = SamplingRow(SamplingParams(), 0, [5], [1, 1, 2])
    assert row.counts() == {1: 2, 2: 1}
    assert row.seen() == {1, 2, 5}
    row.append(3)
    assert row.counts() == {1: 2, 2: 1, 3: 1}
    del row.output[1:]
    assert row.counts() == {1: 1}
    assert row.seen() == {1, 5}


def test_a_row_without_any_token_left_is_refused() -> None:
    row = SamplingRow(SamplingParams(min_tokens=1), 0, [], [], frozenset({0, 1}))
    with pytest.raises(SamplingError, match="min_tokens"):
        sample_row(torch.zeros(2).numpy(), row)


def edited(logits: list[float], row: SamplingRow) -> list[float]:
    return [round(x, 5) for x in adjust(torch.tensor([logits]), [row])[0].tolist()]


def test_penalties_and_bias() -> None:
    def row(**params) -> SamplingRow:
        return SamplingRow(SamplingParams(**params), 0, [0], [1, 1, 2])

    logits = [2.0, 2.0, -2.0, 1.0]
    assert edited(logits, row(presence_penalty=0.5)) == [2.0, 1.5, -2.5, 1.0]
    assert edited(logits, row(frequency_penalty=0.5)) == [2.0, 1.0, -2.5, 1.0]
    assert edited(logits, row(repetition_penalty=2.0)) == [1.0, 1.0, -4.0, 1.0]
    assert edited(logits, row(logit_bias={3: 10.0, 99: 1.0})) == [2.0, 2.0, -2.0, 11.0]


def test_bias_of_100_bans_and_forces() -> None:
    assert set(draw([0.0, 9.0, 0.0], logit_bias={1: -100.0})) == {0, 2}
    assert set(draw([0.0, 9.0, 0.0], logit_bias={2: 100.0})) == {2}


def test_min_tokens_bans_the_ends_until_then() -> None:
    params = SamplingParams(temperature=0.0, min_tokens=2)
    logits = torch.tensor([[9.0, 1.0, 8.0]])
    tokens = []
    row = SamplingRow(params, 0, [], end_ids=frozenset({0, 2}))
    for _ in range(3):
        token = int(sample(logits, [row]))
        tokens.append(token)
        row.append(token)
    assert tokens == [1, 1, 0]


@given(
    st.lists(
        st.tuples(st.integers(0, 2**62), st.floats(0, 2), st.floats(0.05, 1), st.integers(0, 20)),
        min_size=1,
        max_size=6,
    )
)
def test_a_row_is_the_same_alone_and_in_company(rows: list[tuple[int, float, float, int]]) -> None:
    torch.manual_seed(len(rows))
    logits = torch.randn(len(rows), 50)
    made = [
        SamplingRow(SamplingParams(temperature=t, top_p=p, top_k=k, presence_penalty=0.3), seed, [1, 2], [3, 4])
        for seed, t, p, k in rows
    ]
    together = sample(logits, made).tolist()
    assert together == [int(sample(logits[i : i + 1], [row])) for i, row in enumerate(made)]


def test_logprobs_are_of_the_models_own_distribution() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0]])
    chosen, ids, values = logprobs(logits, torch.tensor([0]), top=2)
    total = math.log(1 + math.e + math.e**2)
    assert chosen[0] == pytest.approx(-total)
    assert ids.tolist() == [[2, 1]]
    assert values[0].tolist() == pytest.approx([2 - total, 1 - total])
    assert logprobs(logits, torch.tensor([0]), top=0)[1].shape == (1, 0)


@pytest.mark.parametrize(("param", "value"), [
    ("temperature", -0.1), ("temperature", 2.1), ("temperature", float("nan")), ("top_p", 0.0), ("top_p", 1.1), ("top_k", -1),
    ("min_p", 1.5), ("presence_penalty", 2.5), ("frequency_penalty", -2.5), ("repetition_penalty", 0.0),
    ("repetition_penalty", 1e-60), ("repetition_penalty", 1e4),
    ("repetition_penalty", float("inf")), ("seed", 2**63), ("min_tokens", -1), ("logit_bias", {1: 101.0}),
    ("logit_bias", {-1: 1.0}),
])  # fmt: skip
def test_out_of_range_names_the_parameter(param: str, value: object) -> None:
    with pytest.raises(SamplingError, match=param) as caught:
        SamplingParams(**{param: value})  # type: ignore[arg-type]
    assert caught.value.param == param


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("penalty", [1e-3, 1e3])
def test_the_widest_penalties_are_still_numbers(penalty: float, temperature: float) -> None:
    params = SamplingParams(temperature=temperature, repetition_penalty=penalty, seed=1, min_tokens=9)
    asked = SamplingRow(params, 1, [0, 1, 2], end_ids=frozenset({2}))
    logits = torch.tensor([[80.0, 0.0, -80.0, 1.0]])
    assert sample(logits, [asked]).tolist() == sample_sorted(logits, [asked]).tolist()


def test_streams() -> None:
    values = [uniform(seed, step) for seed in (0, 1, -5, 2**62) for step in range(5000)]
    assert all(0 <= v < 1 for v in values)
    assert len(set(values)) == len(values)
    assert abs(sum(values) / len(values) - 0.5) < 0.01
    assert len({derive_seed(42, i) for i in range(128)}) == 128
    assert derive_seed(42, 0) == 42
    assert all(-(2**63) <= derive_seed(-1, i) < 2**63 for i in range(128))
