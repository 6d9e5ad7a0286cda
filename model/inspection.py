"""A look inside: what attention takes from where, and what the model would say next after each layer (the logit lens)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.attention import Attention
from model.gpt import GPT, Block


@dataclass(frozen=True)
class Inspection:
    """A text of T tokens in a model of L layers with H heads."""

    attention: list[Tensor]  # for each layer asked for [H, T, T] float32: rows are queries, each sums to 1
    top_ids: Tensor  # [L + 1, T, k] int64: likeliest next tokens after the embedding and after each layer, best first
    top_probabilities: Tensor  # [L + 1, T, k] float32


@torch.no_grad()
def inspect_text(model: GPT, tokens: Sequence[int], layers: Sequence[int] | None = None, *, top: int = 5) -> Inspection:
    """Look at a text's token ids, at least one. `layers`: whose attention is wanted, from 0; None: all of them.

    The lens puts the final norm and the head on each hidden state (nostalgebraist, 2020, "interpreting GPT: the logit lens"); the
    last is the model's own next-token distribution. ContextLengthError when the text doesn't fit; ConfigError on a classifier's
    trunk.
    """
    hidden, rope = _hidden_states(model, torch.tensor([list(tokens)]))
    wanted = range(len(model.blocks)) if layers is None else layers
    attention = []
    for layer in wanted:
        block = model.blocks[layer]
        assert isinstance(block, Block)
        assert isinstance(block.attention, Attention)
        attention.append(block.attention.weights(block.attention_norm(hidden[layer]), rope)[0])
    # Layer by layer: all logits at once could be a gigabyte.
    best = [model.logits(model.norm(x))[0].float().softmax(-1).topk(min(top, model.config.vocab_size)) for x in hidden]
    return Inspection(attention, torch.stack([b.indices for b in best]), torch.stack([b.values for b in best]))


def _hidden_states(model: GPT, tokens: Tensor) -> tuple[list[Tensor], tuple[Tensor, Tensor] | None]:
    """The residual stream [1, T, D] before each layer and behind the last, and the rotary positions that the layers get."""
    entered: list[tuple] = []
    hooks = [
        module.register_forward_pre_hook(lambda _, args: entered.append(args)) for module in (*model.blocks, model.norm)
    ]
    try:
        model.hidden_states(tokens)
    finally:
        for hook in hooks:
            hook.remove()
    return [args[0] for args in entered], entered[0][1]
