"""Greedy answers to many prompts at once, for samples and measures of models in training."""

from collections.abc import Callable, Sequence

import torch

from model.gpt import GPT
from model.kv_cache import KVCache
from training.evaluate.forward import Forward, length_batches

_BATCH_TOKENS = 8192  # positions of a batch's cache


@torch.no_grad()
def greedy_answers(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    max_tokens: int,
    *,
    bf16: bool = False,
    done: Callable[[int], object] = lambda _: None,
) -> list[list[int]]:
    """What the model writes after each prompt (of at least one token, within its context): the likeliest token each time, up to an
    end token (left out), `max_tokens`, or the end of its context. The tokens are those of model.generate.generate at
    temperature 0, up to ties within rounding. `done` is told how many are finished."""
    was_training = model.training
    model.eval()
    answers: list[list[int]] = [[] for _ in prompts]
    limits = [min(len(prompt) + max_tokens, model.config.context_length) for prompt in prompts]
    for batch in length_batches(limits, _BATCH_TOKENS):
        rows = _decode(Forward(model, bf16=bf16), [prompts[i] for i in batch], [limits[i] for i in batch])
        for i, answer in zip(batch, rows, strict=True):
            answers[i] = answer
        done(len(batch))
    model.train(was_training)
    return answers


def until(text: str, stops: Sequence[str]) -> str:
    """A text up to the first of `stops`, as serving ends an answer there."""
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]


def _decode(forward: Forward, prompts: list[Sequence[int]], limits: list[int]) -> list[list[int]]:
    """Answers to a few prompts; row i ends at `limits[i]` positions."""
    ends = frozenset(forward.model.config.eos_token_ids)
    cache = KVCache(forward.model.config, len(prompts), context=max(limits), device=forward.device)
    lengths = [len(prompt) for prompt in prompts]
    answers: list[list[int]] = [[] for _ in prompts]
    active = list(range(len(prompts)))
    # What is written behind a shorter prompt is padding; its answer takes that place before anything looks there.
    hidden = forward.hidden(forward.pad(prompts), cache=cache)
    last = hidden[torch.arange(len(prompts), device=forward.device), forward.index(lengths) - 1]
    while True:
        going_on = []
        for i, token in zip(active, forward.logits(last).argmax(1).tolist(), strict=True):
            if token in ends or lengths[i] >= limits[i]:
                continue
            answers[i].append(token)
            lengths[i] += 1
            if lengths[i] < limits[i]:
                going_on.append(i)
        if not going_on:
            return answers
        active = going_on
        last = forward.hidden(
            forward.index([answers[i][-1] for i in active])[:, None],
            cache=cache,
            slots=forward.index(active),
            starts=forward.index([lengths[i] - 1 for i in active]),
            kv_len=max(lengths[i] for i in active),
        )[:, 0]
