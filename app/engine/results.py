"""What a step computed for one request -> what its client is told. An exception in here is that request's own."""

import torch
from torch import Tensor

from app.engine.messages import TokenLogprobs, Update
from app.engine.picking import Picked, score
from app.engine.requests import Outcome, Request, Work
from model.backend import Backend

_SCORED_AT_ONCE = 64  # rows of logits: of a large vocabulary they are what takes memory


def settle(work: Work, outcome: Outcome, backend: Backend, now: float) -> Update | None:
    """Bring a request up to what was computed for it; what to tell, if anything. With `finish` set the request is at its end.

    For a chunk of a prompt: to be called when the slot's tokens have been noted. Raises what was raised for this request
    alone, and FloatingPointError where results are not finite.
    """
    request = work.request
    update = Update(request.submit.id, [])
    if work.prefill:
        told = _settle_prompt(work, outcome, backend, update)
        if not work.last:
            return update if told else None
        update.started = request.started(now)
        request.decoding = True
        if not work.picks:
            update.finish = "length" if request.submit.task == "generate" else "done"
            return update
    _advance(request, outcome.picked, update)
    if update.finish is not None:
        update.decode = now - request.first_at
    return update


def _settle_prompt(work: Work, outcome: Outcome, backend: Backend, update: Update) -> bool:
    """The results that come from a prompt alone; whether there is something to tell."""
    submit = work.request.submit
    if submit.task == "embed":
        mean = work.request.mean
        assert mean is not None
        mean.add(outcome.rows)
        if work.last:
            update.embedding = mean.result().numpy().astype("<f4").tobytes()
    elif submit.task == "classify":
        if work.last:
            update.scores = _classify(work.request, outcome.rows[-1], backend)
    elif submit.prompt_logprobs is not None:
        update.prompt_logprobs = _score_prompt(work, outcome.rows, backend)
    return bool(update.prompt_logprobs)


def _classify(request: Request, hidden: Tensor, backend: Backend) -> list[float]:
    adapter = request.adapter
    head = backend.score_head if adapter is None or adapter.head is None else adapter.head
    assert head is not None
    # A copy, so that it is aligned alike wherever the row lies: the sum's order may depend on that.
    scores = torch.mv(head, hidden.clone())
    if not bool(torch.isfinite(scores).all()):
        raise FloatingPointError("the model's scores are not finite")
    return scores.tolist()


def _score_prompt(work: Work, hidden: Tensor, backend: Backend) -> list[TokenLogprobs | None]:
    """Log-probabilities of the tokens behind the chunk's wanted positions; the last position of all has none behind it."""
    submit, segment = work.request.submit, work.segment
    top = submit.prompt_logprobs
    assert top is not None
    end = segment.start + len(segment.tokens)
    begin = end - segment.outputs
    following = submit.prompt[begin + 1 : end + 1]
    known: list[TokenLogprobs | None] = []
    for at in range(0, len(following), _SCORED_AT_ONCE):
        tokens = following[at : at + _SCORED_AT_ONCE]
        logits = backend.logits(hidden[at : at + len(tokens)])
        known += score(logits, tokens, top)
    if not all(each is None or each.logprob <= 0 for each in known):  # also refuses NaN
        raise FloatingPointError("the model's log-probabilities are not finite")
    if submit.score_from == 0 and begin == 0 and segment.outputs:
        known.insert(0, None)
    return known


def _advance(request: Request, picked: Picked | Exception | None, update: Update) -> None:
    """Add tokens to a request, or end it."""
    if isinstance(picked, Exception):
        raise picked
    assert picked is not None
    row, submit, slot = request.row, request.submit, request.slot
    assert slot is not None
    tokens, drafts = picked.tokens, request.ask.drafts
    output = row.output
    if output:  # the newest token was fed, and the drafts that came true
        slot.tokens.append(output[-1])
        slot.tokens.extend(tokens[:-1])
    for token in tokens:
        if token in row.end_ids:
            update.finish = "stop"
            update.stop_token = token if token in submit.params.stop_token_ids else None
            break
        row.append(token)
        update.tokens.append(token)
        if len(output) == submit.max_tokens:
            update.finish = "length"
            break
    if update.tokens and picked.logprobs is not None:
        update.logprobs = picked.logprobs[: len(update.tokens)]
    if drafts and request.drafter is not None:
        request.drafter.learn(len(drafts), len(tokens) - 1)
    constraint = request.ask.constraint
    if (
        update.finish != "stop" and constraint is not None and constraint.finished
    ):  # whole, though at its max_tokens too
        update.finish = "stop"
