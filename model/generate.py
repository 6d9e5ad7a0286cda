"""The plain reference generator: one sequence, read top to bottom. Training samples with it; the engine is tested
against it."""

import secrets
from collections.abc import Iterator, Sequence

import torch

from model.errors import ContextLengthError
from model.gpt import GPT
from model.kv_cache import KVCache
from model.sampling import SamplingRow, sample
from model.sampling_params import SamplingParams


@torch.inference_mode()
def generate(
    model: GPT,
    prompt: Sequence[int],
    params: SamplingParams,
    max_tokens: int,
    *,
    use_cache: bool = True,
    prefill_chunk: int | None = None,
) -> Iterator[int]:
    """Yield up to `max_tokens` token ids that continue `prompt` (at least one id); an end token ends it and is not
    yielded.

    Without the cache every step computes the whole sequence afresh; `prefill_chunk` cuts the prompt's prefill into
    pieces of that many tokens. Neither changes a token. Raises ContextLengthError when prompt and max_tokens don't
    fit the context.
    """
    limit = model.config.context_length
    if not prompt:
        raise ContextLengthError(
            "the prompt is empty; give at least one token, such as the end-of-text token", 0, limit
        )
    if len(prompt) + max_tokens > limit:
        raise ContextLengthError(
            f"the prompt's {len(prompt)} tokens and {max_tokens} new ones don't fit the context of {limit}",
            len(prompt),
            limit,
        )
    device = model.token_embedding.weight.device
    seed = secrets.randbits(63) if params.seed is None else params.seed
    ends = frozenset(params.stop_token_ids) | (
        frozenset() if params.ignore_eos else frozenset(model.config.eos_token_ids)
    )
    row = SamplingRow(params, seed, prompt, end_ids=ends)
    cache = KVCache(model.config, 1, dtype=model.token_embedding.weight.dtype, device=device) if use_cache else None
    done = 0  # tokens whose keys and values are in the cache
    for _ in range(max_tokens):
        sequence = torch.tensor([*prompt, *row.output], device=device)[None]  # [1, length]
        if cache is None:
            hidden = model.hidden_states(sequence)
        else:
            for piece in sequence[:, done:].split(prefill_chunk or limit, dim=1):
                starts = torch.tensor([done], device=device)
                hidden = model.hidden_states(piece, cache=cache, starts=starts, kv_len=done + piece.shape[1])
                done += piece.shape[1]
        token = int(sample(model.logits(hidden[:, -1]), [row]))  # pyright: ignore[reportPossiblyUnboundVariable]
        if token in ends:
            return
        row.append(token)
        yield token
