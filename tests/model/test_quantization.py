"""Weights of 8 and 4 bits in PyTorch: error bounds, independence of the rows, loading, memory."""

from pathlib import Path

import pytest
import torch
from tiny import random_model, tiny_config
from torch import Tensor

from model.backend import Segment
from model.checkpoint import load_model, save_model
from model.errors import CheckpointError, ConfigError
from model.gpt import GPT, SequenceClassifier
from model.quantization import GROUP, Int4Linear, Int8Linear, QuantizedLinear, TiedEmbedding, load_quantized
from model.torch_backend import TorchBackend

KINDS = {"int8": Int8Linear, "int4": Int4Linear}


def layer(kind: str, n_in: int = 96, n_out: int = 50, integer: bool | None = None) -> tuple[QuantizedLinear, Tensor]:
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(n_out, n_in, generator=generator)
    made = KINDS[kind](weight, torch.randn(n_out, generator=generator))
    if integer is not None:
        made.integer = integer
    return made, weight


def test_8_bit_weights_are_within_half_a_step_of_each_row():
    made, weight = layer("int8")
    steps = weight.abs().amax(1, keepdim=True) / 127
    assert ((made.decode(slice(None)) - weight).abs() <= steps * 0.5001).all()


@pytest.mark.parametrize("n_in", [96, 90, 7])
def test_4_bit_weights_are_within_half_a_step_of_each_group(n_in: int):
    made, weight = layer("int4", n_in)
    padded = torch.nn.functional.pad(weight, (0, -n_in % GROUP)).view(50, -1, GROUP)
    steps = (padded.amax(2) - padded.amin(2)) / 15
    error = torch.nn.functional.pad(made.decode(slice(None)) - weight, (0, -n_in % GROUP)).view(50, -1, GROUP)
    assert (error.abs() <= steps[:, :, None] * 0.52 + 1e-3).all()  # the scales themselves are rounded to 16 bits


def test_4_bits_keep_what_has_16_levels():
    """Weights that were quantised this way before (a Q4_1 file's) come out as they were."""
    codes = torch.randint(0, 16, (8, 4, GROUP), generator=torch.Generator().manual_seed(1))
    codes[:, :, :2] = torch.tensor([0, 15])
    weight = (codes * 0.125 - 0.5).view(8, -1)
    assert torch.equal(Int4Linear(weight, None).decode(slice(None)), weight)


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_constant_and_zero_weights_are_kept(kind: str):
    made = KINDS[kind](torch.tensor([[0.0] * 32, [0.5] * 32]), None)
    torch.testing.assert_close(made.decode(slice(None)), torch.tensor([[0.0] * 32, [0.5] * 32]))
    assert torch.equal(made(torch.zeros(3, 32)), torch.zeros(3, 2))


@pytest.mark.parametrize(("n_in", "n_out"), [(96, 50), (13, 3), (8, 8)])
@pytest.mark.parametrize("shape", [(), (1, 5), (40,)])
def test_integer_products_are_those_of_the_decoded_weights(n_in: int, n_out: int, shape: tuple[int, ...]):
    """Inputs in two digits cost no accuracy that counts, not even beside one that is a thousand times as large."""
    made, _ = layer("int8", n_in, n_out, integer=True)
    x = torch.randn(*shape, n_in, generator=torch.Generator().manual_seed(4))
    x[..., 0] *= 1000
    wanted = x @ made.decode(slice(None)).T + made.bias
    found = made(x)
    assert found.shape == (*shape, n_out)
    assert (found - wanted).norm() / wanted.norm() < 1e-3


def test_a_rows_8_bit_product_is_the_same_bits_in_any_company():
    made, _ = layer("int8", 256, 300, integer=True)
    x = torch.randn(64, 256, generator=torch.Generator().manual_seed(5))
    together = made(x)
    for begin, end in ((0, 1), (3, 5), (7, 40), (63, 64)):
        assert torch.equal(made(x[begin:end]), together[begin:end])


