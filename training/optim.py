"""Parameter groups, optimisers and the learning-rate schedule."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from model.gpt import GPT

OptimizerName = Literal["adamw", "muon"]


def make_optimizers(
    model: GPT, name: OptimizerName, *, lr: float, matrix_lr: float, weight_decay: float, beta2: float
) -> list[torch.optim.Optimizer]:
    """AdamW for all parameters, or Muon for the blocks' matrices and AdamW for the rest (Jordan et al., 2024).

    Decay is for matrices alone: gains, biases and embeddings get none. Each group remembers its peak rate as `peak_lr`.
    """
    matrices = [p for p in model.blocks.parameters() if p.ndim == 2]
    inside = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in inside]
    if name == "muon":
        optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(matrices, lr=matrix_lr, weight_decay=weight_decay, momentum=0.95, nesterov=True),
            torch.optim.AdamW(others, lr=lr, betas=(0.9, beta2), weight_decay=0.0, fused=True),
        ]
    else:
        groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
        optimizers = [torch.optim.AdamW(groups, lr=lr, betas=(0.9, beta2), fused=True)]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


@dataclass(frozen=True)
class Schedule:
    """Warm-up, stable, decay (Hu et al., 2024): linear up over `warmup` steps, flat, linear down to `floor` of the
    peak over the last `cooldown` of the run. The run's end is a step count, a time, or whichever comes first."""

    warmup: int
    cooldown: float
    floor: float
    max_steps: int | None
    max_seconds: float | None

    def progress(self, step: int, seconds: float) -> float:
        """How much of the run is done, 0 to 1 and beyond."""
        by_step = step / self.max_steps if self.max_steps else 0.0
        by_time = seconds / self.max_seconds if self.max_seconds else 0.0
        return max(by_step, by_time)

    def factor(self, step: int, seconds: float) -> float:
        """The learning rate of update `step` (from 0) as a share of its peak."""
        left = max(0.0, 1.0 - self.progress(step, seconds))
        decay = 1.0 if left >= self.cooldown else self.floor + (1.0 - self.floor) * left / self.cooldown
        return decay * min(1.0, (step + 1) / max(1, self.warmup))


def set_learning_rates(optimizers: list[torch.optim.Optimizer], factor: float) -> None:
    """Give every group `factor` of its peak rate."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that get gradients, each once (tied ones too)."""
    return [p for p in model.parameters() if p.requires_grad]
