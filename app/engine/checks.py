"""What a request may ask of the model that is loaded: checked before anything is sent. Free of torch."""

import dataclasses
import operator
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, get_type_hints

import msgspec

from app.engine.messages import InvalidRequest, ToEngine
from model.errors import ContextLengthError, SamplingError
from model.sampling_params import SamplingParams


def whole(value: Any, param: str) -> int:
    """`value` as an int of at least 0, numpy's and others' included. InvalidRequest names `param`."""
    try:
        number = operator.index(value)
    except TypeError:
        raise InvalidRequest(f"{param} must be a whole number, not {value!r:.100}", param) from None
    if number < 0:
        raise InvalidRequest(f"{param} must be 0 or more, not {number}", param)
    return number


def token_ids(prompt: Iterable[Any]) -> list[int]:
    """A prompt as a list of ints. InvalidRequest when it is none."""
    try:
        return list(map(operator.index, prompt))
    except TypeError as error:
        raise InvalidRequest(
            f"prompt must be a sequence of token ids, each a whole number ({error})", "prompt"
        ) from None


def check_fits(n_prompt: int, max_tokens: int, context: int) -> None:
    """Raise ContextLengthError unless there is a prompt, and it and `max_tokens` more have room in `context` (in tokens)."""
    if n_prompt == 0:
        raise ContextLengthError(
            "The prompt is empty; give at least one token, such as the end-of-text token.", 0, context
        )
    if n_prompt + max_tokens > context:
        raise ContextLengthError(  # clients know this mistake by these first words, which are OpenAI's
            f"This model's maximum context length is {context} tokens; the prompt has {n_prompt} and {max_tokens} more "
            "are asked for. Shorten the prompt or lower max_tokens.",
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


def check_stops(stop: Sequence[str]) -> None:
    """Raise InvalidRequest unless `stop` is a sequence of texts; one text alone would be taken for its characters."""
    if isinstance(stop, str) or not all(isinstance(text, str) for text in stop):
        raise InvalidRequest(f"stop must be a list of texts, not {stop!r:.100}", "stop")


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


def unreadable(message: ToEngine, error: Exception) -> InvalidRequest:
    """What to tell the one whose `message` the engine could not read: which field it is, and why."""
    for name, kind, value in _typed_fields(message):
        try:
            msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=kind)
        except Exception as cause:
            return InvalidRequest(f"{name} can't be used: {cause}", name)
    return InvalidRequest(f"the request can't be used: {error}", "request")


def _typed_fields(message: ToEngine) -> Iterator[tuple[str, Any, Any]]:
    """Name, type and value of the fields; sampling parameters and settings count one by one."""
    for field in msgspec.structs.fields(message):
        value = getattr(message, field.name)
        if field.name == "params" and dataclasses.is_dataclass(value):
            for name, kind in get_type_hints(type(value)).items():
                yield name, kind, getattr(value, name)
        elif field.name == "spec" and isinstance(value, msgspec.Struct):
            for inner in msgspec.structs.fields(value):
                yield inner.name, inner.type, getattr(value, inner.name)
        else:
            yield field.name, field.type, value