@pytest.mark.parametrize("kind", ["int8", "int4"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_decoded_products_in_blocks_keep_the_inputs_dtype(
    kind: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("model.quantization.DECODED", 96 * 7)  # blocks of seven outputs
    made, _ = layer(kind, integer=False)
    made = made.to(dtype) if dtype == torch.float32 else made
    made.bias = torch.nn.Parameter(made.bias.to(dtype), requires_grad=False)
    x = torch.randn(2, 3, 96, generator=torch.Generator().manual_seed(4)).to(dtype)
    found = made(x)
    assert (found.dtype, found.shape) == (dtype, (2, 3, 50))
    wanted = x.float() @ made.decode(slice(None)).T + made.bias.float()
    assert (found.float() - wanted).norm() / wanted.norm() < (1e-6 if dtype == torch.float32 else 1e-2)


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize(("quantize", "bound"), [("int8", 0.02), ("int4", 0.25)])
def test_a_quantised_model_is_near_the_float_one(architecture: str, quantize: str, bound: float, tmp_path: Path):
    save_model(random_model(tiny_config(architecture, tie_embeddings=architecture == "gpt2")), tmp_path)
    plain = load_model(tmp_path)
    assert isinstance(plain, GPT)
    backend = TorchBackend(load_quantized(tmp_path, quantize), n_slots=1, quantize=quantize, dtype=torch.float32)
    tokens = list(range(1000, 1060))
    found = backend.logits(backend.forward([Segment(0, 0, tokens, 60)]))
    wanted = plain(torch.tensor([tokens]))[0]
    error = (found - wanted).norm() / wanted.norm()
    assert 1e-5 < error < bound  # not zero either: then nothing would have been quantised


def test_what_is_quantised_and_what_isnt(tiny_gpt2_dir: Path, tiny_llama_dir: Path):
    model = load_quantized(tiny_gpt2_dir, "int4", dtype=torch.bfloat16)
    assert isinstance(model, GPT)
    assert all(isinstance(block.get_submodule(name), Int4Linear)
               for block in model.blocks for name in ("attention.qkv", "attention.out", "mlp.up", "mlp.down"))  # fmt: skip
    assert isinstance(model.head, Int8Linear)
    assert isinstance(model.token_embedding, TiedEmbedding)
    assert model.blocks[0].get_submodule("mlp_norm").weight.dtype == torch.float32
    assert model.position_embedding is not None
    assert model.position_embedding.weight.dtype == torch.bfloat16
    assert model.blocks[0].get_submodule("attention.qkv").bias.dtype == torch.bfloat16
    rows = model.token_embedding(torch.tensor([[5, 50256]]))
    assert torch.equal(rows[0], model.head.decode(torch.tensor([5, 50256])).bfloat16())
    assert isinstance(load_quantized(tiny_llama_dir, "none"), GPT)


def test_no_second_copy_of_the_weights_stays(tiny_gpt2_dir: Path):
    """The head is by far the largest: in 8 bits, and the embedding reads it."""
    sizes = {}
    for quantize in ("none", "int8", "int4"):
        model = load_quantized(tiny_gpt2_dir, quantize)
        tensors = {t.data_ptr(): t.nbytes for t in [*model.parameters(), *model.buffers()]}
        sizes[quantize] = sum(tensors.values())
    assert sizes["int8"] < 0.3 * sizes["none"]
    assert sizes["int4"] < 0.3 * sizes["none"]


def test_a_classifiers_head_is_left_alone(tmp_path: Path):
    config = tiny_config("llama", labels=("a", "b"))
    model = random_model(config)
    assert isinstance(model, SequenceClassifier)
    save_model(model, tmp_path)
    loaded = load_quantized(tmp_path, "int8")
    assert isinstance(loaded, SequenceClassifier)
    assert torch.equal(loaded.score.weight, model.score.weight)
    backend = TorchBackend(loaded, n_slots=1, quantize="int8", dtype=torch.float32)
    assert backend.score_head is not None
    scores = backend.forward([Segment(0, 0, [4, 8, 15])]) @ backend.score_head.T
    wanted = model(torch.tensor([[4, 8, 15]]), torch.tensor([3]))
    assert (scores - wanted).norm() / wanted.norm() < 0.05


def test_unknown_names_and_damaged_weights_are_refused(tiny_gpt2_dir: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="quantize must be one of none, int8, int4, not 'int3'"):
        load_quantized(tiny_gpt2_dir, "int3")
    (tmp_path / "config.json").write_bytes((tiny_gpt2_dir / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes((tiny_gpt2_dir / "model.safetensors").read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load_quantized(tmp_path, "int8")
