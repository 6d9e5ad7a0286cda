"""Rows of logits through the native kernels: each against torch, and the draw against model.sampling's sorted definition."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.native import library, rows
from model.sampling import SamplingRow, sample_sorted
from model.sampling_params import SamplingParams, uniform

every_build = pytest.mark.parametrize("build", library.instruction_sets())
INF, NAN = math.inf, math.nan


def use(build: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = library._open(build)
    assert found is not None
    monkeypatch.setattr(rows, "_kernels", lambda: found)


def logits_of(seed: int, n: int, vocab: int, spread: float, *, ties: bool = False, bans: bool = False) -> Tensor:
    table = torch.randn(n, vocab, generator=torch.Generator().manual_seed(seed)) * spread
    if ties:
        table = table.round()
    if bans:
        table[:, torch.arange(vocab) % 3 == 1] = -INF
    return table


tables = st.builds(
    logits_of, st.integers(0, 10**6), st.integers(1, 5),
    st.sampled_from([1, 2, 3, 15, 16, 17, 63, 64, 65, 200, 1000, 1023, 1024, 1025, 2049, 5000]),
    st.sampled_from([0.0, 1e-3, 0.3, 1.0, 3.0, 10.0, 100.0]), ties=st.booleans(), bans=st.booleans(),
)  # fmt: skip


@every_build
@settings(max_examples=80, deadline=None)
@given(table=tables)
def test_scan_is_torchs(build: str, table: Tensor) -> None:
    with pytest.MonkeyPatch.context() as patch:
        use(build, patch)
        scan = rows.scan(table, logsumexp=True)
    assert scan is not None
    assert scan.argmax == table.argmax(-1).tolist()
    assert scan.max == table.amax(-1).tolist()
    assert scan.state == [rows.FINITE if row.isfinite().all() else rows.BANNED for row in table]
    torch.testing.assert_close(torch.tensor(scan.logsumexp), table.double().logsumexp(-1).float(), rtol=2e-7, atol=1e-6)


@every_build
@pytest.mark.parametrize("place", [0, 5, 1023, 1024, 2000, 2999])
def test_scan_tells_broken_rows(build: str, place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    use(build, monkeypatch)
    table = logits_of(0, 5, 3000, 1.0)
    table[0, place], table[1, place], table[2, place] = NAN, INF, -INF
    table[3] = -INF
    table[4, place] = 3e38  # large, but a number
    scan = rows.scan(table, logsumexp=True)
    assert scan is not None
    assert scan.state == [rows.BROKEN, rows.BROKEN, rows.BANNED, rows.BROKEN, rows.FINITE]
    assert scan.argmax == table.argmax(-1).tolist()
    assert scan.logsumexp is not None
    assert str(scan.logsumexp[:2]) == str(table.logsumexp(-1).tolist()[:2])
    assert scan.logsumexp[3] == -INF


@every_build
def test_strides_and_what_cannot_be_served(build: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use(build, monkeypatch)
    wide = logits_of(1, 4, 300, 1.0)
    part = wide[1:, :200]  # rows 300 apart
    scan = rows.scan(part)
    assert scan is not None
    assert scan.argmax == part.argmax(-1).tolist()
    assert scan.logsumexp is None
    assert rows.scan(wide.T) is None
    assert rows.scan(wide.double()) is None
    assert rows.scan(wide[0]) is None
    assert rows.draw(wide.bfloat16(), []) is None
    monkeypatch.setattr(rows, "_kernels", lambda: None)
    assert rows.scan(wide) is None
    assert rows.top(wide, 3) is None


@every_build
def test_none_of_the_largest_and_a_draw_for_every_row(build: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use(build, monkeypatch)
    table = logits_of(1, 3, 300, 1.0)
    found = rows.top(table, 0)
    assert found is not None
    assert [part.shape for part in found] == [(3, 0), (3, 0)]
    with pytest.raises(ValueError, match="-1 largest"):
        rows.top(table, -1)
    with pytest.raises(ValueError, match="1 draws for 3 rows"):
        rows.draw(table, [rows.Draw(1.0, 1.0, 0.0, 0, 0.5)])
    with pytest.raises(ValueError, match="4 draws for 3 rows"):
        rows.draw(table, [rows.Draw(1.0, 1.0, 0.0, 0, 0.5)] * 4)
    kernels = rows._kernels()
    assert kernels is not None
    with pytest.raises(ValueError, match="largest can't be had"):
        library.check(kernels, kernels.hg_rows_top(table.data_ptr(), 3, 300, 300, 0, None, None))


@every_build
def test_results_have_their_type_whatever_the_default_is(build: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use(build, monkeypatch)
    table = logits_of(1, 3, 300, 1.0)
    torch.set_default_dtype(torch.float64)  # a smaller one would be written past its end, were it taken
    try:
        scan, top = rows.scan(table, logsumexp=True), rows.top(table, 5)
    finally:
        torch.set_default_dtype(torch.float32)
    assert scan is not None
    assert top is not None
    assert scan.max == table.amax(-1).tolist()
    assert torch.equal(top[1], table.topk(5).values)


@every_build
@settings(max_examples=60, deadline=None)
@given(table=tables, k=st.integers(1, 300))
def test_top_is_a_stable_sort(build: str, table: Tensor, k: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        use(build, patch)
        found = rows.top(table, k)
    assert found is not None
    values, ids = table.sort(dim=-1, descending=True, stable=True)
    assert found[0].tolist() == ids[:, :k].tolist()
    assert found[1].tolist() == values[:, :k].tolist()


def drawn(table: Tensor, chosen: list[SamplingRow]) -> list[int]:
    asks = [
        rows.Draw(row.params.temperature, row.params.top_p, row.params.min_p, row.params.top_k,
                  uniform(row.seed, len(row.output)))
        for row in chosen
    ]  # fmt: skip
    tokens = rows.draw(table, asks)
    assert tokens is not None
    return tokens


params = st.builds(
    SamplingParams,
    temperature=st.sampled_from([1e-7, 0.2, 0.7, 1.0, 1.0, 1.3, 2.0]),
    top_p=st.sampled_from([1.0, 1.0, 0.95, 0.9, 0.5, 0.1, 1e-9, 0.99999, 0.999999999]),
    top_k=st.sampled_from([0, 0, 1, 2, 20, 50, 255, 257, 900, 3000, 10**6]),
    min_p=st.sampled_from([0.0, 0.0, 0.0, 0.02, 0.3, 1.0, 1e-10, 1e-40]),
)


@every_build
@settings(max_examples=250, deadline=None)
@given(table=tables, param=params, seed=st.integers(0, 2**60))
def test_a_draw_is_the_samplers_or_none(build: str, table: Tensor, param: SamplingParams, seed: int) -> None:
    chosen = [SamplingRow(param, seed + i, [], [0] * i) for i in range(len(table))]
    expected = sample_sorted(table, chosen).tolist()
    with pytest.MonkeyPatch.context() as patch:
        use(build, patch)
        got = drawn(table, chosen)
    assert all(token in (-1, want) for token, want in zip(got, expected, strict=True)), (got, expected)


@every_build
@pytest.mark.parametrize("options", [
    {}, {"temperature": 0.6}, {"top_p": 0.9}, {"top_k": 40}, {"top_k": 2000}, {"min_p": 0.05},
    {"temperature": 1.2, "top_p": 0.97, "top_k": 100, "min_p": 1e-3},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("spread", [0.02, 1.0, 4.0])
def test_random_draws_are_all_decided(
    build: str, options: dict, spread: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(build, monkeypatch)
    table = logits_of(7, 64, 4000, spread)
    chosen = [SamplingRow(SamplingParams(**options), seed, []) for seed in range(64)]
    assert drawn(table, chosen) == sample_sorted(table, chosen).tolist()


@every_build
def test_a_boundary_is_left_to_the_reference(build: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use(build, monkeypatch)
    even = torch.zeros(1, 4)
    assert rows.draw(even, [rows.Draw(1.0, 1.0, 0.0, 0, 0.5)]) == [-1]  # just between tokens 1 and 2
    assert rows.draw(even, [rows.Draw(1.0, 1.0, 0.0, 0, 0.5 + 1e-9)]) == [2]
    assert rows.draw(even, [rows.Draw(1.0, 0.5, 0.0, 0, 0.3)]) == [-1]  # does top_p cut after token 1 or 2?
    assert rows.draw(even, [rows.Draw(1.0, 1.0, 1.0, 0, 0.3)]) == [1]  # the likeliest are never cut
    assert rows.draw(even, [rows.Draw(1.0, 1.0, 0.0, 0, 0.0)]) == [0]
    assert rows.draw(even, [rows.Draw(1.0, 1.0, 0.0, 0, 1 - 2**-53)]) == [-1]
    for broken in (NAN, INF):
        even[0, 2] = broken
        assert rows.draw(even, [rows.Draw(1.0, 1.0, 0.0, 0, 0.3)]) == [-1]
        assert rows.draw(even, [rows.Draw(1.0, 1.0, 0.0, 2, 0.3)]) == [-1]
    assert rows.draw(torch.full((1, 4), -INF), [rows.Draw(1.0, 1.0, 0.0, 0, 0.3)]) == [-1]
    assert rows.draw(torch.tensor([[-INF, 2.0, -INF]]), [rows.Draw(1.0, 0.5, 0.1, 2, 0.9)]) == [1]


@pytest.mark.slow
def test_a_hundred_thousand_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    undecided = 0
    for seed in range(100):
        table = logits_of(seed, 1000, 3000, (0.5, 2.0, 5.0)[seed % 3])
        param = (SamplingParams(), SamplingParams(top_p=0.9), SamplingParams(temperature=0.8, top_k=50))[seed // 3 % 3]
        chosen = [SamplingRow(param, seed * 1000 + i, []) for i in range(1000)]
        expected = sample_sorted(table, chosen).tolist()
        for build in library.instruction_sets():
            use(build, monkeypatch)
            got = drawn(table, chosen)
            undecided += got.count(-1)
            assert [token for token in got if token >= 0] == [e for e, t in zip(expected, got, strict=True) if t >= 0]
    assert undecided <= 2
