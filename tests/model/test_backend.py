"""Which back end runs a model, with what settings; every choice that can't be had is one line."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import random_model, tiny_config

from model import backend as module
from model.backend import BackendSpec, Segment, choose_slots, load_backend
from model.checkpoint import save_model, stored_dtypes
from model.errors import CheckpointError, ConfigError
from model.native import library
from model.torch_backend import TorchBackend

needs_kernels = pytest.mark.skipif(not library.available(), reason="the native kernels weren't built")


@pytest.fixture(scope="module")
def half_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("half")
    save_model(random_model(tiny_config("llama")), directory, dtype=torch.bfloat16)
    return directory


def test_torch_where_it_is_asked_for(tiny_gpt2_dir: Path):
    threads = torch.get_num_threads()
    try:
        backend = load_backend(BackendSpec(model=tiny_gpt2_dir, backend="torch", threads=1, max_slots=3, context=50))
    finally:
        torch.set_num_threads(threads)
    assert isinstance(backend, TorchBackend)
    assert (backend.kernels, backend.dtype, backend.quantize) == ("torch", "float32", "none")
    assert (backend.n_slots, backend.context, backend.threads, backend.invariant) == (3, 50, 1, False)
    hidden = backend.forward([Segment(2, 0, [4, 5])])
    assert backend.logits(hidden).shape == (1, 50257)
    backend.close()


@needs_kernels
def test_our_kernels_where_they_were_built(tiny_gpt2_dir: Path):
    backend = load_backend(BackendSpec(model=tiny_gpt2_dir, device="cpu"))
    assert backend.kernels.startswith("native")
    assert (backend.dtype, backend.quantize, backend.invariant) == ("float32", "none", True)
    backend.close()


@needs_kernels
def test_both_back_ends_are_one_model(tiny_llama_dir: Path):
    tokens = list(range(100, 140))
    states = []
    for name in ("native", "torch"):
        backend = load_backend(BackendSpec(model=tiny_llama_dir, backend=name, dtype="float32"))
        states.append(backend.logits(backend.forward([Segment(1, 0, tokens, 40)])).clone())
        backend.close()
    torch.testing.assert_close(*states, atol=1e-4, rtol=1e-4)


def test_torch_where_no_kernels_were_built(tiny_gpt2_dir: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(library.OVERRIDE, "off")
    backend = load_backend(BackendSpec(model=tiny_gpt2_dir, device="cpu"))
    assert isinstance(backend, TorchBackend)
    with pytest.raises(ConfigError, match=r"backend: the native kernels weren't built.* backend torch"):
        load_backend(BackendSpec(model=tiny_gpt2_dir, device="cpu", backend="native"))


@needs_kernels
def test_torch_for_a_model_that_is_too_wide_for_the_kernels(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    save_model(random_model(tiny_config("gpt2", d_ff=1 << 17, n_layer=1)), tmp_path)
    threads = torch.get_num_threads()
    try:
        backend = load_backend(BackendSpec(model=tmp_path, device="cpu", max_slots=1))
    finally:
        torch.set_num_threads(threads)
    assert isinstance(backend, TorchBackend)
    assert [record.getMessage() for record in caplog.records] == [
        "the native kernels can't run this model (a layer has more inputs than the kernels can sum: 131072, not at most 65536):"
        " PyTorch computes it"
    ]
    with pytest.raises(
        ConfigError, match=r"backend: the native kernels can't run this model \(a layer has .* backend torch"
    ):
        load_backend(BackendSpec(model=tmp_path, device="cpu", backend="native"))


def test_bfloat16_by_itself_only_for_16_bit_checkpoints_on_kernels_that_multiply_it(
    half_dir: Path, tiny_llama_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    cpu = torch.device("cpu")
    assert stored_dtypes(half_dir) == {"BF16"}
    assert stored_dtypes(tiny_llama_dir) == {"F32"}
    for hardware in (False, True):
        monkeypatch.setattr(module, "_native_bfloat16", lambda hardware=hardware: hardware)
        wanted = "bfloat16" if hardware else "float32"
        assert module.choose_dtype("auto", cpu, half_dir, native=True) == wanted
        assert module.choose_dtype("auto", cpu, tiny_llama_dir, native=True) == "float32"
        assert module.choose_dtype("auto", cpu, half_dir, native=False) == "float32"
        assert module.choose_dtype("bfloat16", cpu, tiny_llama_dir, native=False) == "bfloat16"
    assert module.choose_dtype("auto", torch.device("cuda"), tiny_llama_dir, native=False) == "bfloat16"


@needs_kernels
def test_the_kernels_say_themselves_whether_they_multiply_bfloat16(monkeypatch: pytest.MonkeyPatch):
    for isa in library.instruction_sets():
        monkeypatch.setenv(library.OVERRIDE, isa)
        assert module._native_bfloat16() is (isa == "avx512")


def test_slots_are_what_a_gibibyte_holds_within_bounds():
    config = tiny_config("gpt2", n_layer=12, n_head=12, n_kv_head=12, head_dim=64, d_model=768, context_length=1024)
    assert choose_slots(config, None, 4, None) == (14, 1024)  # 72 MiB each
    assert choose_slots(config, None, 2, None) == (28, 1024)
    assert choose_slots(config, 64, 4, None) == (32, 64)
    assert choose_slots(replace(config, context_length=8192), None, 4, None) == (4, 8192)
    assert choose_slots(config, None, 4, 100) == (100, 1024)
    with pytest.raises(ConfigError, match="max_slots: 4294967300 slots are more than there can be"):
        choose_slots(config, None, 4, (1 << 32) + 4)
    with pytest.raises(ConfigError, match="context: 4294967312 tokens are more than a slot can have"):
        choose_slots(replace(config, context_length=(1 << 32) + 16), None, 4, 1)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "dtype": ({"dtype": "float16"}, "dtype must be one of auto, float32, bfloat16, not 'float16'"),
    "quantize": ({"quantize": "int2"}, "quantize must be one of auto, none, int8, int4, not 'int2'"),
    "device": ({"device": "tpu"}, "device must be one of auto, cpu, cuda, not 'tpu'"),
    "backend": ({"backend": "jax"}, "backend must be one of auto, native, torch, not 'jax'"),
    "threads": ({"threads": 0}, "threads must be at least 1, not 0"),
    "context": ({"context": 129}, "context must be from 1 to the model's 128, not 129"),
    "slots": ({"max_slots": 0}, "max_slots must be at least 1, not 0"),
    "memory": ({"max_slots": 10**12, "backend": "torch"}, "max_slots: 1000000000000 slots .* lower max_slots"),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_a_setting_that_cant_be_had_is_named(name: str, tiny_llama_dir: Path):
    fields, message = REFUSED[name]
    with pytest.raises(ConfigError, match=message):
        load_backend(BackendSpec(model=tiny_llama_dir, **fields))


def test_a_missing_device_and_a_missing_model_are_named(
    tiny_llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_backend(BackendSpec(model=tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="device: there is no CUDA device"):
        load_backend(BackendSpec(model=tiny_llama_dir, device="cuda"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ConfigError, match="backend: the native kernels run on a processor"):
        load_backend(BackendSpec(model=tiny_llama_dir, device="cuda", backend="native"))


@pytest.fixture
def _threads_as_they_were() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("_threads_as_they_were")
def test_the_last_processor_is_left_to_others_where_it_is_worth_little(tiny_llama_dir: Path) -> None:
    for threads, spare, expected in ((3, 0, 3), (3, 1, 2), (1, 1, 1)):
        backend = load_backend(
            BackendSpec(model=tiny_llama_dir, device="cpu", threads=threads, spare=spare, max_slots=1)
        )
        assert backend.threads == expected
        backend.close()


@needs_kernels
@pytest.mark.usefixtures("_threads_as_they_were")
def test_kernels_of_a_large_model_take_every_processor(monkeypatch: pytest.MonkeyPatch, tiny_llama_dir: Path) -> None:
    monkeypatch.setattr("model.backend._LARGE", 1)
    for choice, expected in (("native", 3), ("torch", 2)):
        spec = BackendSpec(model=tiny_llama_dir, device="cpu", backend=choice, threads=3, spare=1, max_slots=1)
        backend = load_backend(spec)
        assert backend.threads == expected
        backend.close()
