"""What a request may ask of the model that is loaded: checked before anything is sent. Free of torch."""

from collections.abc import Sequence

from app.engine.messages import InvalidRequest
from model.errors import ContextLengthError, SamplingError
from model.sampling_params import SamplingParams


def check_fits(n_prompt: int, max_tokens: int, context: int) -> None:
    """Raise ContextLengthError unless there is a prompt, and it and `max_tokens` more have room in `context` (in tokens)."""
    if n_prompt == 0:
        raise ContextLengthError(
            "The prompt is empty; give at least one token, such as the end-of-text token.", 0, context
        )
    if n_prompt + max_tokens > context:
        raise ContextLengthError(
            f"This model's context is {context} tokens; the prompt has {n_prompt} and {max_tokens} more are asked for. "
            "Shorten the prompt or lower max_tokens.",
            n_prompt,
            context,
        )


def check_ids(prompt: Sequence[int], params: SamplingParams, vocab_size: int) -> None:
    """Raise SamplingError for a token id that the model hasn't, in the prompt or the parameters."""
    for param, ids in (
        ("logit_bias", params.logit_bias),
        ("stop_token_ids", params.stop_token_ids),
        ("prompt", prompt),
    ):
        if ids and not (min(ids) >= 0 and max(ids) < vocab_size):
            wrong = next(token for token in ids if not 0 <= token < vocab_size)
            raise SamplingError(f"{param}: {wrong} is no token id; they go from 0 to {vocab_size - 1}", param)


def check_logprobs(
    n_prompt: int, logprobs: int | None, prompt_logprobs: int | None, score_from: int, vocab_size: int
) -> None:
    """Raise InvalidRequest for more alternatives than there are tokens, or a place to score from outside the prompt."""
    if prompt_logprobs is not None and not 0 <= score_from <= n_prompt:
        raise InvalidRequest(
            f"score_from must be from 0 to the prompt's {n_prompt} tokens, not {score_from}", "score_from"
        )
    for name, number in (("logprobs", logprobs), ("prompt_logprobs", prompt_logprobs)):
        if number is not None and not 0 <= number <= vocab_size:
            raise InvalidRequest(f"{name} must be from 0 to {vocab_size}, not {number}", name)
