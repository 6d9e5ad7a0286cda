"""The native linear layers, in every build this processor can run: against float64, and against themselves: a row's result has
the same bits alone, in company, and however rows and outputs are cut."""

import ctypes
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.native import library

I32, I64, P = ctypes.c_int32, ctypes.c_int64, ctypes.c_void_p
SIGNATURES = {
    "hg_linear_panel": (I64, []), "hg_linear_bytes": (I64, [I32, I64, I64]), "hg_linear_input_bytes": (I64, [I32, I64]),
    "hg_linear_pack": (None, [I32, I64, I64, P, P, I64, I64]), "hg_linear_rows": (None, [I32, I64, I64, P, I64, I64, P]),
    "hg_linear_prepare": (None, [I32, P, I64, I64, P]),
    "hg_linear_run": (None, [I32, I64, I64, P, P, P, I64, I64, I64, P, I64, I32]),
}  # fmt: skip
F32, BF16, INT8, INT4 = range(4)
STORE, ADD = range(2)
CANARY = 0xA5


class Buffer:
    """`size` bytes aligned to 64, with bytes behind them that must not change."""

    def __init__(self, size: int) -> None:
        whole = np.full(size + 192, CANARY, np.uint8)
        begin = -whole.ctypes.data % 64
        self.bytes, self.behind = whole[begin : begin + size], whole[begin + size :]

    @property
    def address(self) -> int:
        return self.bytes.ctypes.data

    def check(self) -> None:
        assert (self.behind == CANARY).all(), "written beyond the end"


