"""What is minimised: modules that hold the model and turn a batch's tensors into the sum of its losses (float32 scalar).

A module, so that one path serves them all: compiled, wrapped for data parallelism, or plain. Each loss is a sum; the loop divides
by the batch's weight.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.gpt import GPT, SequenceClassifier
from training.data.batch import IGNORE


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
        return -token_logprobs(self, tokens, targets, documents).sum()


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
        answers = token_logprobs(self, tokens, targets, None).sum(1)  # [2B]
        chosen, rejected = answers.chunk(2)
        margin = (chosen - reference_chosen) - (rejected - reference_rejected)
        both = (chosen_targets != IGNORE).any(1) & (rejected_targets != IGNORE).any(1)
        return (-F.logsigmoid(self.beta * margin) * both).sum()


def token_logprobs(objective: Objective, tokens: Tensor, targets: Tensor, documents: Tensor | None) -> Tensor:
    """The log-probability of each target, [B, T] float32 (0 where it is IGNORE), under the objective's language model."""
    model = objective.model
    assert isinstance(model, GPT)
    with objective.autocast(tokens.device):
        logits = model(tokens, documents=documents)
    losses = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORE, reduction="none")
    return -losses.view(targets.shape)
