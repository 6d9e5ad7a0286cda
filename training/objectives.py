"""What is minimised: modules that hold the model and turn a batch's tensors into the sum of its losses (float32 scalar).

A module, so that one path serves them all: compiled, wrapped for data parallelism, or plain. Each loss is a sum; the loop divides
by the batch's weight.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.gpt import GPT, SequenceClassifier
from training.data.batch import IGNORE
from training.head import summed_cross_entropy


class Objective(nn.Module):
    """A model in training and its loss. `bf16`: products in bfloat16, weights and losses in float32."""

    model: GPT | SequenceClassifier

    def __init__(self, model: GPT | SequenceClassifier, *, bf16: bool) -> None:
        super().__init__()
        self.model, self.bf16 = model, bf16

    def autocast(self, device: torch.device) -> torch.autocast:
        """The context that the model's own arithmetic runs in."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.bf16)


class LanguageModelLoss(Objective):
    """Cross-entropy of the next token (nats), summed over valid targets."""

    model: GPT

    def forward(self, tokens: Tensor, targets: Tensor, documents: Tensor | None = None) -> Tensor:
        """Tensors as in TokenBatch -> the summed loss."""
        with self.autocast(tokens.device):
            hidden = self.model.hidden_states(tokens, documents=documents)
        assert self.model.head is not None
        if self.bf16:
            hidden = hidden.bfloat16()
        return summed_cross_entropy(hidden, self.model.head.weight, targets)


class ClassificationLoss(Objective):
    """Cross-entropy of the label, weighted by class, summed over rows."""

    model: SequenceClassifier

    def forward(self, tokens: Tensor, lengths: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        """Tensors as in LabelBatch -> the summed loss."""
        with self.autocast(tokens.device):
            scores = self.model(tokens, lengths)  # [B, n_labels]
        return (F.cross_entropy(scores.float(), labels, reduction="none") * weights).sum()


class PreferenceLoss(Objective):
    """Direct preference optimisation (Rafailov et al., 2023, equation 7), summed over pairs: -log sigmoid of `beta` times
    how much more than the reference the model prefers the chosen answer."""

    model: GPT

    def __init__(self, model: GPT, *, bf16: bool, beta: float) -> None:
        super().__init__(model, bf16=bf16)
        self.beta = beta

    def forward(
        self,
        chosen_tokens: Tensor,
        chosen_targets: Tensor,
        rejected_tokens: Tensor,
        rejected_targets: Tensor,
        reference_chosen: Tensor,
        reference_rejected: Tensor,
    ) -> Tensor:
        """Tensors as in PreferenceBatch -> the summed loss. A pair without a valid target on either side counts nothing."""
        tokens, targets = (
            torch.cat([chosen_tokens, rejected_tokens]),  # one forward for both
            torch.cat([chosen_targets, rejected_targets]),
        )
        answers = answer_logprobs(self, tokens, targets)  # [2B]
        chosen, rejected = answers.chunk(2)
        margin = (chosen - reference_chosen) - (rejected - reference_rejected)
        both = (chosen_targets != IGNORE).any(1) & (rejected_targets != IGNORE).any(1)
        return (-F.logsigmoid(self.beta * margin) * both).sum()


def answer_logprobs(objective: Objective, tokens: Tensor, targets: Tensor) -> Tensor:
    """The log-probability of each row's valid targets together, [B] float32, under the objective's language model; tokens and
    targets [B, T] int64 as in TokenBatch."""
    model, valid = objective.model, targets != IGNORE
    assert isinstance(model, GPT)
    with objective.autocast(tokens.device):
        logits = model.logits(model.hidden_states(tokens)[valid])  # [n, V]: the prompts' logits are never made
    losses = F.cross_entropy(logits.float(), targets[valid], reduction="none")
    sums = torch.zeros(len(tokens), device=tokens.device)
    return sums.index_add(0, valid.nonzero()[:, 0], -losses)
