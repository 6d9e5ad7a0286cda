"""What training a model costs: parameters, FLOPs, memory. Counted on the model itself, so that frozen weights, low-rank pairs
and either head come out right.

Convention of FLOPs (that of Kaplan et al., 2020, and Chowdhery et al., 2022, appendix B): a multiply-add is two; matrix
products alone count; forward costs 2 per weight and token, backward 2 for the weight's gradient and 2 for the input's. The
embedding is a look-up and costs nothing; a tied head costs like any other. Attention costs 12 x layers x (heads x head size) x
context per token, of which causal attention needs half, and half is counted, as if every row were one document. What
checkpointing computes a second time is not counted: MFU is about the model's arithmetic, whatever way it is done.
"""

from dataclasses import dataclass

import torch
from torch import nn

from model.config import ModelConfig
from model.gpt import GPT, Block, SequenceClassifier
from model.lora import LowRank
from training.optim import OptimizerName


@dataclass(frozen=True)
class ParameterCount:
    """`embedding`: of tokens and positions, the head's too where it is tied."""

    total: int
    embedding: int
    trainable: int


def count_parameters(model: nn.Module) -> ParameterCount:
    """A model's parameters, each counted once."""
    every = list(model.parameters())
    tables = {id(p): p for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    return ParameterCount(
        total=sum(p.numel() for p in every),
        embedding=sum(p.numel() for p in tables.values()),
        trainable=sum(p.numel() for p in every if p.requires_grad),
    )


def training_flops(model: GPT | SequenceClassifier, length: int) -> float:
    """FLOPs to train on one token of a row of `length` tokens: forward, and backward as far as `requires_grad` asks for it. A
    classifier's head is computed at one token of the row."""
    trunk = model.trunk if isinstance(model, SequenceClassifier) else model
    tables = [trunk.token_embedding, *([trunk.position_embedding] if trunk.position_embedding is not None else [])]
    reached = any(_trained(table) for table in tables)  # something so far is trained: gradients must come back to here
    total = 0.0
    for block in trunk.blocks:
        assert isinstance(block, Block)
        attention = block.attention
        reached |= _trained(block.attention_norm)
        total += _product(attention.qkv, reached)
        reached |= _trained(attention.qkv)
        scores_and_values = 4 * attention.n_head * attention.head_dim * length / 2  # half: causal
        total += scores_and_values * (3 if reached else 1)
        total += _product(attention.out, reached)
        reached |= _trained(attention.out) or _trained(block.mlp_norm)
        inner = [layer for name, layer in block.mlp.named_children() if name != "down" and isinstance(layer, nn.Linear)]
        total += sum(_product(layer, reached) for layer in inner)
        reached |= any(_trained(layer) for layer in inner)
        total += _product(block.mlp.get_submodule("down"), reached)
        reached |= _trained(block.mlp)
    reached |= _trained(trunk.norm)
    if isinstance(model, SequenceClassifier):
        return total + _product(model.score, reached) / length
    assert trunk.head is not None
    return total + _product(trunk.head, reached)


def _product(layer: nn.Module, reached: bool) -> float:
    """FLOPs per token of a linear layer with its low-rank pairs: forward, for the weights' gradients where they are trained,
    for the input's where something before is."""
    weight = layer.weight
    assert isinstance(weight, torch.Tensor)
    total = 2 * weight.numel() * (1 + weight.requires_grad + reached)
    for pair in layer.modules():
        if isinstance(pair, LowRank):
            total += 2 * pair.a.numel() * (1 + pair.a.requires_grad + reached)
            total += 2 * pair.b.numel() * (1 + pair.b.requires_grad + (reached or pair.a.requires_grad))
    return total


def _trained(module: nn.Module) -> bool:
    return any(p.requires_grad for p in module.parameters())


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that training holds; an estimate of what is large, for an uncompiled step. `activations`: what a
    micro-batch keeps for the backward pass."""

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations


def training_memory(
    model: GPT | SequenceClassifier,
    *,
    tokens: int,
    bf16: bool,
    checkpointing: bool,
    optimizer: OptimizerName,
) -> MemoryEstimate:
    """The memory to train `model` on one device with micro-batches of `tokens` tokens, padding included."""
    trunk = model.trunk if isinstance(model, SequenceClassifier) else model
    count = count_parameters(model)
    matrices = [p for p in trunk.blocks.parameters() if p.ndim == 2]
    casts = 2 * sum(p.numel() for p in matrices) if bf16 else 0  # autocast keeps a copy of each weight for the step
    return MemoryEstimate(
        weights=4 * count.total + casts,
        gradients=4 * count.trainable,
        optimizer=optimizer_bytes(model, optimizer),
        activations=tokens * _activation_bytes(model.config, bf16=bf16, checkpointing=checkpointing),
    )


def optimizer_bytes(model: GPT | SequenceClassifier, optimizer: OptimizerName) -> int:
    """What the optimiser keeps, in float32: AdamW two moments of each trained parameter, Muon one of each of the blocks'
    matrices."""
    trunk = model.trunk if isinstance(model, SequenceClassifier) else model
    matrices = sum(p.numel() for p in trunk.blocks.parameters() if p.ndim == 2 and p.requires_grad)
    return 8 * count_parameters(model).trainable - (4 * matrices if optimizer == "muon" else 0)


def _activation_bytes(config: ModelConfig, *, bf16: bool, checkpointing: bool) -> int:
    """Bytes a token that the backward pass needs: what products and norms read, in their dtype. Attention keeps no scores."""
    d, f, width = config.d_model, config.d_ff, 2 if bf16 else 4
    heads, keys = config.n_head * config.head_dim, config.n_kv_head * config.head_dim
    norm = (4 if config.architecture == "gpt2" else 8) * d + width * d  # input, (RMSNorm: scaled input,) output
    attention = width * (heads + 2 * keys) + width * heads + 4 * config.n_head  # q, k, v; output; norms of the softmax
    if config.architecture == "gpt2":
        mlp = width * 2 * f  # before and after GELU
    else:
        attention += width * (heads + keys)  # q and k with positions
        mlp = width * 4 * f  # gate before and after SiLU, up, their product
    layer, ends = 2 * norm + attention + mlp, norm + width * d  # the final norm, and the head's gradient
    return ends + (config.n_layer * 4 * d + layer if checkpointing else config.n_layer * layer)
