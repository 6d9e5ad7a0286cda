"""How well a model predicts a run of tokens.

Convention: the split is one stream, documents end to end behind their end-of-text tokens; it is cut into windows of the model's
context that overlap by half, and each token counts once, in the first window that has it (so all but the first window's tokens
are predicted from at least half a context). End-of-text tokens are predicted too; bits per byte divide by the text's bytes.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from model.gpt import GPT


@dataclass(frozen=True)
class Score:
    """`nats`: the sum over `tokens` predicted tokens."""

    nats: float
    tokens: int

    @property
    def loss(self) -> float:
        """Nats a token."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """Token perplexity: e to the loss."""
        return math.exp(self.loss)

    def bits_per_byte(self, n_bytes: int) -> float:
        """Bits a byte of the text that the tokens spell."""
        return self.nats / math.log(2) / n_bytes


@torch.inference_mode()
def score_stream(
    model: GPT, tokens: np.ndarray, *, stride: int | None = None, rows: int = 8, bf16: bool = False
) -> Score:
    """Score `tokens` [n] under `model`; `stride` defaults to half the context (equal to the context: no overlap, cheaper)."""
    context = model.config.context_length
    stride = context // 2 if stride is None else stride
    device = model.token_embedding.weight.device
    was_training = model.training
    model.eval()
    starts = list(range(0, max(1, len(tokens) - 1 - (context - stride)), stride))
    nats, counted = 0.0, 0
    for i in range(0, len(starts), rows):
        windows = [tokens[start : start + context + 1].astype(np.int64) for start in starts[i : i + rows]]
        for group in _same_length(windows):
            block = torch.from_numpy(np.stack(group)).to(device)  # [rows, context + 1]
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                logits = model(block[:, :-1])
            losses = F.cross_entropy(logits.flatten(0, 1).float(), block[:, 1:].flatten(), reduction="none")
            for loss in losses.view(len(group), -1):
                fresh = (
                    loss if counted == 0 else loss[context - stride :]
                )  # the overlap was counted in the window before
                nats += float(fresh.double().sum())
                counted += len(fresh)
    model.train(was_training)
    return Score(nats, counted)


def _same_length(windows: list[np.ndarray]) -> list[list[np.ndarray]]:
    """Windows that can be one batch; only the stream's last can be shorter than the rest."""
    full = [w for w in windows if len(w) == len(windows[0])]
    rest = [w for w in windows if len(w) != len(windows[0])]
    return [full, rest] if rest else [full]
