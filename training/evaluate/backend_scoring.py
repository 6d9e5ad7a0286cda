"""Scores through a back end: the arithmetic that serves the model (8 or 4 bits, bfloat16, our own kernels), measured as such."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from model.backend import Backend, Segment
from training.evaluate.forward import Scored, Tokens, read_logits


def score_on_backend(
    backend: Backend,
    requests: Sequence[tuple[Tokens, Tokens]],
    budget: int,
    done: Callable[[int], object],
    *,
    share: bool = True,
) -> list[Scored]:
    """The scores of `requests`: (context, continuation) pairs that fit the slots, with at least one token each. About `budget`
    tokens are computed at a time; with `share`, a context that several have is computed once and copied. `done` is told how
    many are finished."""
    results: dict[int, Scored] = {}
    for batch in _batches(requests, budget, backend.n_slots, share=share):
        results.update(_score_batch(backend, requests, batch))
        done(sum(map(len, batch)))
    return [results[i] for i in range(len(requests))]


def _score_batch(
    backend: Backend, requests: Sequence[tuple[Tokens, Tokens]], batch: list[list[int]]
) -> Iterator[tuple[int, Scored]]:
    """The first of each group brings the context; the others begin behind all of it but its last token, whose hidden state
    predicts their first."""
    slots = iter(range(backend.n_slots))
    leaders: list[tuple[int, int]] = []  # (request, slot)
    followers: list[tuple[int, int]] = []
    sources: dict[int, int] = {}  # a follower's slot -> its leader's
    for group in batch:
        home = next(slots)
        leaders.append((group[0], home))
        for i in group[1:]:
            followers.append((i, next(slots)))
            sources[followers[-1][1]] = home
    for members in (leaders, followers):
        segments, wanted = [], []
        for i, slot in members:
            context, target = ([int(token) for token in part] for part in requests[i])
            kept = len(context) - 1 if slot in sources else 0
            if kept:
                backend.copy_slot(sources[slot], slot, kept)
            segments.append(Segment(slot, kept, [*context, *target[:-1]][kept:], len(target)))
            wanted += target
        if segments:
            hidden = backend.forward(segments)
            logprobs, greedy = read_logits(backend.logits, hidden, torch.tensor(wanted, device=hidden.device))
            cuts = np.cumsum([segment.outputs for segment in segments])[:-1]
            for (i, _), *scored in zip(members, np.split(logprobs, cuts), np.split(greedy, cuts), strict=True):
                yield i, Scored(*scored)


def _batches(
    requests: Sequence[tuple[Tokens, Tokens]], budget: int, n_slots: int, *, share: bool
) -> Iterator[list[list[int]]]:
    """Groups of requests with one context, as many together as slots and budget take; a group larger than the slots is cut."""
    by_context: dict[object, list[int]] = {}
    for i, (context, _) in enumerate(requests):
        by_context.setdefault(tuple(map(int, context)) if share else i, []).append(i)
    groups = [m[at : at + n_slots] for m in by_context.values() for at in range(0, len(m), n_slots)]
    batch: list[list[int]] = []
    used = tokens = 0
    for group in groups:
        cost = len(requests[group[0]][0]) + sum(len(requests[i][1]) for i in group)
        if batch and (used + len(group) > n_slots or tokens + cost > budget):
            yield batch
            batch, used, tokens = [], 0, 0
        batch.append(group)
        used, tokens = used + len(group), tokens + cost
    if batch:
        yield batch
