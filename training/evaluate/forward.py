"""One forward pass for many sequences, and the head only where a prediction is read."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.gpt import GPT

_ROWS = 256  # rows whose logits exist at a time: enough for the product, few enough for the processor's caches

Tokens = Sequence[int] | np.ndarray


@dataclass(frozen=True)
class Scored:
    """A continuation's tokens under the model: `logprobs` [n] float64 (nats), `greedy` [n] bool: whether each token was the
    likeliest, given those before it."""

    logprobs: np.ndarray
    greedy: np.ndarray

    @property
    def total(self) -> float:
        """The log-probability of the whole continuation."""
        return float(self.logprobs.sum())

    @property
    def exact(self) -> bool:
        """Whether greedy decoding would have written it."""
        return bool(self.greedy.all())


class Forward:
    """A language model as the measures use it. `bf16`: products in bfloat16, weights and log-probabilities in float32."""

    def __init__(self, model: GPT, *, bf16: bool = False) -> None:
        self.model = model
        self.device = model.token_embedding.weight.device
        self._bf16 = bf16

    def hidden(self, tokens: Tensor, **cached: object) -> Tensor:
        """The final hidden states [B, T, D] of tokens [B, T]; keyword arguments as for GPT.hidden_states."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16):
            return self.model.hidden_states(tokens, **cached)  # type: ignore[arg-type]

    def read(self, hidden: Tensor, targets: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """See read_logits."""
        return read_logits(self.logits, hidden, targets)

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [N, D] -> [N, V] float32."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16):
            return self.model.logits(hidden).float()

    def pad(self, rows: Sequence[Tokens]) -> Tensor:
        """Rows of different lengths -> [B, T] int64, zeros on the right: the model is causal, so they change nothing before
        them."""
        block = np.zeros((len(rows), max(map(len, rows))), np.int64)
        for line, row in zip(block, rows, strict=True):
            line[: len(row)] = row
        return torch.from_numpy(block).to(self.device)

    def index(self, values: Sequence[int] | np.ndarray) -> Tensor:
        """[N] int64 on the model's device."""
        return torch.from_numpy(np.asarray(values, np.int64)).to(self.device)


def read_logits(
    logits_of: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """hidden [N, D], targets [N] int64 -> the targets' log-probabilities [N] float64, and whether each is the likeliest [N] bool.
    `logits_of`: [N, D] -> [N, V] float32. The logits of a few rows exist at a time."""
    logprobs, greedy = [], []
    for start in range(0, len(targets), _ROWS):
        wanted = targets[start : start + _ROWS]
        logits = logits_of(hidden[start : start + _ROWS])
        logprobs.append(logits.gather(1, wanted[:, None])[:, 0] - logits.logsumexp(1))
        greedy.append(logits.argmax(1) == wanted)
    return torch.cat(logprobs).double().cpu().numpy(), torch.cat(greedy).cpu().numpy()


def length_batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices of `lengths` in batches of about one length, the longest first, so that rows x longest <= `budget` (or one row)."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > budget:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
