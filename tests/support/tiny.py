"""Models with random weights, small enough to compute in a millisecond."""

from pathlib import Path

import torch

from model.checkpoint import save_model
from model.config import ModelConfig
from model.gpt import GPT, SequenceClassifier
from model.tokenizer import Tokenizer


def tiny_config(architecture: str, **changes: object) -> ModelConfig:
    """A model of GPT-2's vocabulary that computes in a millisecond; llama with grouped queries."""
    gpt2 = architecture == "gpt2"
    fields: dict[str, object] = {
        "architecture": architecture, "vocab_size": 50257, "context_length": 128, "n_layer": 2, "n_head": 4,
        "n_kv_head": 4 if gpt2 else 2, "d_model": 32, "d_ff": 88, "head_dim": 8, "attention_bias": gpt2, "mlp_bias": gpt2,
        "bos_token_id": 50256, "eos_token_ids": (50256,),
    }  # fmt: skip
    return ModelConfig(**(fields | changes))  # type: ignore[arg-type]


def random_model(config: ModelConfig, seed: int = 0) -> GPT | SequenceClassifier:
    """A model whose every parameter is random, gains and biases too, with logits far enough apart to tell bugs by."""
    torch.manual_seed(seed)
    model = SequenceClassifier(config) if config.labels else GPT(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval().requires_grad_(False)


def save_tiny(directory: Path, architecture: str) -> Path:
    save_model(random_model(tiny_config(architecture)), directory)
    Tokenizer.gpt2().save(directory)
    return directory
