"""The native back end against the PyTorch model, and against itself: the same bits in any company."""

import gc
import math
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import random_model, tiny_config
from torch import Tensor

from model.backend import BackendSpec, Segment, load_backend
from model.checkpoint import save_model
from model.config import ModelConfig, RopeScaling
from model.errors import ConfigError, ContextLengthError
from model.gpt import GPT, SequenceClassifier
from model.lora import LoraConfig, add_lora, lora_pairs, merge_lora
from model.native import library, weights
from model.native.backend import NativeBackend

SETS = library.instruction_sets()
pytestmark = pytest.mark.skipif(not SETS, reason="the native kernels weren't built here")

VOCAB = 211
IDS: dict[str, Any] = {"vocab_size": VOCAB, "bos_token_id": 1, "eos_token_ids": (1,)}
CONFIGS: dict[str, ModelConfig] = {
    "gpt2": tiny_config("gpt2", **IDS),
    "llama": tiny_config("llama", **IDS),
    "llama-untied-biases": tiny_config(
        "llama", **IDS, tie_embeddings=False, attention_bias=True, mlp_bias=True, n_layer=1,
        rope_scaling=RopeScaling(kind="llama3", factor=4.0, original_context=64),
    ),
    "llama-odd": tiny_config(
        "llama", **IDS, n_head=9, n_kv_head=3, head_dim=6, d_model=40, d_ff=72, rope_scaling=RopeScaling(kind="linear", factor=2.0)
    ),
}  # fmt: skip
FORMATS: dict[str, dict[str, Any]] = {
    "float32": {}, "bfloat16": {"dtype": "bfloat16"}, "int8": {"quantize": "int8"}, "int4": {"quantize": "int4"},
}  # fmt: skip


