"""Logits -> tokens for a whole step: bans, draws, drafts verified, log-probabilities; one request's failure is its own."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from app.engine.grammar import Constraint
from app.engine.messages import GrammarError, TokenLogprobs
from model.errors import SamplingError
from model.native import rows as native
from model.sampling import SamplingRow, logprobs, sample_row, sample_sorted

_SCORED_AT_ONCE = 64  # rows, on a GPU: bounds the memory of log-probabilities


@dataclass(slots=True)
class Ask:
    """What one request wants of its rows of logits: one row, and one more behind each drafted token."""

    row: SamplingRow
    drafts: Sequence[int] = ()
    tops: int | None = None  # alternatives to report; None: no log-probabilities
    constraint: Constraint | None = None


@dataclass(slots=True)
class Picked:
    """The tokens a request gets: the drafts that were right and the one after them, 1 to 1 + len(drafts)."""

    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] | None = None  # one per token, where asked for


@dataclass(slots=True)
class _Walk:
    """An ask on its way through its rows, which begin at `first`."""

    ask: Ask
    first: int
    tokens: list[int] = field(default_factory=list)
    error: Exception | None = None

    @property
    def at(self) -> int:
        return self.first + len(self.tokens)

    @property
    def plain(self) -> bool:
        """Whether the next token is simply the likeliest."""
        return self.ask.constraint is None and self.ask.row.params.greedy and not self.ask.row.edited

    def take(self, token: int | Exception) -> bool:
        """Go on by a token. Whether there is another row to look at: one whose draft was right."""
        if isinstance(token, Exception):
            self.error = token
            return False
        self.tokens.append(token)
        ask = self.ask
        if token in ask.row.end_ids:
            return False
        ask.row.append(token)  # taken back in the end: the caller appends what it keeps
        if ask.constraint is not None:
            try:
                if not ask.constraint.accept(token):
                    raise GrammarError("the grammar refuses the token that it allowed")
            except Exception as error:
                self.error = error
                return False
            if ask.constraint.finished:
                return False
        n = len(self.tokens)
        return n <= len(ask.drafts) and ask.drafts[n - 1] == token


def pick(logits: Tensor, asks: Sequence[Ask]) -> list[Picked | Exception]:
    """The next tokens of each ask: logits [sum(1 + len(ask.drafts)), V] float32, not changed and without gradients; in the
    asks' order.

    Token by token what `model.sampling.sample` gives, with the row's output and the constraint advanced in between: drafts
    change how many come at once, never which. Ends after a token of row.end_ids, and when the constraint is finished.
    row.output stays as it was (the caller appends); ask.constraint has advanced by the tokens, end tokens excepted.
    An exception in an ask's place says why it failed: FloatingPointError for logits that aren't finite, GrammarError, ...
    """
    walks, first = [], 0
    for ask in asks:
        walks.append(_Walk(ask, first))
        first += 1 + len(ask.drafts)
    lengths = [len(ask.row.output) for ask in asks]
    try:
        best, finite = _scan(logits)
        going = walks
        while going:
            tokens = _choose(logits, going, best, finite)
            going = [walk for walk, token in zip(going, tokens, strict=True) if walk.take(token)]
    finally:
        for ask, length in zip(asks, lengths, strict=True):
            del ask.row.output[length:]
    return _results(logits, walks)


def score(logits: Tensor, next_tokens: Sequence[int], top: int) -> list[TokenLogprobs]:
    """Log-probabilities under the model's own distribution: of the token that follows each row, and the `top` likeliest.

    logits [R, V] float32, next_tokens [R]. Beside the logits it needs memory for a few rows only. FloatingPointError when
    the logits aren't finite.
    """
    if _on_cpu(logits):
        return _score_natively(logits, next_tokens, top) or [
            _score_row(row, token, top) for row, token in zip(logits.numpy(), next_tokens, strict=True)
        ]
    results: list[TokenLogprobs] = []
    for start in range(0, len(next_tokens), _SCORED_AT_ONCE):
        part = logits[start : start + _SCORED_AT_ONCE]
        if not bool(torch.isfinite(part).all()):
            raise _not_finite()
        tokens = torch.tensor(next_tokens[start : start + _SCORED_AT_ONCE], device=logits.device)
        own, ids, values = (piece.tolist() for piece in logprobs(part, tokens, min(top, logits.shape[1])))
        results += map(TokenLogprobs, own, ids, values)
    return results


def _scan(logits: Tensor) -> tuple[list[int], list[bool]]:
    """Of each row [V]: the likeliest token, the lowest of equals; and whether all of it is finite."""
    if _on_cpu(logits):
        if (scan := native.scan(logits)) is not None:
            return scan.argmax, [state == native.FINITE for state in scan.state]
        # numpy rather than torch: there are no threads to wait for.
        table = logits.numpy()
        best = table.argmax(axis=1)  # the first NaN, where there is one
        most, least = table[np.arange(len(table)), best], table.min(axis=1)
        return best.tolist(), (np.isfinite(most) & np.isfinite(least)).tolist()
    most, best = logits.max(dim=-1)
    finite = torch.isfinite(most) & torch.isfinite(logits.amin(dim=-1))
    ids, flags = torch.stack([best, finite.long()]).tolist()  # one transfer
    return ids, [bool(flag) for flag in flags]


def _choose(logits: Tensor, walks: list[_Walk], best: list[int], finite: list[bool]) -> list[int | Exception]:
    """The next token of each walk, or why there is none."""
    tokens: list[int | Exception] = [best[walk.at] if finite[walk.at] else _not_finite() for walk in walks]
    hard = [i for i, walk in enumerate(walks) if finite[walk.at] and not walk.plain]
    if _on_cpu(logits):
        for i in hard:
            tokens[i] = _choose_alone(logits, walks[i])
    elif hard:
        for i, token in zip(hard, _choose_together(logits, [walks[i] for i in hard]), strict=True):
            tokens[i] = token
    return tokens


def _choose_alone(logits: Tensor, walk: _Walk) -> int | Exception:
    try:
        row = logits[walk.at].cpu()
        if walk.ask.constraint is not None:
            row = torch.from_numpy(row.numpy().copy())
            walk.ask.constraint.allow(row, walk.ask.row.end_ids)
        return sample_row(row.numpy(), walk.ask.row)
    except SamplingError as error:
        return GrammarError(f"what the grammar and min_tokens leave: {error}") if walk.ask.constraint else error
    except Exception as error:
        return error


def _choose_together(logits: Tensor, walks: list[_Walk]) -> list[int | Exception]:
    """On a GPU: one pass over all rows; where that fails, each by itself."""
    try:
        table = logits[[walk.at for walk in walks]]  # a copy
        for row, walk in zip(table, walks, strict=True):
            if walk.ask.constraint is not None:
                walk.ask.constraint.allow(row, walk.ask.row.end_ids)
        return list(sample_sorted(table, [walk.ask.row for walk in walks]).tolist())
    except Exception:
        return [_choose_alone(logits, walk) for walk in walks]


def _results(logits: Tensor, walks: list[_Walk]) -> list[Picked | Exception]:
    results: list[Picked | Exception] = []
    for walk in walks:
        picked = Picked(walk.tokens)
        if walk.ask.tops is not None and walk.error is None:
            try:
                rows = logits[walk.first : walk.first + len(walk.tokens)]
                picked.logprobs = score(rows, walk.tokens, walk.ask.tops)
            except Exception as error:
                walk.error = error
        results.append(picked if walk.error is None else walk.error)
    return results


def _score_natively(logits: Tensor, next_tokens: Sequence[int], top: int) -> list[TokenLogprobs] | None:
    scan = native.scan(logits, logsumexp=True)
    if scan is None or scan.logsumexp is None:
        return None
    if any(state != native.FINITE for state in scan.state):
        raise _not_finite()
    norms = scan.logsumexp
    table = logits.numpy()
    own = table[np.arange(len(table)), np.asarray(next_tokens)].tolist()
    best = native.top(logits, top) if top > 0 else None
    ids, values = ([[]] * len(table),) * 2 if best is None else (best[0].tolist(), best[1].tolist())
    return [
        TokenLogprobs(mine - norm, tops, [value - norm for value in theirs])
        for mine, norm, tops, theirs in zip(own, norms, ids, values, strict=True)
    ]


def _score_row(row: np.ndarray, token: int, top: int) -> TokenLogprobs:
    best = row.max()
    if not (np.isfinite(best) and np.isfinite(row.min())):
        raise _not_finite()
    norm = float(best) + float(np.log(np.exp(row - best).sum(dtype=np.float64)))
    ids = np.empty(0, np.int64)
    if top > 0:
        top = min(top, len(row))
        least = np.partition(row, len(row) - top)[len(row) - top]
        ids = np.flatnonzero(row >= least)
        ids = ids[np.argsort(-row[ids], kind="stable")[:top]]  # of equals the lower id
    return TokenLogprobs(float(row[token]) - norm, ids.tolist(), [value - norm for value in row[ids].tolist()])


def _on_cpu(logits: Tensor) -> bool:
    return logits.device.type == "cpu"


def _not_finite() -> FloatingPointError:
    return FloatingPointError("the model's logits are not finite")
