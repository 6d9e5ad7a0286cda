"""The log-probabilities of answers under a model, and those under the model that preference tuning started from: taken once, and
kept in the run's directory, so that a resumed run goes on with exactly these."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from tqdm import tqdm

from model.attention import Attention
from model.checkpoint import write_tensors
from model.gpt import GPT
from model.lora import LowRank
from training.data.pairs import Pair, collate_pairs
from training.evaluate.forward import length_batches
from training.objectives import LanguageModelLoss, answer_logprobs

_LOGITS = 1 << 26  # held at a time when answers are scored: 256 MB in float32


@dataclass(frozen=True)
class Reference:
    """Log-probabilities (nats) of the chosen and the rejected answers of the training and the validation pairs, [n, 2] float32;
    computed in float32, whatever the run's precision: what is compared with them differs by little at first."""

    train: np.ndarray
    validation: np.ndarray

    @classmethod
    def unknown(cls, n_train: int, n_validation: int) -> "Reference":
        """Zeros: enough to plan a run with, and wrong to train on."""
        return cls(np.zeros((n_train, 2), np.float32), np.zeros((n_validation, 2), np.float32))

    @classmethod
    def of(cls, model: GPT, train: Sequence[Pair], validation: Sequence[Pair]) -> "Reference":
        """Under the model as it is."""
        return cls(pair_logprobs(model, train, progress=True), pair_logprobs(model, validation))

    @classmethod
    def load(cls, path: Path, key: str) -> "Reference | None":
        """What `save` wrote with this key; None when it isn't there, is damaged, or belongs to another run."""
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                if metadata.get("key") != key:
                    return None
                reference = cls(file.get_tensor("train"), file.get_tensor("validation"))
        except (OSError, SafetensorError):
            return None
        return reference if metadata.get("sha256") == reference.sha256() else None

    def save(self, path: Path, key: str) -> None:
        """Write it whole or not at all. `key`: what it depends on, hashed. CheckpointError when the disk doesn't take it."""
        tensors = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in asdict(self).items()}
        write_tensors(path, tensors, {"key": key, "sha256": self.sha256()})

    def sha256(self) -> str:
        """A digest of all numbers, in their order."""
        return hashlib.sha256(self.train.tobytes() + self.validation.tobytes()).hexdigest()


@torch.no_grad()
def pair_logprobs(model: GPT, pairs: Sequence[Pair], *, progress: bool = False) -> np.ndarray:
    """The log-probability (nats) of each pair's chosen and rejected answer, their ends too, [n, 2] float32, computed in float32."""
    was_training = model.training
    objective = LanguageModelLoss(model, bf16=False).eval()
    device = model.token_embedding.weight.device
    found = np.zeros((len(pairs), 2), np.float32)
    budget = _LOGITS // (2 * model.config.vocab_size)
    with tqdm(total=len(pairs), desc="reference", unit=" pairs", disable=None if progress else True) as bar:
        for chosen in length_batches([pair.positions for pair in pairs], budget):
            batch = collate_pairs([pairs[i] for i in chosen], found[chosen]).to(device)
            for side, (tokens, targets) in enumerate(
                ((batch.chosen_tokens, batch.chosen_targets), (batch.rejected_tokens, batch.rejected_targets))
            ):
                found[chosen, side] = answer_logprobs(objective, tokens, targets).float().cpu().numpy()
            bar.update(len(chosen))
    model.train(was_training)
    return found


def margins(after: np.ndarray, before: np.ndarray) -> np.ndarray:
    """How much more a model prefers the chosen answers than the one before it, [n] float64 (nats); both [n, 2]."""
    change = after.astype(np.float64) - before.astype(np.float64)
    return change[:, 0] - change[:, 1]


def without_dropout(model: GPT) -> None:
    """Turn the base's own dropout off: what tuning compares with was computed without it. Low-rank pairs keep theirs."""
    for module in model.modules():
        if isinstance(module, Attention):
            module.attention_dropout = 0.0
        if not isinstance(module, LowRank):
            for child in module.children():
                if isinstance(child, nn.Dropout):
                    child.p = 0.0