@pytest.fixture(params=SETS, autouse=True)
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test runs with every instruction set that this machine has."""
    monkeypatch.setenv(library.OVERRIDE, request.param)
    return request.param


def sequence(length: int, seed: int = 0) -> list[int]:
    return [random.Random(f"{seed} {i}").randrange(VOCAB) for i in range(length)]


def model_of(name: str) -> GPT:
    model = random_model(CONFIGS[name])
    assert isinstance(model, GPT)
    return model


def logits_of(backend: NativeBackend, *segments: Segment) -> Tensor:
    return backend.logits(backend.forward(segments)).clone()


@pytest.mark.parametrize("name", CONFIGS)
def test_float32_equals_pytorch_in_any_chunks_and_slots(name: str) -> None:
    model = model_of(name)
    backend = NativeBackend.from_model(model, n_slots=3, threads=2)
    rows = [sequence(128, seed) for seed in (1, 2)]
    want = model(torch.tensor(rows))  # [2, 128, V]
    for cuts in ([0, 128], [0, 1, 2, 3, 70, 71, 127, 128], [0, 64, 65, 128], [0, 100, 128]):
        for begin, end in pairwise(cuts):
            got = logits_of(
                backend,
                Segment(2, begin, rows[0][begin:end], outputs=end - begin),
                Segment(0, begin, rows[1][begin:end], outputs=1),
            )
            torch.testing.assert_close(got[:-1], want[0, begin:end], atol=1e-4, rtol=0)
            torch.testing.assert_close(got[-1], want[1, end - 1], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize(("kind", "limit"), [("bfloat16", 0.02), ("int8", 0.03), ("int4", 0.5)])
def test_fast_formats_stay_close_to_float32(name: str, kind: str, limit: float) -> None:
    model = model_of(name)
    tokens = sequence(100)
    want = model(torch.tensor([tokens]))[0]  # [100, V]
    got = logits_of(NativeBackend.from_model(model, n_slots=1, **FORMATS[kind]), Segment(0, 0, tokens, outputs=100))
    error = (got - want).pow(2).mean().sqrt() / want.std()
    assert 0 < error < limit


class Reference:
    """What each sequence gives alone, whole, in slot 0 and on one thread; and a back end to compare with it."""

    def __init__(self, name: str, kind: str) -> None:
        model = model_of(name)
        alone = NativeBackend.from_model(model, n_slots=1, threads=1, **FORMATS[kind])
        self.sequences = [sequence(length, length) for length in (9, 70, 128)]
        self.hidden = [alone.forward([Segment(0, 0, tokens, len(tokens))]) for tokens in self.sequences]
        self.logits = [alone.logits(hidden).clone() for hidden in self.hidden]
        self.backends = {n: NativeBackend.from_model(model, n_slots=4, threads=n, **FORMATS[kind]) for n in (1, 2)}


_references: dict[tuple[str, str, str], Reference] = {}


@pytest.fixture(scope="module", autouse=True)
def _forget_references() -> Iterator[None]:
    yield
    _references.clear()
    gc.collect()


# A step: for some slots, which sequence to go on with, after how many of the tokens held, by how many, and outputs.
_PART = st.tuples(st.integers(0, 2), st.floats(0, 1), st.integers(1, 128), st.floats(0, 1))
_STEP = st.dictionaries(st.integers(0, 3), _PART, min_size=1)
_COPY = st.tuples(st.integers(0, 3), st.integers(0, 3), st.floats(0, 1))


@pytest.mark.parametrize("name", ["gpt2", "llama-odd"])
@pytest.mark.parametrize("kind", FORMATS)
def test_bits_do_not_depend_on_company_chunks_slots_copies_or_threads(isa: str, name: str, kind: str) -> None:
    reference = _references.setdefault((isa, name, kind), Reference(name, kind))

    @settings(max_examples=25, deadline=None)
    @given(st.lists(_STEP | _COPY, min_size=1, max_size=8), st.sampled_from([1, 2]))
    def run(schedule: list[Any], threads: int) -> None:
        backend = reference.backends[threads]
        held = dict.fromkeys(range(4), (0, 0))  # slot -> sequence and how much of it lies there
        for step in schedule:
            if isinstance(step, tuple):
                source, target, share = step
                which, length = held[source]
                kept = int(share * length)
                backend.copy_slot(source, target, kept)
                held[target] = (which, kept)
                continue
            segments, rows = [], []
            for slot, (which, share, more, wanted) in step.items():
                tokens = reference.sequences[which]
                start = min(int(share * held[slot][1]), len(tokens) - 1) if held[slot][0] == which else 0
                new = tokens[start : start + more]
                outputs = math.ceil(wanted * len(new))
                segments.append(Segment(slot, start, new, outputs))
                rows += [(which, start + len(new) - outputs + i) for i in range(outputs)]
                held[slot] = (which, start + len(new))
            hidden = backend.forward(segments)
            logits = backend.logits(hidden)
            assert len(hidden) == len(rows)
            for i, (which, position) in enumerate(rows):
                assert torch.equal(hidden[i], reference.hidden[which][position])
                assert torch.equal(logits[i], reference.logits[which][position])

    run()


@pytest.mark.parametrize("kind", FORMATS)
def test_bits_stay_the_same_where_work_is_cut_into_pieces(kind: str) -> None:
    """Layers wide and prompts long enough for every way in which rows, panels and queries are cut."""
    config = tiny_config("llama", **IDS, context_length=512, d_model=192, d_ff=600, n_head=6, n_kv_head=2, head_dim=32)
    model = random_model(config)
    one, many = (NativeBackend.from_model(model, n_slots=3, threads=n, **FORMATS[kind]) for n in (1, 5))
    tokens = sequence(512)
    want = one.forward([Segment(0, 0, tokens, 512)])
    for cuts in ([0, 512], [0, 1, 3, 40, 200, 201, 470, 512]):
        for begin, end in pairwise(cuts):
            company = Segment(2, 0, tokens[: 1 + end % 300], outputs=0)
            got = many.forward([company, Segment(1, begin, tokens[begin:end], end - begin)])
            assert torch.equal(got, want[begin:end])
    assert torch.equal(many.logits(want), one.logits(want))
    assert torch.equal(many.logits(want[7:8]), one.logits(want)[7:8])


def adapter_on(model: GPT | SequenceClassifier, seed: int, **config: Any) -> list[Any]:
    """An adapter's pairs as if they had been trained, put on `model`."""
    add_lora(model, LoraConfig(**config))
    pairs = list(lora_pairs(model))
    generator = torch.Generator().manual_seed(seed)
    for _, pair in pairs:
        pair.b.copy_(torch.randn(pair.b.shape, generator=generator) * 0.2)
    return pairs


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("gpt2", "all"), ("gpt2", ("c_fc",)), ("llama", "all"), ("llama", ("k_proj", "up_proj")),
        ("llama-untied-biases", ("q_proj", "v_proj", "gate_proj", "down_proj")), ("llama-odd", ("o_proj",)),
    ],
)  # fmt: skip
@torch.no_grad()
def test_adapters_equal_their_merged_models_and_leave_other_rows_alone(name: str, targets: Any) -> None:
    backend = NativeBackend.from_model(model_of(name), n_slots=4, threads=2)
    merged, numbers = [], []
    for seed, rank in ((1, 4), (2, 7)):
        model = model_of(name)
        numbers.append(backend.add_adapter(adapter_on(model, seed, rank=rank, alpha=2.0 * rank, targets=targets)))
        merge_lora(model)
        merged.append(model)
    tokens = sequence(90)
    alone = logits_of(backend, Segment(3, 0, tokens, 90))
    got = logits_of(
        backend,
        Segment(0, 0, tokens, 90, adapter=numbers[0]),
        Segment(1, 0, tokens, 90),
        Segment(2, 0, tokens[:20], 20, adapter=numbers[1]),
    )
    torch.testing.assert_close(got[:90], merged[0](torch.tensor([tokens]))[0], atol=1e-4, rtol=0)
    assert torch.equal(got[90:180], alone)
    torch.testing.assert_close(got[180:], merged[1](torch.tensor([tokens[:20]]))[0], atol=1e-4, rtol=0)
    assert (got[:90] - alone).abs().max() > 0.01  # the adapter does something

    backend.remove_adapter(numbers[0])
    with pytest.raises(KeyError):
        backend.forward([Segment(0, 0, tokens, adapter=numbers[0])])
    again = logits_of(backend, Segment(2, 20, tokens[20:], 70, adapter=numbers[1]))
    torch.testing.assert_close(again, merged[1](torch.tensor([tokens]))[0, 20:], atol=1e-4, rtol=0)


