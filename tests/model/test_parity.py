"""Our models against transformers, in float32, in both directions, both architectures and heads."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import random_model, tiny_config
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, GPT2Config, LlamaConfig

from model.checkpoint import load_model, save_model
from model.config import ModelConfig, RopeScaling
from model.gpt import GPT, SequenceClassifier

TOLERANCE = 1e-4

SHAPES = {
    "gpt2-small": tiny_config("gpt2", vocab_size=211, bos_token_id=1, eos_token_ids=(1,)),
    "gpt2-wide-mlp": tiny_config("gpt2", vocab_size=97, n_layer=3, d_ff=200, bos_token_id=None, eos_token_ids=()),
    "gpt2-untied": tiny_config("gpt2", vocab_size=97, tie_embeddings=False, bos_token_id=0, eos_token_ids=(0,)),
    "llama-grouped": tiny_config("llama", vocab_size=211, bos_token_id=1, eos_token_ids=(1, 2)),
    "llama-one-kv-head": tiny_config("llama", vocab_size=97, n_kv_head=1, bos_token_id=0, eos_token_ids=(0,)),
    "llama-untied-wide-heads": tiny_config(
        "llama", vocab_size=97, n_kv_head=4, head_dim=16, tie_embeddings=False, bos_token_id=0, eos_token_ids=(0,)
    ),
    "llama-biases": tiny_config(
        "llama", vocab_size=97, attention_bias=True, mlp_bias=True, rope_theta=100_000.0, bos_token_id=0, eos_token_ids=(0,)
    ),
    "llama-3-positions": tiny_config(
        "llama", vocab_size=97, bos_token_id=0, eos_token_ids=(0,),
        rope_scaling=RopeScaling(kind="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=32),
    ),
    "llama-linear-positions": tiny_config(
        "llama", vocab_size=97, bos_token_id=0, eos_token_ids=(0,), rope_scaling=RopeScaling(kind="linear", factor=2.0)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_transformers_computes_our_saved_model(name: str, tmp_path: Path) -> None:
    ours = random_model(SHAPES[name])
    save_model(ours, tmp_path)
    theirs, notes = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not notes["missing_keys"]
    assert not notes["unexpected_keys"]
    tokens = torch.randint(3, SHAPES[name].vocab_size, (3, 100))
    with torch.no_grad():
        expected, got = theirs.eval()(tokens).logits, ours(tokens)
    assert got.abs().max() > 0.5  # logits that differ from one another, or the comparison would say nothing
    assert (got - expected).abs().max() <= TOLERANCE


@pytest.mark.parametrize("name", SHAPES)
def test_we_compute_what_transformers_saved(name: str, tmp_path: Path) -> None:
    first, second = tmp_path / "ours", tmp_path / "theirs"
    save_model(random_model(SHAPES[name], seed=1), first)
    theirs = AutoModelForCausalLM.from_pretrained(first).eval()
    theirs.save_pretrained(second)
    ours = load_model(second)
    assert isinstance(ours, GPT)
    assert ours.config == SHAPES[name]
    tokens = torch.randint(3, SHAPES[name].vocab_size, (2, 64))
    with torch.no_grad():
        assert (ours(tokens) - theirs(tokens).logits).abs().max() <= TOLERANCE


@pytest.mark.parametrize("their_config", [
    GPT2Config(vocab_size=120, n_positions=48, n_embd=48, n_layer=2, n_head=3),
    LlamaConfig(vocab_size=120, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=6,
                num_key_value_heads=3, max_position_embeddings=48, tie_word_embeddings=True),
], ids=["gpt2", "llama"])  # fmt: skip
def test_a_model_born_in_transformers(their_config, tmp_path: Path) -> None:
    torch.manual_seed(2)
    theirs = AutoModelForCausalLM.from_config(their_config).eval()
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    tokens = torch.randint(0, 120, (2, 48))
    with torch.no_grad():
        assert (ours(tokens) - theirs(tokens).logits).abs().max() <= TOLERANCE


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("tied", [True, False])
def test_classifier_both_ways(architecture: str, tied: bool, tmp_path: Path) -> None:
    config = tiny_config(
        architecture, vocab_size=151, labels=("bad", "fine", "good"), pad_token_id=0, bos_token_id=1, eos_token_ids=(1,),
        tie_embeddings=tied,
    )  # fmt: skip
    ours = random_model(config)
    save_model(ours, tmp_path / "ours")
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "ours").eval()
    assert theirs.config.id2label == {0: "bad", 1: "fine", 2: "good"}
    theirs.save_pretrained(tmp_path / "theirs")
    back = load_model(tmp_path / "theirs")
    assert isinstance(ours, SequenceClassifier)
    assert isinstance(back, SequenceClassifier)
    assert back.config.labels == config.labels
    lengths = torch.tensor([40, 17, 1])
    visible = torch.arange(40) < lengths[:, None]
    tokens = torch.randint(2, 151, (3, 40)).where(visible, 0)
    with torch.no_grad():
        expected = theirs(tokens, attention_mask=visible.long()).logits
        assert (ours(tokens, lengths) - expected).abs().max() <= TOLERANCE
        assert (back(tokens, lengths) - expected).abs().max() <= TOLERANCE


def test_openai_names_without_the_wrappers_prefix(tmp_path: Path) -> None:
    """The published gpt2 file holds the bare trunk, and the causal masks as tensors."""
    from safetensors.torch import load_file, save_file

    ours = random_model(SHAPES["gpt2-small"])
    save_model(ours, tmp_path)
    tensors = {k.removeprefix("transformer."): v for k, v in load_file(tmp_path / "model.safetensors").items()}
    tensors["h.0.attn.bias"] = torch.ones(1, 1, 128, 128)
    save_file(tensors, tmp_path / "model.safetensors")
    tokens = torch.randint(3, 211, (1, 20))
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path)(tokens), ours(tokens))


def test_shards_and_dtypes(tmp_path: Path) -> None:
    ours = random_model(SHAPES["llama-grouped"])
    save_model(ours, tmp_path, max_shard_bytes=20_000)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    tokens = torch.randint(3, 211, (1, 20))
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path)(tokens), ours(tokens))
        assert (theirs(tokens).logits - ours(tokens)).abs().max() <= TOLERANCE
    save_model(ours, tmp_path / "half", dtype=torch.bfloat16)
    half = load_model(tmp_path / "half", dtype=torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    assert (tmp_path / "half" / "model.safetensors").stat().st_size < 0.6 * sum(
        p.stat().st_size for p in tmp_path.glob("model-*.safetensors")
    )


@pytest.mark.parametrize("name", ["gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "distilgpt2", "smollm2-135m"])
def test_presets_have_the_published_sizes(name: str) -> None:
    from model.config import preset

    published = {
        "gpt2": 124_439_808, "gpt2-medium": 354_823_168, "gpt2-large": 774_030_080, "gpt2-xl": 1_557_611_200,
        "distilgpt2": 81_912_576, "smollm2-135m": 134_515_008,
    }  # fmt: skip
    with torch.device("meta"):
        model = GPT(preset(name))
    assert sum(p.numel() for p in model.parameters()) == published[name]


def test_config_round_trip_keeps_every_field() -> None:
    from model.architectures import config_from_hf, config_to_hf

    for config in SHAPES.values():
        labelled = replace(config, labels=("a", "b"), initializer_range=0.05, norm_eps=3e-6)
        for each in (config, labelled):
            assert isinstance(each, ModelConfig)
            assert config_from_hf(config_to_hf(each)) == each
