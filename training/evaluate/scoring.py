"""Log-probabilities of given continuations under a language model: what every likelihood measure is made of."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from model.backend import Backend
from model.errors import ContextLengthError
from model.gpt import GPT
from model.tokenizer import Tokenizer
from training.evaluate.backend_scoring import score_on_backend
from training.evaluate.forward import Forward, Scored, Tokens, length_batches
from training.evaluate.shared_context import WORTHWHILE, Group, score_groups

BATCH_TOKENS = 4096


@dataclass(frozen=True)
class Request:
    """Score the tokens of `target` after those of `context`; at least one each."""

    context: Tokens
    target: Tokens


def progress_bar(total: int, desc: str, *, shown: bool = True) -> tqdm:
    """A bar of `total` items, for a terminal alone."""
    return tqdm(total=total, desc=desc, unit="", disable=None if shown else True)


class Scorer:
    """Scores requests in batches of about one length. `bf16`: see Forward. `batch_tokens`: tokens computed at a time, padding
    included; it changes speed and memory, not results (beyond rounding). `backend`: what computes in the model's place; of
    `model` the shape alone is used then."""

    def __init__(
        self,
        model: GPT,
        *,
        bf16: bool = False,
        batch_tokens: int = BATCH_TOKENS,
        progress: bool = True,
        backend: Backend | None = None,
    ) -> None:
        self.model, self.bf16, self.batch_tokens, self.backend = model, bf16, batch_tokens, backend
        self._progress = progress
        self._context = model.config.context_length

    def bar(self, total: int, desc: str) -> tqdm:
        """A progress bar of `total` requests, for a terminal alone."""
        return progress_bar(total, desc, shown=self._progress)

    def score(self, requests: Sequence[Request], *, share: bool = True, desc: str = "scoring") -> list[Scored]:
        """The scores of `requests`, in their order.

        A context that doesn't fit with its target loses tokens from its left. With `share`, a context that several requests have
        is computed once. Raises ContextLengthError when a target alone is longer than the model's context.
        """
        with self.bar(len(requests), desc) as bar:
            return self.score_on(bar, requests, share=share)

    @torch.inference_mode()
    def score_on(self, bar: tqdm, requests: Sequence[Request], *, share: bool = True) -> list[Scored]:
        """`score`, its progress on a bar that further requests follow on."""
        fitted = [self._fit(request) for request in requests]
        if self.backend is not None:
            pairs = [(request.context, request.target) for request in fitted]
            return score_on_backend(self.backend, pairs, self.batch_tokens, bar.update, share=share)
        was_training = self.model.training
        self.model.eval()
        forward = Forward(self.model, bf16=self.bf16)
        alone, groups = _sorted_out(fitted) if share else (list(range(len(fitted))), [])
        results: dict[int, Scored] = {}
        if groups:
            packed = [Group(fitted[m[0]].context, [fitted[i].target for i in m]) for m in groups]
            found = score_groups(forward, packed, self.batch_tokens, bar.update)
            for members, scored in zip(groups, found, strict=True):
                results.update(zip(members, scored, strict=True))
        lengths = [len(fitted[i].context) + len(fitted[i].target) - 1 for i in alone]
        for batch in length_batches(lengths, self.batch_tokens):
            chosen = [alone[j] for j in batch]
            results.update(zip(chosen, _score_batch(forward, [fitted[i] for i in chosen]), strict=True))
            bar.update(len(batch))
        self.model.train(was_training)
        return [results[i] for i in range(len(requests))]

    def _fit(self, request: Request) -> Request:
        n_context, n_target = len(request.context), len(request.target)
        if not n_context or not n_target:
            raise ValueError("a request needs at least one token of context and one to score")
        if n_target > self._context:
            raise ContextLengthError(
                f"a continuation of {n_target} tokens can't be scored by a model with a context of {self._context}; shorten it",
                n_target,
                self._context,
            )
        room = self._context + 1 - n_target  # the last token is scored, never fed
        return request if n_context <= room else Request(request.context[-room:], request.target)


def encode_pair(tokenizer: Tokenizer, context: str, continuation: str) -> Request:
    """The request for a text after another, as the lm-eval harness cuts it: both are encoded together, so that the cut does not
    change the tokens, and white space at the context's end counts to the continuation. BOS stands in front where the
    tokenizer wants it; an empty context becomes the token that texts begin with."""
    kept = context.rstrip()
    if not kept:
        return Request([start_token(tokenizer)], tokenizer.encode(context + continuation))
    head = tokenizer.encode(kept)
    whole = tokenizer.encode(context + continuation)
    bos = tokenizer.bos_token_id
    begin = [bos] if tokenizer.add_bos and bos is not None else []
    cut = min(len(head), len(whole) - 1)  # a continuation that merges with the context's end still has its last token
    return Request([*begin, *(head or [start_token(tokenizer)])], whole[cut:])


def start_token(tokenizer: Tokenizer) -> int:
    """The token that a text begins behind: BOS, else the end-of-text token of the text before it, else 0."""
    begin = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    return 0 if begin is None else begin


def rolling_requests(tokens: Tokens, start: int, context: int) -> list[Request]:
    """A text's tokens [n] as requests that score each once: windows of `context` tokens end to end, the first behind `start`.
    The last window is as long as the others, so that its tokens have more before them (the lm-eval harness's convention)."""
    whole = np.concatenate([[start], np.asarray(tokens, np.int64)])
    requests = []
    for done in range(0, len(tokens), context):
        end = min(done + context, len(tokens))
        begin = max(0, end - context)
        requests.append(Request(whole[begin : done + 1], whole[done + 1 : end + 1]))
    return requests


def _sorted_out(requests: Sequence[Request]) -> tuple[list[int], list[list[int]]]:
    """Indices of the requests to score alone, and of those to score together since they have one context."""
    by_context: dict[tuple[int, ...], list[int]] = {}
    for i, request in enumerate(requests):
        by_context.setdefault(tuple(request.context), []).append(i)
    groups = [m for context, m in by_context.items() if len(m) > 1 and len(context) >= WORTHWHILE]
    together = {i for members in groups for i in members}
    return [i for i in range(len(requests)) if i not in together], groups


def _score_batch(forward: Forward, requests: list[Request]) -> list[Scored]:
    tokens = forward.pad([np.concatenate([r.context, r.target[:-1]]) for r in requests])  # [B, T]
    hidden = forward.hidden(tokens)
    sizes = [len(r.target) for r in requests]
    rows = forward.index(np.repeat(np.arange(len(requests)), sizes))
    columns = forward.index(np.concatenate([len(r.context) - 1 + np.arange(len(r.target)) for r in requests]))
    wanted = forward.index(np.concatenate([np.asarray(r.target) for r in requests]))
    logprobs, greedy = forward.read(hidden[rows, columns], wanted)
    cuts = np.cumsum(sizes)[:-1]
    return [Scored(*both) for both in zip(np.split(logprobs, cuts), np.split(greedy, cuts), strict=True)]