@torch.no_grad()
def test_an_adapter_of_another_model_is_refused_and_leaves_nothing() -> None:
    backend = NativeBackend.from_model(model_of("llama"), n_slots=1)
    wider = random_model(replace(CONFIGS["llama"], d_ff=96))
    with pytest.raises(ConfigError, match=r"model\.layers\.0\..*doesn't fit"):
        backend.add_adapter(adapter_on(wider, 1, targets=("down_proj", "o_proj")))
    with pytest.raises(ConfigError, match="no pairs"):
        backend.add_adapter([])
    deeper = random_model(replace(CONFIGS["llama"], n_layer=3))
    with pytest.raises(ConfigError, match=r"model\.layers\.2\."):
        backend.add_adapter(adapter_on(deeper, 1))
    with pytest.raises(KeyError):
        backend.remove_adapter(1)


@pytest.mark.parametrize("kind", FORMATS)
@torch.no_grad()
def test_not_a_number_stays_in_its_row_and_leaves_the_slot_with_its_owner(kind: str) -> None:
    model = model_of("llama")
    backend = NativeBackend.from_model(model, n_slots=3, threads=2, **FORMATS[kind])
    pairs = adapter_on(model, 1, rank=2)
    for _, pair in pairs:
        pair.b.fill_(math.nan)
    broken = backend.add_adapter(pairs)
    tokens = sequence(100)
    alone = logits_of(backend, Segment(1, 0, tokens, 100))
    got = logits_of(backend, Segment(0, 0, tokens, 100, adapter=broken), Segment(2, 0, tokens, 100))
    assert got[:100].isnan().any(1).all()
    assert torch.equal(got[100:], alone)
    for length in (1, 30, 100):  # stale NaN lies behind, inside the last block, and nowhere
        assert torch.equal(logits_of(backend, Segment(0, 0, tokens[:length], length)), alone[:length])


