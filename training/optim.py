"""Parameter groups, optimisers and the learning-rate schedule."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

OptimizerName = Literal["adamw", "muon"]
Shape = Literal["wsd", "cosine"]


def make_optimizers(
    model: nn.Module, name: OptimizerName, *, lr: float, matrix_lr: float, weight_decay: float, beta2: float
) -> list[torch.optim.Optimizer]:
    """AdamW for all trainable parameters, or Muon for the blocks' matrices and AdamW for the rest (Jordan et al., 2024).

    Decay is for matrices alone: gains, biases and embeddings get none. Each group remembers its peak rate as `peak_lr`.
    """
    matrices, others = [], []
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            (matrices if parameter.ndim == 2 and "blocks." in key else others).append(parameter)
    optimizers: list[torch.optim.Optimizer] = []
    if name == "muon":
        if matrices:
            optimizers.append(torch.optim.Muon(matrices, lr=matrix_lr, weight_decay=weight_decay, momentum=0.95))
        if others:
            optimizers.append(torch.optim.AdamW(others, lr=lr, betas=(0.9, beta2), weight_decay=0.0, fused=True))
    else:
        groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
        groups = [group for group in groups if group["params"]]
        optimizers = [torch.optim.AdamW(groups, lr=lr, betas=(0.9, beta2), fused=True)]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


@dataclass(frozen=True)
class Schedule:
    """The learning rate over a run: linear up over `warmup` steps, then by `shape`.

    wsd: flat, then linear down to `floor` of the peak over the last `cooldown` of the run (Hu et al., 2024). cosine: half a
    cosine from the peak to `floor` over the whole run (Loshchilov and Hutter, 2017), the warm-up included. The run's end is a
    step count, a time, or whichever comes first.
    """

    warmup: int
    cooldown: float
    floor: float
    max_steps: int | None
    max_seconds: float | None
    shape: Shape = "wsd"

    def progress(self, step: int, seconds: float) -> float:
        """How much of the run is done, 0 to 1 and beyond."""
        by_step = step / self.max_steps if self.max_steps else 0.0
        by_time = seconds / self.max_seconds if self.max_seconds else 0.0
        return max(by_step, by_time)

    def factor(self, step: int, seconds: float) -> float:
        """The learning rate of update `step` (from 0) as a share of its peak."""
        done = min(1.0, self.progress(step, seconds))
        cosine, linear = 0.5 * (1.0 + math.cos(math.pi * done)), min(1.0, (1.0 - done) / self.cooldown)
        share = cosine if self.shape == "cosine" else linear
        return (self.floor + (1.0 - self.floor) * share) * min(1.0, (step + 1) / max(1, self.warmup))


def set_learning_rates(optimizers: Iterable[torch.optim.Optimizer], factor: float) -> None:
    """Give every group `factor` of its peak rate."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that get gradients, each once (tied ones too)."""
    return [p for p in model.parameters() if p.requires_grad]