class Layer:
    """A packed weight [n_out, n_in] of one build."""

    def __init__(self, build: str, kind: int, weight: np.ndarray, bias: np.ndarray | None = None) -> None:
        found = library._open(build)
        assert found is not None
        for name, (result, arguments) in SIGNATURES.items():
            function = getattr(found, name)
            function.restype, function.argtypes = result, arguments
        self.lib, self.kind, self.bias = found, kind, bias
        self.n_out, self.n_in = weight.shape
        self.n_panels = -(-self.n_out // found.hg_linear_panel())
        self.packed = Buffer(found.hg_linear_bytes(kind, self.n_out, self.n_in))
        weight = np.ascontiguousarray(weight, np.float32)
        for panel in reversed(range(self.n_panels)):  # in any order
            found.hg_linear_pack(kind, self.n_out, self.n_in, self.packed.address, weight.ctypes.data, panel, panel + 1)
        self.packed.check()

    def rows(self) -> np.ndarray:
        """[n_out, n_in], as the product sees them."""
        out = np.full((self.n_out, self.n_in), np.nan, np.float32)
        self.lib.hg_linear_rows(self.kind, self.n_out, self.n_in, self.packed.address, 0, self.n_out, out.ctypes.data)
        return out

    def prepare(self, x: np.ndarray) -> Buffer:
        x = np.ascontiguousarray(x, np.float32)
        inputs = Buffer(self.lib.hg_linear_input_bytes(self.kind, self.n_in) * len(x))
        self.lib.hg_linear_prepare(self.kind, x.ctypes.data, len(x), self.n_in, inputs.address)
        inputs.check()
        return inputs

    def run(self, x: np.ndarray, y: np.ndarray, panels: tuple[int, int] | None = None, epilogue: int = STORE) -> None:
        begin, end = panels or (0, self.n_panels)
        bias, inputs = None if self.bias is None else self.bias.ctypes.data, self.prepare(x)
        self.lib.hg_linear_run(self.kind, self.n_out, self.n_in, self.packed.address, bias, inputs.address, len(x),
                               begin, end, y.ctypes.data, y.shape[1], epilogue)  # fmt: skip

    def __call__(self, x: np.ndarray) -> np.ndarray:
        y = np.full((len(x), self.n_out), np.nan, np.float32)
        self.run(x, y)
        return y


def random(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> np.ndarray:
    return (rng.standard_normal(shape) * scale).astype(np.float32)


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.tobytes() == b.tobytes()


def input_error(kind: int, x: np.ndarray) -> np.ndarray:
    """How far a prepared input may lie from the one given, [n_rows, n_in]."""
    size = np.abs(x.astype(np.float64))
    if kind == F32:
        return np.zeros_like(size)
    if kind == BF16:
        return size * 2**-8
    # Half a step of 8 bits over 4 root mean squares of the row at most.
    reach = np.minimum(size.max(1), 4 * np.sqrt((size**2).mean(1)) * (1 + 1e-5))
    return np.broadcast_to(reach[:, None] / 254 * (1 + 1e-4), size.shape)


def check_product(layer: Layer, x: np.ndarray, y: np.ndarray) -> None:
    """Against float64 over the weights as packed: nothing but the rounding of inputs and of sums may differ."""
    weight = layer.rows().astype(np.float64)
    bias = np.zeros(layer.n_out) if layer.bias is None else layer.bias.astype(np.float64)
    reference = x.astype(np.float64) @ weight.T + bias
    sums = np.abs(x).astype(np.float64) @ np.abs(weight).T + np.abs(bias)
    allowed = input_error(layer.kind, x) @ np.abs(weight).T + sums * 2**-23 * (layer.n_in + 8) + 1e-30
    assert (np.abs(y - reference) <= allowed).all()


every_build = pytest.mark.parametrize("build", library.instruction_sets())
every_kind = pytest.mark.parametrize("kind", [F32, BF16, INT8, INT4], ids=["f32", "bf16", "int8", "int4"])
shapes = st.tuples(
    st.one_of(st.integers(1, 130), st.sampled_from([256, 300])),  # outputs
    st.one_of(st.integers(1, 140), st.sampled_from([256, 769])),  # inputs
    st.integers(1, 40),  # rows
)


@every_build
@every_kind
@settings(max_examples=30, deadline=None)
@given(shape=shapes, biased=st.booleans(), wild=st.booleans(), seed=st.integers(0, 1000))
def test_products_are_those_of_float64(
    build: str, kind: int, shape: tuple, biased: bool, wild: bool, seed: int
) -> None:
    n_out, n_in, n_rows = shape
    rng = np.random.default_rng(seed)
    x = random(rng, n_rows, n_in)
    if wild:  # outliers, as trained models have them
        x *= np.exp(random(rng, 1, n_in, scale=2))
    layer = Layer(build, kind, random(rng, n_out, n_in, scale=0.02), random(rng, n_out) if biased else None)
    check_product(layer, x, layer(x))


@every_build
@every_kind
@settings(max_examples=30, deadline=None)
@given(shape=shapes, cuts=st.lists(st.integers(0, 40), max_size=4), panel=st.integers(0, 10), seed=st.integers(0, 1000))
def test_a_row_has_the_same_bits_in_any_company(
    build: str, kind: int, shape: tuple, cuts: list[int], panel: int, seed: int
) -> None:
    n_out, n_in, n_rows = shape
    rng = np.random.default_rng(seed)
    x = random(rng, n_rows, n_in) * np.exp(random(rng, n_rows, n_in))
    layer = Layer(build, kind, random(rng, n_out, n_in), random(rng, n_out))
    together = layer(x)
    edges = sorted({0, n_rows, *(min(cut, n_rows) for cut in cuts)})
    assert same_bits(together, np.concatenate([layer(x[a:b]) for a, b in pairwise(edges)]))
    order = rng.permutation(n_rows)
    assert same_bits(together[order], layer(x[order]))
    panel = min(panel, layer.n_panels)
    in_parts = np.full_like(together, np.nan)
    layer.run(x, in_parts, (panel, layer.n_panels))
    layer.run(x, in_parts, (0, panel))
    assert same_bits(together, in_parts)


@every_build
@every_kind
def test_hundreds_of_rows_are_cut_into_blocks_unnoticed(build: str, kind: int) -> None:
    rng = np.random.default_rng(0)
    x = random(rng, 301, 1100)  # more than one block of inputs in every format
    layer = Layer(build, kind, random(rng, 70, 1100), random(rng, 70))
    y = layer(x)
    check_product(layer, x, y)
    for row in (0, 150, 217, 219, 300):
        assert same_bits(y[row : row + 1], layer(x[row : row + 1]))


@every_build
@every_kind
@pytest.mark.parametrize("n_rows", [1, 2, 13])
def test_add_adds_and_nothing_else_is_written(build: str, kind: int, n_rows: int) -> None:
    rng = np.random.default_rng(0)
    n_out = 75
    layer = Layer(build, kind, random(rng, n_out, 50), random(rng, n_out))
    x, before = random(rng, n_rows, 50), random(rng, n_rows, n_out + 9)
    product, after = layer(x), before.copy()
    layer.run(x, after, epilogue=ADD)
    assert same_bits(after[:, :n_out], before[:, :n_out] + product)
    assert same_bits(after[:, n_out:], before[:, n_out:])
    some = before.copy()
    layer.run(x, some, (1, 2))
    assert same_bits(some[:, 32:64], product[:, 32:64])
    some[:, 32:64] = before[:, 32:64]
    assert same_bits(some, before)


@every_build
@every_kind
def test_no_rows_and_no_panels_write_nothing(build: str, kind: int) -> None:
    rng = np.random.default_rng(0)
    layer = Layer(build, kind, random(rng, 40, 24))
    y = np.full((3, 40), np.nan, np.float32)
    layer.run(random(rng, 0, 24), y)
    layer.run(random(rng, 3, 24), y, (1, 1))
    assert np.isnan(y).all()


@every_build
def test_float_weights_are_kept(build: str) -> None:
    weight = random(np.random.default_rng(0), 45, 37)
    assert same_bits(Layer(build, F32, weight).rows(), weight)
    assert same_bits(Layer(build, BF16, weight).rows(), torch.from_numpy(weight).bfloat16().float().numpy())


@every_build
@settings(max_examples=30, deadline=None)
@given(n_out=st.integers(1, 70), n_in=st.integers(1, 200), seed=st.integers(0, 1000))
def test_quantised_weights_lie_within_a_step(build: str, n_out: int, n_in: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weight = random(rng, n_out, n_in) * np.exp(random(rng, n_out, 1, scale=3))
    weight[rng.random(n_out) < 0.1] = 0
    grid = np.abs(weight).max(1, keepdims=True) / 127  # of 8 bits, one per output
    assert (np.abs(Layer(build, INT8, weight).rows() - weight) <= grid * 0.5001).all()
    error = Layer(build, INT4, weight).rows() - weight
    for begin in range(0, n_in, 32):
        group = weight[:, begin : begin + 32]
        width = np.ptp(group, axis=1)
        # Its range in 15 steps: half a step and the grid's rounding off, on average over the group.
        rms = np.sqrt((error[:, begin : begin + 32] ** 2).mean(1))
        assert (rms <= width / 30 + 1.5 * grid[:, 0]).all()


@every_build
def test_four_bits_lose_seven_hundredths_of_normal_weights_and_nothing_of_their_own_grid(build: str) -> None:
    rng = np.random.default_rng(0)
    normal = random(rng, 64, 512, scale=0.02)
    rows = Layer(build, INT4, normal).rows()
    assert np.linalg.norm(rows - normal) < 0.075 * np.linalg.norm(normal)
    # Weights that once were 16 values in each 32, as files quantised by others hold them: the 8-bit grid is what is left.
    step = np.exp(random(rng, 64, 16, 1, scale=0.2))
    grid = (step * (rng.integers(0, 16, (64, 16, 32)) - 7.3 + random(rng, 64, 16, 1))).reshape(64, 512)
    rows = Layer(build, INT4, grid).rows()
    assert np.linalg.norm(rows - grid) < 0.035 * np.linalg.norm(grid)


@every_build
@pytest.mark.parametrize("kind", [INT8, INT4])
def test_an_outlier_does_not_cost_the_others_their_digits(build: str, kind: int) -> None:
    rng = np.random.default_rng(0)
    x = random(rng, 20, 576)
    plain = Layer(build, kind, random(rng, 64, 576, scale=0.05))
    calm = np.abs(plain(x) - x.astype(np.float64) @ plain.rows().T).mean()
    x[:, 100] *= 1000
    wild = np.abs(plain(x) - x.astype(np.float64) @ plain.rows().T).mean()
    # One scale for the row would be 1000 / 3.5 times as coarse; four root mean squares of this row are some 45 times.
    assert calm < wild < 60 * calm


@every_build
@pytest.mark.parametrize("kind", [INT8, INT4])
@pytest.mark.parametrize("n_in", [1, 7, 100, 768])
def test_rows_of_any_size_are_prepared_within_their_memory(build: str, kind: int, n_in: int) -> None:
    """Sizes at which squares vanish, become subnormal or overflow; `prepare` checks what lies behind the rows."""
    rng = np.random.default_rng(0)
    layer = Layer(build, kind, random(rng, 33, n_in))
    sparse = (np.arange(n_in) % 12 == 0).astype(np.float32)
    base: Sequence[np.ndarray] = (np.ones(n_in, np.float32), sparse, random(rng, n_in), random(rng, n_in) ** 7,
                                  4.001 * (np.arange(n_in) % 16 == 0).astype(np.float32))  # fmt: skip
    for size in (0.0, 1e-44, 1e-40, 1.55e-22, 2e-23, 1e-19, 1e-16, 1.1e-16, 1.0, 1e15):
        x = np.stack(base) * np.float32(size)
        y = layer(x)
        assert np.isfinite(y).all()
        if size >= 1e-16:  # below, inputs may count as zero
            check_product(layer, x, y)
        else:
            assert (np.abs(y) <= 2 * np.abs(x) @ np.abs(layer.rows()).T + 1e-30).all()


@every_build
@every_kind
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bad_input_spoils_its_row_alone(build: str, kind: int, bad: float) -> None:
    rng = np.random.default_rng(0)
    layer = Layer(build, kind, random(rng, 70, 90))
    x = random(rng, 14, 90)
    good = layer(x)
    x[5, 33] = bad
    y = layer(x)
    assert not np.isfinite(y[5]).any()
    assert same_bits(np.delete(y, 5, 0), np.delete(good, 5, 0))


@every_build
@every_kind
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bad_weight_spoils_its_output_alone(build: str, kind: int, bad: float) -> None:
    rng = np.random.default_rng(0)
    weight, x = random(rng, 70, 90), random(rng, 14, 90)
    good = Layer(build, kind, weight)(x)
    weight[40, 17] = bad
    layer = Layer(build, kind, weight)
    y = layer(x)
    assert not np.isfinite(y[:, 40]).any()
    assert not np.isfinite(layer.rows()[40]).all()
    assert same_bits(np.delete(y, 40, 1), np.delete(good, 40, 1))


@every_build
@pytest.mark.parametrize("kind", [INT8, INT4])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_widest_layer_does_not_overflow(build: str, kind: int, sign: int) -> None:
    n_in = 1 << 16  # kMaxInputs
    layer = Layer(build, kind, np.full((33, n_in), sign, np.float32))
    np.testing.assert_allclose(layer(np.ones((2, n_in), np.float32)), sign * n_in, rtol=1e-5)
