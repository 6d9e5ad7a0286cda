"""Several continuations of one context: the context is computed once, and what all contexts begin with once for all of them.

Multiple choice repeats its context for each choice, and few-shot prompts repeat their examples for each question. Keys and values
of the common part are kept in a cache and copied to where the parts that differ go on from it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from model.kv_cache import KVCache
from training.evaluate.forward import Forward, Scored, Tokens

WORTHWHILE = 8  # tokens of a context below which computing it again is as quick as the copying
_PREFIX_WORTHWHILE = 32
_CACHE_BYTES = 1 << 29


@dataclass(frozen=True)
class Group:
    """A context and the continuations to score after it; none empty, and each fits the model's context with it."""

    context: Tokens
    targets: Sequence[Tokens]

    @property
    def longest(self) -> int:
        """Positions that the context with its longest continuation takes; the last token is never fed."""
        return len(self.context) + max(map(len, self.targets)) - 1


@torch.inference_mode()
def score_groups(
    forward: Forward, groups: Sequence[Group], budget: int, done: Callable[[int], object]
) -> list[list[Scored]]:
    """The scores of each group's continuations, about `budget` tokens at a time; `done` is told how many are finished."""
    shared = _common_prefix([group.context for group in groups])
    if len(groups) < 2 or shared < _PREFIX_WORTHWHILE:
        shared = 0
    prefix = None
    if shared:
        prefix = KVCache(forward.model.config, 1, context=shared, device=forward.device)
        forward.hidden(forward.pad([groups[0].context[:shared]]), cache=prefix)
    results: list[list[Scored]] = [[] for _ in groups]
    for batch in _batches(forward, groups, budget):
        for i, scored in zip(batch, _score_batch(forward, [groups[i] for i in batch], prefix), strict=True):
            results[i] = scored
            done(len(scored))
    return results


def _score_batch(forward: Forward, groups: list[Group], prefix: KVCache | None) -> list[list[Scored]]:
    shared = 0 if prefix is None else prefix.context
    homes = np.cumsum([0, *(len(group.targets) for group in groups)])[:-1]  # each group's first slot holds its context
    n_slots = sum(len(group.targets) for group in groups)
    cache = KVCache(forward.model.config, n_slots, context=_positions(groups), device=forward.device)
    slots, lengths = forward.index(homes), forward.index([len(group.context) for group in groups])
    if prefix is not None:
        cache.keys[:, slots, :, :shared] = prefix.keys
        cache.values[:, slots, :, :shared] = prefix.values
    rests = forward.pad([group.context[shared:] for group in groups])
    starts = torch.full_like(slots, shared)
    hidden = forward.hidden(rests, cache=cache, slots=slots, starts=starts, kv_len=shared + rests.shape[1])
    last = hidden[
        torch.arange(len(groups), device=forward.device), lengths - shared - 1
    ]  # [G, D]: before the first tokens
    owner = np.repeat(np.arange(len(groups)), [len(group.targets) for group in groups])
    targets = [target for group in groups for target in group.targets]
    first = forward.read(last[forward.index(owner)], forward.index([int(target[0]) for target in targets]))
    later = _score_later(forward, cache, targets, homes[owner], lengths[forward.index(owner)])
    scored = [
        Scored(np.concatenate([[logprob], rest.logprobs]), np.concatenate([[greedy], rest.greedy]))
        for logprob, greedy, rest in zip(*first, later, strict=True)
    ]
    return [scored[home : home + len(group.targets)] for home, group in zip(homes, groups, strict=True)]


def _score_later(
    forward: Forward, cache: KVCache, targets: list[Tokens], homes: np.ndarray, lengths: torch.Tensor
) -> list[Scored]:
    """The tokens behind each continuation's first; continuation i has slot i, and its context lies in slot homes[i]."""
    nothing = Scored(np.zeros(0), np.zeros(0, bool))
    longer = [i for i, target in enumerate(targets) if len(target) > 1]
    if not longer:
        return [nothing] * len(targets)
    slots, sources = forward.index(longer), forward.index(homes[longer])
    moved = slots != sources
    end = int(lengths.max())
    cache.keys[:, slots[moved], :, :end] = cache.keys[:, sources[moved], :, :end]
    cache.values[:, slots[moved], :, :end] = cache.values[:, sources[moved], :, :end]
    fed = forward.pad([targets[i][:-1] for i in longer])
    starts = lengths[slots]
    hidden = forward.hidden(fed, cache=cache, slots=slots, starts=starts, kv_len=int(starts.max()) + fed.shape[1])
    sizes = [len(targets[i]) - 1 for i in longer]
    rows = forward.index(np.repeat(np.arange(len(longer)), sizes))
    columns = forward.index(np.concatenate([np.arange(size) for size in sizes]))
    wanted = forward.index(np.concatenate([np.asarray(targets[i][1:]) for i in longer]))
    logprobs, greedy = forward.read(hidden[rows, columns], wanted)
    results, cuts = [nothing] * len(targets), np.cumsum(sizes)[:-1]
    for i, some, likeliest in zip(longer, np.split(logprobs, cuts), np.split(greedy, cuts), strict=True):
        results[i] = Scored(some, likeliest)
    return results


def _batches(forward: Forward, groups: Sequence[Group], budget: int) -> Iterator[list[int]]:
    """Groups of about one length, the longest first. A padded batch stays within the model's context, and its cache and its
    tokens within their budgets."""
    config = forward.model.config
    position = 2 * 4 * config.n_layer * config.n_kv_head * config.head_dim  # bytes of a position's keys and values
    budget = min(budget, max(1, _CACHE_BYTES // position))
    batch: list[int] = []
    for i in sorted(range(len(groups)), key=lambda i: -groups[i].longest):
        wider = [groups[j] for j in (*batch, i)]
        positions, n_slots = _positions(wider), sum(len(group.targets) for group in wider)
        if batch and (positions > config.context_length or positions * n_slots > budget):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _positions(groups: Sequence[Group]) -> int:
    """Positions that a padded batch of groups takes."""
    longest_target = max(len(target) for group in groups for target in group.targets)
    return max(len(group.context) for group in groups) + longest_target - 1


def _common_prefix(contexts: Sequence[Tokens]) -> int:
    """How many tokens all contexts begin with, leaving at least one to each."""
    least, most = (list(map(int, context)) for context in (min(contexts, key=tuple), max(contexts, key=tuple)))
    same = next((i for i, (a, b) in enumerate(zip(least, most, strict=False)) if a != b), min(len(least), len(most)))
    return min(same, min(map(len, contexts)) - 1)
