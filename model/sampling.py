"""Logits -> token: penalties, bias, temperature, min-p, top-k, top-p, and a draw from the request's own random stream.

The order is vLLM's: ban, bias, penalise, divide by the temperature, cut with min-p, then top-k, then top-p. B rows, V
= vocabulary. `sample_sorted` is the definition, in few and plain operations over the batch, and what a GPU runs; on a CPU
`sample` does the same row by row, ten times faster and more: with the native kernels where there are any, else in numpy.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from model import sampling_cpu
from model.errors import SamplingError
from model.native import rows as rows_native
from model.sampling_cpu import BANNED
from model.sampling_params import SamplingParams, uniform

# Up to here, and without one, the native kernels need a third of numpy's time; over it numpy is ahead.
_SMALL_TOP_K = 256


@dataclass
class SamplingRow:
    """One sequence's view of the sampler. `output` grows as tokens are taken; its length is the step of the random
    stream."""

    params: SamplingParams
    seed: int
    prompt: Sequence[int]
    output: list[int] = field(default_factory=list)
    end_ids: frozenset[int] = frozenset()  # what ends the sequence: banned until params.min_tokens are out
    _counts: dict[int, int] = field(default_factory=dict, init=False, repr=False, compare=False)
    _counted: int = field(default=0, init=False, repr=False, compare=False)  # tokens of output that _counts covers
    _in_prompt: frozenset[int] | None = field(default=None, init=False, repr=False, compare=False)

    def append(self, token: int) -> None:
        """Take `token` as this row's next one."""
        self.output.append(token)

    @property
    def edited(self) -> bool:
        """Whether anything bans, biases or penalises this row's next token."""
        p = self.params
        penalised = p.repetition_penalty != 1.0 or p.presence_penalty != 0.0 or p.frequency_penalty != 0.0
        return penalised or bool(p.logit_bias) or len(self.output) < p.min_tokens

    def counts(self) -> dict[int, int]:
        """How often each token is in the output. Counts only what is new since the last time."""
        if len(self.output) < self._counted:  # some of it was taken back
            self._counted, self._counts = 0, {}
        for token in self.output[self._counted :]:
            self._counts[token] = self._counts.get(token, 0) + 1
        self._counted = len(self.output)
        return self._counts

    def seen(self) -> frozenset[int]:
        """The tokens of prompt and output."""
        if self._in_prompt is None:
            self._in_prompt = frozenset(self.prompt)
        return self._in_prompt | self.counts().keys()


