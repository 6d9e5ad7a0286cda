"""How well a model predicts a run of tokens.

Convention: the split is one stream, documents end to end behind their end-of-text tokens; it is cut into windows of the model's
context that overlap by half, and each token counts once, in the first window that has it (so all but the first window's tokens
are predicted from at least half a context). End-of-text tokens are predicted too; bits per byte divide by the text's bytes.
"""

import math
from dataclasses import dataclass

import numpy as np

from model.errors import ConfigError
from model.gpt import GPT
from training.evaluate.results import exp
from training.evaluate.scoring import Request, Scorer


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
        return exp(self.loss)

    def bits_per_byte(self, n_bytes: int) -> float:
        """Bits a byte of the text that the tokens spell."""
        return self.nats / math.log(2) / n_bytes

    def word_perplexity(self, n_words: int) -> float:
        """e to the nats a word of the text that the tokens spell."""
        return exp(self.nats / n_words)


def score_stream(model: GPT, tokens: np.ndarray, *, stride: int | None = None, bf16: bool = False) -> Score:
    """Score `tokens` [n] under `model`; `stride` defaults to half the context (equal to the context: no overlap, cheaper)."""
    return score_windows(Scorer(model, bf16=bf16, progress=False), tokens, stride=stride)


def score_windows(scorer: Scorer, tokens: np.ndarray, *, stride: int | None = None) -> Score:
    """`score_stream` with a scorer of one's own. ConfigError when `stride` isn't from 1 to the context."""
    context = scorer.model.config.context_length
    stride = max(1, context // 2) if stride is None else stride
    if not 1 <= stride <= context:
        raise ConfigError(f"stride must be from 1 to the model's context of {context}, not {stride}")
    nats, counted = 0.0, 0
    # Windows come in chunks, so that a stream larger than memory can be scored.
    starts = list(range(0, max(1, len(tokens) - 1 - (context - stride)), stride))
    with scorer.bar(len(starts), "perplexity") as bar:
        for i in range(0, len(starts), 256):
            requests = [_window(tokens, start, context, stride) for start in starts[i : i + 256]]
            for scored in scorer.score_on(bar, requests, share=False):
                nats -= scored.total
                counted += len(scored.logprobs)
    return Score(nats, counted)


def score_documents(scorer: Scorer, tokens: np.ndarray, eot: int, *, stride: int | None = None) -> Score:
    """As `score_windows`, but each document of the stream [n] alone, from its `eot` to the next one, which is its last target:
    for a model that was trained on documents that don't see each other. The same tokens are predicted."""
    ends = np.flatnonzero(np.asarray(tokens[1:]) == eot) + 1
    begins = [0, *ends[ends < len(tokens) - 1].tolist()]
    context = scorer.model.config.context_length
    stride = max(1, context // 2) if stride is None else stride
    nats, counted = 0.0, 0
    requests: list[Request] = []
    for i, (begin, end) in enumerate(zip(begins, [*begins[1:], len(tokens) - 1], strict=True)):
        document = tokens[begin : end + 1]
        starts = range(0, max(1, len(document) - 1 - (context - stride)), stride)
        requests += [_window(document, start, context, stride) for start in starts]
        if len(requests) >= 256 or i == len(begins) - 1:
            for scored in scorer.score(requests, share=False, desc="perplexity"):
                nats -= scored.total
                counted += len(scored.logprobs)
            requests = []
    return Score(nats, counted)


def _window(tokens: np.ndarray, start: int, context: int, stride: int) -> Request:
    window = np.asarray(tokens[start : start + context + 1]).astype(np.int64)
    known = 1 if start == 0 else context - stride + 1  # the overlap was counted in the window before
    return Request(window[:known], window[known:])