def test_what_does_not_fit_is_refused_before_anything_is_touched() -> None:
    backend = NativeBackend.from_model(model_of("gpt2"), n_slots=2, context=50)
    tokens = sequence(50)
    want = logits_of(backend, Segment(0, 0, tokens, 50))
    backend.forward([Segment(0, 0, tokens[:40])])
    wrong = sequence(11, 9)
    for bad, error in (
        ([Segment(0, 40, wrong)], ContextLengthError),
        ([Segment(0, 0, wrong), Segment(1, 45, wrong)], ContextLengthError),
        ([Segment(0, 0, wrong), Segment(1, 0, [VOCAB])], ValueError),
        ([Segment(0, 0, wrong), Segment(1, 0, [-1])], ValueError),
        ([Segment(0, 0, wrong), Segment(1, 0, [1], adapter=3)], KeyError),
        ([Segment(0, 0, wrong), Segment(0, 11, wrong)], ValueError),
        ([Segment(0, 0, wrong), Segment(2, 0, wrong)], ValueError),
        ([Segment(0, 0, wrong, outputs=12)], ValueError),
        ([Segment(0, 0, [])], ValueError),
        ([Segment(0, -1, wrong)], ValueError),
        ([], ValueError),
    ):
        with pytest.raises(error):
            backend.forward(bad)
    for source, target, length in ((0, 2, 1), (-1, 0, 1), (0, 1, 51), (0, 1, -1)):
        with pytest.raises(ValueError, match="slot"):
            backend.copy_slot(source, target, length)
    assert torch.equal(logits_of(backend, Segment(0, 40, tokens[40:], 10)), want[40:])
    with pytest.raises(ValueError, match="hidden states"):
        backend.logits(torch.zeros(1, 31))


def test_a_wrong_call_of_the_library_is_an_error_and_no_crash() -> None:
    kernels = library.load()
    model = model_of("gpt2")
    backend = NativeBackend.from_model(model, n_slots=1)
    handle = backend._handle
    vector = torch.zeros(5)
    piece = library.Piece(vector.data_ptr(), 0, 5, 1, 1)
    for code in (
        kernels.hg_set_vector(handle, 8, 0, vector.data_ptr(), 5),
        kernels.hg_set_vector(handle, 99, 0, vector.data_ptr(), 5),
        kernels.hg_set_vector(handle, 0, 7, vector.data_ptr(), 96),
        kernels.hg_pack(handle, 0, 0, piece, 1, 0, 5),
        kernels.hg_pack(handle, 4, 0, piece, 1, 0, 5),  # tied: there is no embedding of its own
        kernels.hg_pack(handle, 0, 2, piece, 1, 0, 5),
        kernels.hg_add_pair(handle, 1, 5, 0, 0, 1, 32, 1, 1.0, vector.data_ptr(), vector.data_ptr()),
        kernels.hg_add_pair(handle, 1, 0, 0, 0, 0, 0, 0, 1.0, None, None),
        kernels.hg_remove_adapter(handle, 1),
    ):
        with pytest.raises(ValueError, match="native kernels: "):
            library.check(kernels, code)
    missing = [(key, tensor) for key, tensor in model.state_dict().items() if key != "blocks.1.mlp.down.weight"]
    with pytest.raises(ValueError, match="has not been set"):
        NativeBackend(model.config, missing, n_slots=1)
    with pytest.raises(ConfigError, match="more inputs than the kernels can sum"):
        NativeBackend(replace(model.config, d_ff=1 << 17), [], n_slots=1)
    with pytest.raises(ConfigError, match="max_slots"):
        NativeBackend.from_model(model, n_slots=(1 << 31) - 1)


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_a_classifier_gives_hidden_states_and_a_score_head(architecture: str) -> None:
    model = random_model(tiny_config(architecture, **IDS, labels=("no", "yes", "maybe")))
    backend = NativeBackend.from_model(model, n_slots=1)
    tokens = sequence(20)
    hidden = backend.forward([Segment(0, 0, tokens)])
    assert backend.score_head is not None
    want = model(torch.tensor([tokens]), torch.tensor([20]))
    torch.testing.assert_close(hidden @ backend.score_head.T, want, atol=1e-4, rtol=0)
    with pytest.raises(ConfigError, match="classifier"):
        backend.logits(hidden)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
def test_loads_from_disk_what_is_stored_there(tmp_path: Path, stored: torch.dtype) -> None:
    model = model_of("llama-untied-biases")
    save_model(model, tmp_path, dtype=stored, max_shard_bytes=20_000)
    spec = BackendSpec(model=tmp_path, dtype="float32", device="cpu", backend="native", max_slots=2, threads=2)
    backend = load_backend(spec)
    assert (backend.kernels, backend.dtype, backend.quantize, backend.n_slots) == (
        f"native {library.load().hg_isa().decode()}", "float32", "none", 2,
    )  # fmt: skip
    tokens = sequence(30)
    for parameter in model.parameters():  # the table of rotary positions is never rounded
        parameter.copy_(parameter.to(stored))
    want = model(torch.tensor([tokens]))[0]
    torch.testing.assert_close(backend.logits(backend.forward([Segment(1, 0, tokens, 30)])), want, atol=1e-4, rtol=0)
    backend.close()
    backend.close()


