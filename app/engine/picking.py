"""Logits -> tokens for a whole step: bans, draws, drafts verified, log-probabilities; one row's failure is its own."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from app.engine.grammar import Constraint, GrammarError
from app.engine.messages import TokenLogprobs
from model.sampling import SamplingRow, logprobs, sample


@dataclass(slots=True)
class Ask:
    """What one request wants of its rows of logits: one row, and one for each drafted token."""

    row: SamplingRow
    drafts: Sequence[int] = ()
    tops: int | None = None  # alternatives to report; None: no log-probabilities
    constraint: Constraint | None = None


@dataclass(slots=True)
class Picked:
    """The tokens a request gets: the accepted drafts and the one after them, 1 to 1 + len(drafts)."""

    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] | None = None  # one per token, where asked for


@torch.inference_mode()
def pick(logits: Tensor, asks: Sequence[Ask]) -> list[Picked | Exception]:
    """The next tokens of each ask: logits [sum(1 + len(ask.drafts)), V] float32, not changed; in the asks' order.

    Token by token what `model.sampling.sample` gives, the row's output and the constraint advanced in between. Ends
    after a token of row.end_ids, and when the constraint is finished. row.output is unchanged (the caller appends);
    ask.constraint has advanced by the tokens. Where one ask fails, its exception stands in its place.
    """
    results: list[Picked | Exception] = []
    start = 0
    for ask in asks:
        end = start + 1 + len(ask.drafts)
        try:
            results.append(_pick_one(logits[start:end], ask))
        except Exception as error:
            results.append(error)
        start = end
    return results


def score(logits: Tensor, next_tokens: Sequence[int], top: int) -> list[TokenLogprobs]:
    """Log-probabilities of given tokens: logits [R, V], the token after each row [R], `top` alternatives each."""
    results: list[TokenLogprobs] = []
    for start in range(0, len(next_tokens), 32):
        part = logits[start : start + 32]
        tokens = torch.tensor(next_tokens[start : start + 32], device=logits.device)
        own, ids, values = (piece.tolist() for piece in logprobs(part, tokens, top))
        results += map(TokenLogprobs, own, ids, values)
    return results


def _pick_one(logits: Tensor, ask: Ask) -> Picked:
    picked = Picked()
    row = ask.row
    state = SamplingRow(row.params, row.seed, row.prompt, list(row.output), row.end_ids)
    for at in range(len(logits)):
        now = logits[at].float()
        if not bool(torch.isfinite(now).all()):
            raise FloatingPointError("the model's logits are not finite")
        if ask.constraint is not None:
            now = now.clone()
            ask.constraint.allow(now, row.end_ids)
        token = int(sample(now[None], [state]))
        picked.tokens.append(token)
        if token in row.end_ids:
            break
        if ask.constraint is not None and not ask.constraint.accept(token):
            raise GrammarError("the grammar refuses the token that was drawn")
        state.append(token)
        if at == len(ask.drafts) or ask.drafts[at] != token:
            break
        if ask.constraint is not None and ask.constraint.finished:
            break
    if ask.tops is not None:
        picked.logprobs = score(logits[: len(picked.tokens)], picked.tokens, ask.tops)
    return picked