def sample(logits: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
    """The next token of each row: logits [B, V] -> [B] int64 on the logits' device.

    A row's token depends on its own logits and SamplingRow alone, never on the other rows.
    """
    if logits.device.type != "cpu":
        return sample_sorted(logits, rows)
    table = logits.detach().float().numpy()
    return torch.tensor([sample_row(table[i], row) for i, row in enumerate(rows)], dtype=torch.long)


def sample_row(logits: np.ndarray, row: SamplingRow) -> int:
    """`sample` of a single row [V] float32, in numpy. SamplingError when every token is banned."""
    logits = sampling_cpu.adjust(logits, row)
    if row.edited and logits.max() == BANNED:
        raise SamplingError("min_tokens and bans leave no token to draw", "min_tokens")
    if row.params.greedy:
        return int(logits.argmax())
    p, point = row.params, uniform(row.seed, len(row.output))
    if p.top_k <= _SMALL_TOP_K:
        draws = [rows_native.Draw(p.temperature, p.top_p, p.min_p, p.top_k, point)]
        tokens = rows_native.draw(torch.from_numpy(logits)[None], draws)
        if tokens is not None and tokens[0] >= 0:
            return tokens[0]
    return sampling_cpu.draw(logits, p, point)


def sample_sorted(logits: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
    """`sample` by sorting each row, on any device."""
    logits = adjust(logits.float(), rows)
    greedy = logits.argmax(dim=-1)
    drawn = [i for i, row in enumerate(rows) if not row.params.greedy]
    if not drawn:
        return greedy
    chosen = [rows[i] for i in drawn]
    index = torch.tensor(drawn, device=logits.device)
    greedy[index] = _draw(logits[index], chosen)
    return greedy


def logprobs(logits: Tensor, tokens: Tensor, top: int) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities under the model's own distribution, before any sampling parameter.

    logits [B, V], tokens [B] int64 -> that of each token [B], the `top` likeliest ids [B, top], theirs [B, top];
    float32.
    """
    table = logits.float().log_softmax(dim=-1)
    values, ids = table.topk(top, dim=-1) if top else (table[:, :0], table[:, :0].long())
    return table.gather(1, tokens[:, None])[:, 0], ids, values


def adjust(logits: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
    """Bans, biases and penalties: logits [B, V] float32 -> the same shape; a copy where anything changes."""
    edits = [(i, row) for i, row in enumerate(rows) if row.edited]
    if not edits:
        return logits
    logits = logits.clone()
    for i, row in edits:
        _adjust_row(logits[i], row)
    return logits


def _adjust_row(logits: Tensor, row: SamplingRow) -> None:
    """Edit one row's logits [V] in place."""
    p, size = row.params, len(logits)
    if len(row.output) < p.min_tokens:
        logits[_ids((token for token in row.end_ids if token < size), logits)] = BANNED
    if p.logit_bias:
        ids = [token for token in p.logit_bias if token < size]
        logits[_ids(ids, logits)] += torch.tensor([p.logit_bias[token] for token in ids], device=logits.device)
    if p.repetition_penalty != 1.0:  # Keskar et al., 2019: over prompt and output
        seen = _ids(row.seen(), logits)
        values = logits[seen]
        logits[seen] = torch.where(values > 0, values / p.repetition_penalty, values * p.repetition_penalty)
    if row.output and (p.presence_penalty or p.frequency_penalty):  # OpenAI's: over the output alone
        counts = row.counts()
        weights = torch.tensor(list(counts.values()), dtype=torch.float32, device=logits.device)
        logits[_ids(counts, logits)] -= p.frequency_penalty * weights + p.presence_penalty


def _ids(tokens: Iterable[int], like: Tensor) -> Tensor:
    return torch.tensor(list(tokens), dtype=torch.long, device=like.device)


def _draw(logits: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
    """Tokens [B] drawn from logits [B, V] float32, each row with a temperature above 0."""
    # A temperature next to 0 is as good as greedy, but dividing by it would overflow.
    column = lambda values: torch.tensor(values, dtype=torch.float32, device=logits.device)[:, None]  # noqa: E731
    params = [row.params for row in rows]
    scaled = logits / column([max(p.temperature, 1e-6) for p in params])
    ordered, order = scaled.sort(dim=-1, descending=True, stable=True)  # [B, V]
    weights = (ordered - ordered[:, :1]).double().exp()  # relative to the likeliest; float64 for the sums below
    if any(p.min_p > 0 for p in params):
        weights = weights.where(weights >= column([p.min_p for p in params]), 0.0)
    if any(p.top_k > 0 for p in params):
        rank = torch.arange(weights.shape[1], device=logits.device)
        weights = weights.where(rank < column([p.top_k or weights.shape[1] for p in params]), 0.0)
    if any(p.top_p < 1 for p in params):
        # Keep the fewest tokens that reach top_p: those before which less than top_p has been gathered.
        before = weights.cumsum(dim=-1) - weights
        total = weights.sum(dim=-1, keepdim=True)
        top_p = column([p.top_p for p in params])
        keep = (before < top_p.double() * total) | (top_p >= 1)
        weights = weights.where(keep, 0.0)
    # One uniform number per row through the inverse of the cumulative distribution.
    points = torch.tensor(
        [uniform(row.seed, len(row.output)) for row in rows], dtype=torch.float64, device=logits.device
    )
    cumulative = weights.cumsum(dim=-1)
    picked = torch.searchsorted(cumulative, (points[:, None] * cumulative[:, -1:]).contiguous(), right=True)
    last = (weights > 0).sum(dim=-1, keepdim=True) - 1  # guards the rounding of a point next to 1
    return order.gather(1, picked.minimum(last))[:, 0]
