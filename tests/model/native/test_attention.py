"""The native attention and its cache, in every build this processor can run, against float64 and against themselves: however
queries are cut, wherever they lie and whatever stale memory holds, the bits stay the same."""

import ctypes
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.native import library

I32, I64, P = ctypes.c_int32, ctypes.c_int64, ctypes.c_void_p
SIGNATURES = {
    "hg_cache_create": (P, [I32] * 6), "hg_cache_destroy": (None, [P]),
    "hg_cache_append": (None, [P, I32, I32, I64, I64, P, P]), "hg_cache_copy": (None, [P, I32, I32, I64]),
    "hg_cache_keys": (P, [P]), "hg_cache_values": (P, [P]),
    "hg_attention": (I32, [P, I32, I32, I32, I64, I64, I64, P, P]), "hg_elementwise": (None, [I32, P, P, I64, P]),
}  # fmt: skip


def kernels(isa: str) -> ctypes.CDLL:
    found = library._open(isa)
    assert found is not None
    for name, (result, arguments) in SIGNATURES.items():
        function = getattr(found, name)
        function.restype, function.argtypes = result, arguments
    return found


class Cache:
    """A cache of one build, as the tests use it: [n_kv_head, head_dim] per token."""

    def __init__(self, isa: str, head_dim: int, n_kv_head: int = 1, context: int = 64, *, n_layer: int = 1,
                 n_slots: int = 1, half: bool = False) -> None:  # fmt: skip
        self.lib, self.heads, self.head_dim, self.half = kernels(isa), n_kv_head, head_dim, half
        self.shape = (n_layer, n_slots, n_kv_head, -(-context // 16) * 16, head_dim)
        self.handle = self.lib.hg_cache_create(n_layer, n_slots, n_kv_head, head_dim, context, half)
        assert self.handle

    def __enter__(self) -> "Cache":
        return self

    def __exit__(self, *_: object) -> None:
        self.lib.hg_cache_destroy(self.handle)

    def memory(self) -> tuple[np.ndarray, np.ndarray]:
        """The cache's own keys [..., block, head_dim, 16] and values [..., position, head_dim], to read and to spoil."""
        element, count = (ctypes.c_uint16, ctypes.c_float)[not self.half], int(np.prod(self.shape))
        parts = [
            np.frombuffer((element * count).from_address(address), np.float16 if self.half else np.float32)
            for address in (self.lib.hg_cache_keys(self.handle), self.lib.hg_cache_values(self.handle))
        ]
        blocks = (*self.shape[:3], self.shape[3] // 16, self.head_dim, 16)
        return parts[0].reshape(blocks), parts[1].reshape(self.shape)

    def append(self, k: np.ndarray, v: np.ndarray, position: int = 0, *, layer: int = 0, slot: int = 0) -> None:
        self.lib.hg_cache_append(self.handle, layer, slot, position, len(k), k.ctypes.data, v.ctypes.data)

    def copy(self, source: int, target: int, length: int) -> None:
        self.lib.hg_cache_copy(self.handle, source, target, length)

    def attend(self, q: np.ndarray, start: int, cuts: tuple[int, ...] = (), *, layer: int = 0,
               slot: int = 0) -> np.ndarray:  # fmt: skip
        """q [n, heads * group, head_dim], cut into calls before each of `cuts`."""
        out = np.full_like(q, np.nan)
        edges = [0, *cuts, len(q)]
        for begin, end in pairwise(edges):
            group = q.shape[1] // self.heads
            code = self.lib.hg_attention(
                self.handle, layer, slot, group, start, begin, end, q.ctypes.data, out.ctypes.data
            )
            assert code == 0
        return out


def random(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> np.ndarray:
    return (rng.standard_normal(shape) * scale).astype(np.float32)


def reference(q: np.ndarray, k: np.ndarray, v: np.ndarray, start: int) -> np.ndarray:
    """In float64: q [n, H, D], k and v [start + n, G, D] -> [n, H, D]."""
    group = q.shape[1] // k.shape[1]
    k, v = (np.repeat(x.astype(np.float64), group, axis=1) for x in (k, v))
    scores = np.einsum("nhd,thd->hnt", q.astype(np.float64), k) / np.sqrt(q.shape[2])
    visible = np.arange(len(k)) <= start + np.arange(len(q))[:, None]
    scores = np.where(visible, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("hnt,thd->nhd", weights / weights.sum(-1, keepdims=True), v)


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.tobytes() == b.tobytes()


@pytest.fixture(params=library.instruction_sets() or [pytest.param("", marks=pytest.mark.skip("kernels not built"))])
def isa(request: pytest.FixtureRequest) -> str:
    return request.param


every_build = pytest.mark.parametrize("build", library.instruction_sets())
shapes = st.tuples(
    st.sampled_from([2, 8, 10, 16, 34, 64, 80, 96, 128]),  # head_dim
    st.integers(1, 3),  # key/value heads
    st.integers(1, 9),  # query heads of each
    st.integers(0, 600),  # positions before the segment
    st.integers(1, 70),  # queries
    st.booleans(),  # half
)


@every_build
@settings(max_examples=40, deadline=None)
@given(shape=shapes, seed=st.integers(0, 1000))
def test_attention_is_that_of_float64(build: str, shape: tuple, seed: int) -> None:
    head_dim, heads, group, start, n, half = shape
    rng = np.random.default_rng(seed)
    k, v = random(rng, start + n, heads, head_dim, scale=2), random(rng, start + n, heads, head_dim)
    q = random(rng, n, heads * group, head_dim)
    with Cache(build, head_dim, heads, start + n, half=half) as cache:
        cache.append(k, v)
        got = cache.attend(q, start)
    if half:
        k, v = k.astype(np.float16), v.astype(np.float16)
    np.testing.assert_allclose(got, reference(q, k, v, start), atol=3e-5)


@every_build
@settings(max_examples=40, deadline=None)
@given(shape=shapes, seed=st.integers(0, 1000), data=st.data())
def test_no_cut_of_the_queries_changes_a_bit(build: str, shape: tuple, seed: int, data: st.DataObject) -> None:
    head_dim, heads, group, start, n, half = shape
    rng = np.random.default_rng(seed)
    k, v = random(rng, start + n, heads, head_dim, scale=2), random(rng, start + n, heads, head_dim)
    q = random(rng, n, heads * group, head_dim)
    cuts = tuple(sorted(data.draw(st.sets(st.integers(1, n - 1)) if n > 1 else st.just(set()))))
    with Cache(build, head_dim, heads, start + n, half=half) as cache:
        cache.append(k, v)
        whole = cache.attend(q, start)
        assert same_bits(cache.attend(q, start, cuts), whole)
        assert same_bits(cache.attend(q, start, tuple(range(1, n))), whole)
        last = np.ascontiguousarray(q[-1:])  # as a decoded token
        assert same_bits(cache.attend(last, start + n - 1)[0], whole[-1])


@pytest.mark.parametrize("half", [False, True])
def test_stale_memory_is_never_read_into_a_result(isa: str, half: bool) -> None:
    rng = np.random.default_rng(0)
    for head_dim, start, n in [(8, 0, 3), (64, 30, 41), (80, 250, 20), (34, 255, 2), (128, 511, 1)]:
        k, v = random(rng, start + n, 2, head_dim), random(rng, start + n, 2, head_dim)
        q = random(rng, n, 6, head_dim)
        with Cache(isa, head_dim, 2, 640, n_slots=3, half=half) as cache:
            cache.append(k, v, slot=1)
            clean = cache.attend(q, start, slot=1)
            for stale in (np.nan, np.inf, -np.inf):
                for part in cache.memory():
                    part[...] = stale
                cache.append(k, v, slot=1)
                assert same_bits(cache.attend(q, start, slot=1), clean)
                # What comes later in the sequence itself is as invisible.
                cache.append(np.full_like(k, stale)[:9], np.full_like(v, stale)[:9], start + n, slot=1)
                longer = np.concatenate([q, random(rng, 9, 6, head_dim)])
                assert same_bits(cache.attend(longer, start, slot=1)[:n], clean)
        assert np.isfinite(clean).all()


def test_nan_in_what_is_seen_is_seen(isa: str) -> None:
    with Cache(isa, 64) as cache:
        k = np.ones((3, 1, 64), np.float32)
        k[1, 0, 5] = np.nan
        cache.append(k, np.ones_like(k))
        out = cache.attend(np.ones((3, 1, 64), np.float32), 0)
    assert np.isfinite(out[0]).all()
    assert np.isnan(out[1:]).all()


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("group", [1, 3])
def test_long_contexts(isa: str, half: bool, group: int) -> None:
    rng = np.random.default_rng(1)
    k, v, q = random(rng, 8000, 1, 64, scale=3), random(rng, 8000, 1, 64), random(rng, 40, group, 64)
    with Cache(isa, 64, context=8000, half=half) as cache:
        cache.append(k, v)
        got = cache.attend(q, 7960)
        assert same_bits(cache.attend(np.ascontiguousarray(q[7:9]), 7967), got[7:9])
    if half:
        k, v = k.astype(np.float16), v.astype(np.float16)
    np.testing.assert_allclose(got, reference(q, k, v, 7960), atol=3e-5)


def test_far_apart_scores_neither_overflow_nor_vanish(isa: str) -> None:
    k = np.zeros((300, 1, 16), np.float32)
    k[:, 0, 0] = np.linspace(-3e3, 3e3, 300)  # the last ones outweigh all before, chunk after chunk
    v = np.arange(300, dtype=np.float32)[:, None, None].repeat(16, 2)
    q = np.full((1, 1, 16), 100, np.float32)
    with Cache(isa, 16, context=300) as cache:
        cache.append(k, v)
        np.testing.assert_array_equal(cache.attend(q, 299), np.full((1, 1, 16), 299, np.float32))
        np.testing.assert_array_equal(cache.attend(-q, 299), np.zeros((1, 1, 16), np.float32))
        np.testing.assert_allclose(cache.attend(0 * q, 299), np.full((1, 1, 16), 149.5), rtol=1e-6)


@pytest.mark.parametrize("half", [False, True])
def test_cache_layout_and_rounding(isa: str, half: bool) -> None:
    rng = np.random.default_rng(2)
    k, v = random(rng, 20, 2, 10, scale=100), random(rng, 20, 2, 10, scale=1e-5)  # the latter subnormal as halves
    k[3, 1, :4] = np.inf, -np.inf, 1e9, -65520
    v[4, 0, :3] = -1e6, np.nan, 65520
    k[5, 0, 9], v[6, 1, 9] = np.nan, np.inf
    with Cache(isa, 10, 2, 33, n_layer=2, n_slots=2, half=half) as cache:
        cache.append(k, v, 7, layer=1, slot=1)
        keys, values = (part.copy() for part in cache.memory())
    assert keys.shape == (2, 2, 2, 3, 10, 16)
    stored_k = keys[1, 1].transpose(0, 1, 3, 2).reshape(2, 48, 10)[:, 7:27].transpose(1, 0, 2)
    stored_v = values[1, 1, :, 7:27].transpose(1, 0, 2)
    for stored, given_ in ((stored_k, k), (stored_v, v)):
        expected = np.clip(given_, -65504, 65504).astype(np.float16) if half else given_
        np.testing.assert_array_equal(stored, expected)  # takes NaN as equal to NaN
    keys[1, 1], values[1, 1] = 0, 0
    assert np.count_nonzero(keys) <= 0
    assert np.count_nonzero(values) <= 0


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("length", [1, 16, 37])
def test_copied_slots_answer_alike(isa: str, half: bool, length: int) -> None:
    rng = np.random.default_rng(3)
    k, v, q = random(rng, 40, 2, 64), random(rng, 40, 2, 64), random(rng, 1, 4, 64)
    with Cache(isa, 64, 2, 48, n_layer=2, n_slots=3, half=half) as cache:
        for part in cache.memory():
            part[...] = np.nan
        for layer in range(2):
            cache.append(k, v, layer=layer)
        cache.copy(0, 2, length)
        cache.copy(2, 2, length)  # onto itself: nothing
        for layer in range(2):
            expected = cache.attend(q, length - 1, layer=layer)
            assert same_bits(cache.attend(q, length - 1, layer=layer, slot=2), expected)
        assert np.isnan(cache.memory()[1][:, 1]).all()
        assert np.isnan(cache.memory()[1][:, 2, :, length:]).all()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's account of memory")
def test_slots_take_memory_only_as_far_as_written(isa: str) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    with Cache(isa, 64, 8, 8192, n_layer=24, n_slots=8) as cache:  # 6 GiB of addresses
        before = resident()
        one = np.ones((100, 8, 64), np.float32)
        for layer in range(24):
            cache.append(one, one, layer=layer, slot=5)
        assert 5e6 < resident() - before < 40e6  # 9.8 MB of numbers, in pages


@pytest.mark.parametrize(("kind", "name"), [(0, "exp"), (1, "silu"), (2, "gelu")])
def test_elementwise_functions(isa: str, kind: int, name: str) -> None:
    lib = kernels(isa)
    x = np.concatenate([np.linspace(-87.3, 88.7, 300_007), np.linspace(-6, 6, 100_003), np.zeros(1)]).astype(np.float32)
    out = np.empty_like(x)
    lib.hg_elementwise(kind, x.ctypes.data, None, len(x), out.ctypes.data)
    wide = x.astype(np.float64)
    inner = np.maximum(np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3), -300)  # e^600: the result is 0 all the same
    exact = {"exp": np.exp(wide), "silu": wide / (1 + np.exp(-wide)), "gelu": wide / (1 + np.exp(-2 * inner))}[name]
    normal = np.abs(exact) > 1e-37
    relative = np.abs(out - exact)[normal] / np.abs(exact)[normal]
    assert relative.max() < {"exp": 2.4e-7, "silu": 4e-7, "gelu": 2e-5}[name]  # GELU's tail: exp of a rounded product
    assert (np.abs(out - exact) <= 3e-7 * np.abs(exact) + 1e-6).all()
    for begin in (1, 5, 40):  # a value's result is the same at any place, in place too
        part = x[begin : begin + 1000].copy()
        lib.hg_elementwise(kind, part.ctypes.data, None, len(part), part.ctypes.data)
        assert same_bits(part, out[begin : begin + 1000])
    edge = np.array([-np.inf, np.inf, np.nan, -1e30, 1e30], np.float32)
    lib.hg_elementwise(kind, edge.ctypes.data, None, 5, edge.ctypes.data)
    assert np.isnan(edge[2])
    assert edge[1] == np.inf
    if kind == 0:
        assert edge.tolist()[3:] == [0, np.inf]
    up = random(np.random.default_rng(0), len(x))
    gated = np.empty_like(x)
    lib.hg_elementwise(1, x.ctypes.data, up.ctypes.data, len(x), gated.ctypes.data)
    if kind == 1:
        assert same_bits(gated, out * up)


@pytest.mark.parametrize("isa", library.instruction_sets())
def test_sizes_too_large_to_count_are_no_cache(isa: str) -> None:
    create, most = kernels(isa).hg_cache_create, (1 << 31) - 1
    assert create(1 << 16, 1 << 16, 1 << 16, 1 << 16, 16, 0) is None  # 2^68 elements, which would wrap round to none
    assert create(1, 1, 1, 8, most, 0) is None  # no whole number of blocks
    assert create(1, 1, 1, 8, 0, 0) is None
    assert create(1, -1, -1, 8, 16, 0) is None