def test_more_threads_than_cores_and_two_models_at_once() -> None:
    models = [model_of("gpt2"), model_of("llama")]
    backends = [
        NativeBackend.from_model(model, n_slots=1, threads=threads)
        for model, threads in zip(models, (9, 3), strict=True)
    ]
    tokens = sequence(100)
    wants = [logits_of(backend, Segment(0, 0, tokens, 100)) for backend in backends]
    for _ in range(20):
        for backend, want in zip(backends, wants, strict=True):
            assert torch.equal(logits_of(backend, Segment(0, 0, tokens, 100)), want)
    with pytest.raises(ConfigError, match="threads"):
        NativeBackend.from_model(models[0], n_slots=1, threads=0)


def test_results_are_float32_whatever_the_default_is() -> None:
    model, tokens = model_of("gpt2"), sequence(20)
    backend = NativeBackend.from_model(model, n_slots=1)
    want = logits_of(backend, Segment(0, 0, tokens, 20))
    torch.set_default_dtype(torch.float64)  # a smaller one would be written past its end, were it taken
    try:
        late = NativeBackend.from_model(model, n_slots=1)
        got = [logits_of(each, Segment(0, 0, tokens, 20)) for each in (backend, late)]
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(got[0], want)
    assert torch.equal(got[1], want)


