"""The language-model head and its cross-entropy in one, a few hundred rows at a time.

Logits are the largest tensor of a training step (rows x vocabulary, in float32, and again for their gradient). Here a chunk's
logits live only until its gradient is taken, which is at once: the loss is a sum, so each row's gradient is known before the
others' losses are (Hsu et al., 2024, "Liger Kernel", and Wijmans et al., 2024, do the same on a GPU).
"""

from typing import Any

import torch
from torch import Tensor

from training.data.batch import IGNORE

_CHUNK_ELEMENTS = {
    "cpu": 1 << 21,
    "cuda": 1 << 27,
}  # logits held at a time: near a processor's cache; many products on a GPU
_LEAST_ROWS = 256


def summed_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """The cross-entropy (nats) of `targets` under softmax(hidden @ weight.T), summed over those that aren't IGNORE.

    hidden [..., D] float32 or bfloat16, the dtype of the products; weight [V, D]; targets [...] int64. Returns a float32 scalar
    with gradients for hidden and weight.
    """
    hidden, targets = hidden.flatten(0, -2), targets.flatten()
    if (
        not torch.compiler.is_compiling()
    ):  # a compiled step keeps its shapes; otherwise rows without a target cost nothing
        valid = targets != IGNORE
        if not bool(valid.all()):
            hidden, targets = hidden[valid], targets[valid]
    total: Tensor = _SummedCrossEntropy.apply(hidden, weight, targets)  # type: ignore[assignment]
    return total


class _SummedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        """hidden [n, D], weight [V, D], targets [n] -> the summed loss; the gradients are taken on the way and kept."""
        need_hidden, need_weight, _ = ctx.needs_input_grad
        total = hidden.new_zeros((), dtype=torch.float32)
        d_hidden = torch.empty_like(hidden) if need_hidden else None
        d_weight = torch.zeros_like(weight, dtype=torch.float32) if need_weight else None
        cast = weight.to(hidden.dtype)
        step = max(_LEAST_ROWS, _CHUNK_ELEMENTS.get(hidden.device.type, 1 << 27) // weight.shape[0])
        for start in range(0, len(hidden), step):
            rows, wanted = hidden[start : start + step], targets[start : start + step]
            valid = wanted != IGNORE
            index = torch.where(valid, wanted, 0)[:, None]
            logits = (rows @ cast.t()).float()  # [step, V]
            top = logits.amax(1, keepdim=True)
            shares = (logits - top).exp()  # the softmax but for its sum: one pass over the logits, one exponential each
            norm = shares.sum(1, keepdim=True)
            chosen = logits.gather(1, index) - top
            total = total + ((norm.log() - chosen)[:, 0] * valid).sum()
            # The gradient of the sum with respect to the logits is softmax minus one at the target; times `norm` until the end.
            gradient = shares.to(hidden.dtype).scatter(1, index, (chosen.exp() - norm).to(hidden.dtype))
            scale = (valid[:, None] / norm).to(hidden.dtype)
            if d_hidden is not None:
                d_hidden[start : start + step] = (gradient @ cast) * scale
            if d_weight is not None:
                d_weight += gradient.t() @ (rows * scale)
        ctx.save_for_backward(d_hidden, d_weight)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (scale,) = grads
        d_hidden, d_weight = ctx.saved_tensors
        return (
            None
            if d_hidden is None
            else (d_hidden.float() * scale).to(d_hidden.dtype),  # the scale itself isn't rounded
            None if d_weight is None else d_weight * scale,
            None,
        )