@torch.no_grad()
def test_a_closed_back_end_says_so() -> None:
    model = model_of("gpt2")
    backend = NativeBackend.from_model(model, n_slots=2)
    hidden = backend.forward([Segment(0, 0, [1, 2])])
    pairs = adapter_on(model, 1, rank=2)
    number = backend.add_adapter(pairs)
    backend.close()
    calls: list[Callable[[], object]] = [
        lambda: backend.forward([Segment(0, 2, [3])]), lambda: backend.logits(hidden), lambda: backend.copy_slot(0, 1, 2),
        lambda: backend.add_adapter(pairs), lambda: backend.remove_adapter(number),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(RuntimeError, match="the back end is closed"):
            call()
    backend.close()


def test_the_library_refuses_a_null_handle() -> None:
    kernels, values = library.load(), torch.zeros(64)
    address, piece = values.data_ptr(), library.Piece(values.data_ptr(), 0, 1, 1, 1)
    kernels.hg_destroy(None)
    for code in (
        kernels.hg_pack(None, 0, 0, piece, 1, 0, 1),
        kernels.hg_set_vector(None, 0, 0, address, 1),
        kernels.hg_check_complete(None),
        kernels.hg_forward(None, library.SegmentRecord(0, 0, 0, 1, 1), 1, address, 1, address),
        kernels.hg_logits(None, address, 1, address),
        kernels.hg_copy_slot(None, 0, 1, 1),
        kernels.hg_add_pair(None, 1, 0, 0, 0, 1, 1, 1, 1.0, address, address),
        kernels.hg_remove_adapter(None, 1),
    ):
        with pytest.raises(ValueError, match="the handle is null"):
            library.check(kernels, code)


def in_a_process(script: str, *arguments: object) -> str:
    """What a script prints in a process of its own, which must end well and soon."""
    done = subprocess.run(
        [sys.executable, "-c", dedent(script), *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_fork_ends_without_the_threads_it_does_not_have(tmp_path: Path) -> None:
    save_model(model_of("gpt2"), tmp_path)
    script = """
        import os, sys, time
        from pathlib import Path
        from model.backend import BackendSpec, Segment, load_backend
        backend = load_backend(BackendSpec(model=Path(sys.argv[1]), backend="native", max_slots=1, threads=3))
        child = os.fork()
        if child == 0:
            sys.exit(7)  # by way of everything that is done at the end of a process
        end = time.monotonic() + 60
        while (found := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < end:
            time.sleep(0.01)
        if found == (0, 0):
            os.kill(child, 9)
        print(os.waitstatus_to_exitcode(found[1]) if found[0] else "hangs")
    """
    assert in_a_process(script, tmp_path) == "7\n"


@torch.no_grad()
def test_an_adapter_that_fails_halfway_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("gpt2")
    backend = NativeBackend.from_model(model, n_slots=1)
    pairs, add, added = adapter_on(model, 1, rank=2), backend._add_pair, []

    def fail_later(handle: int, number: int, projection: Any, pair: Any) -> None:
        if len(added) == 2:
            raise MemoryError
        add(handle, number, projection, pair)
        added.append(number)

    monkeypatch.setattr(backend, "_add_pair", fail_later)
    with pytest.raises(MemoryError):
        backend.add_adapter(pairs)
    assert library.load().hg_remove_adapter(backend._handle, added[0]) == library.BAD_ARGUMENT  # there is none


def test_sizes_beyond_what_the_kernels_can_do_are_told_from_a_lack_of_memory() -> None:
    model = model_of("gpt2")
    with pytest.raises(
        ConfigError, match=r"can't run this model \(.* 131072, not at most 65536\); choose backend torch"
    ):
        NativeBackend(replace(model.config, d_ff=1 << 17), [], n_slots=1)
    with pytest.raises(ConfigError, match="larger than the kernels can count"):
        NativeBackend(replace(model.config, d_ff=(1 << 32) + 64), [], n_slots=1)
    with pytest.raises(ConfigError, match=r"not enough memory; it asks for 2147483647 slots .* lower max_slots"):
        NativeBackend.from_model(model, n_slots=(1 << 31) - 1)


@pytest.mark.parametrize("name", ["gpt2", "llama-untied-biases", "llama-odd"])
@pytest.mark.parametrize("kind", FORMATS)
def test_weights_packed_in_parts_are_the_same(
    tmp_path: Path, name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokens = model_of(name), sequence(30)
    save_model(model, tmp_path)
    want = logits_of(NativeBackend.from_model(model, n_slots=1, **FORMATS[kind]), Segment(0, 0, tokens, 30))
    ranges: list[tuple[int, int]] = []
    monkeypatch.setattr(weights, "_RANGE_BYTES", 5000)
    monkeypatch.setattr(weights, "release_file_pages", lambda tensor: ranges.append(tensor.shape))
    spec = {"dtype": "float32"} | FORMATS[kind]
    backend = load_backend(BackendSpec(model=tmp_path, backend="native", max_slots=1, **spec))
    assert torch.equal(logits_of(backend, Segment(0, 0, tokens, 30)), want)
    assert ranges.count((VOCAB, model.config.d_model)) > 1


def test_parts_of_a_matrix_come_in_order_and_in_whole_panels() -> None:
    model = model_of("gpt2")
    backend, kernels = NativeBackend.from_model(model, n_slots=1), library.load()
    table = torch.zeros(VOCAB, model.config.d_model)
    piece, rows = library.Piece(table.data_ptr(), 0, VOCAB, table.stride(0), 1), kernels.hg_pack_rows()

    def pack(begin: int, end: int) -> None:
        library.check(kernels, kernels.hg_pack(backend._handle, 5, 0, piece, 1, begin, end))

    pack(0, rows)
    for begin, end in ((2 * rows, 3 * rows), (rows, rows), (rows, 2 * rows - 1), (rows, VOCAB + 1), (-rows, rows)):
        with pytest.raises(ValueError, match="rows"):
            pack(begin, end)
    with pytest.raises(ValueError, match="head has not been set"):  # not whole any more
        library.check(kernels, kernels.hg_check_complete(backend._handle))
    pack(rows, VOCAB)
    library.check(kernels, kernels.hg_check_complete(backend._handle))


def test_loading_holds_no_more_of_the_file_than_a_part(tmp_path: Path) -> None:
    # An embedding of 100 MB in the file, 25 MB packed.
    config = tiny_config("llama", **(IDS | {"vocab_size": 100_000}), d_model=256, d_ff=64, n_layer=1)
    save_model(random_model(config), tmp_path)
    script = """
        import sys
        from pathlib import Path
        from model.backend import BackendSpec, Segment, load_backend
        def megabytes(name):
            lines = Path("/proc/self/status").read_text().splitlines()
            return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(name + ":")), None)
        spec = dict(dtype="float32", quantize="int8", backend="native", max_slots=1, context=16)
        load_backend(BackendSpec(model=Path(sys.argv[1]), **spec)).close()  # libraries and their buffers
        backend = load_backend(BackendSpec(model=Path(sys.argv[2]), **spec))
        print(megabytes("VmHWM"), megabytes("VmRSS"))
    """
    small = tmp_path / "small"
    save_model(model_of("llama"), small)
    peak, after = in_a_process(script, small, tmp_path).split()
    if peak == "None":
        pytest.skip("this system doesn't tell the most memory that a process had")
    assert float(peak) - float(after) < 40
