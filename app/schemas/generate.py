"""POST /generate."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, cast

from pydantic import BaseModel, Field, field_validator

from app.schemas.common import SamplingFields, Usage, is_ids
from app.schemas.formats import FormatFields

DEFAULT_MAX_TOKENS = 128


class GenerateFields(SamplingFields, FormatFields):
    """What /generate and /instruct have in common."""

    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "n": (1,),
        "best_of": (1,),
        "echo": (False,),
        "suffix": ("",),
        "max_completion_tokens": (),
        "top_logprobs": (0,),
        "messages": (),
        "tools": ([],),
        "tool_choice": ("none", "auto"),
        "functions": ([],),
    }

    model: str | None = Field(None, description="A name from /v1/models; by default the served model.")
    max_tokens: int = Field(
        DEFAULT_MAX_TOKENS,
        ge=0,
        le=2**31 - 1,
        description="Longest answer, in tokens. Left out, it is cut to the room that the context has.",
    )
    stream: bool = Field(False, description="Send the answer piece by piece as server-sent events.")
    logprobs: int | None = Field(
        None, ge=0, le=20, description="Report each token's log-probability and this many likeliest alternatives."
    )

    @property
    def asked_tokens(self) -> int | None:
        """max_tokens if the client set it."""
        return self.max_tokens if "max_tokens" in self.model_fields_set else None


class GenerateRequest(GenerateFields):
    """Continue a text."""

    prompt: str | list[int] = Field(
        description="The text to continue, or its token ids. Special tokens written in a text, such as <|endoftext|>, count "
        "as such; token ids are taken as they are."
    )

    @field_validator("prompt", mode="plain", json_schema_input_type=str | list[int])
    @classmethod
    def _check_prompt(cls, value: object) -> str | list[int]:
        """One clear message, where a union would give one mistake for each kind of prompt there is."""
        if not isinstance(value, str) and not is_ids(value):
            raise ValueError("must be a text or a list of token ids with at least one in it")
        return cast(str | list[int], value)


class TokenChoice(BaseModel):
    """A token and its log-probability under the model's own distribution, before any sampling parameter."""

    id: int = Field(description="Its place in the vocabulary.")
    token: str = Field(description="Its text; U+FFFD where it holds only part of a character.")
    bytes: list[int] = Field(description="Its true bytes.")
    logprob: float = Field(description="Natural logarithm; -9999.0 for a banned token.")


class TokenReport(TokenChoice):
    """A token of the answer."""

    text_offset: int = Field(description="Characters of the answer before the token's first byte.")
    top_logprobs: list[TokenChoice] = Field(description="The likeliest tokens at this place, best first.")


class Timings(BaseModel):
    """Where the time went."""

    queue_ms: float = Field(description="Waiting for a slot.")
    prefill_ms: float = Field(description="Reading the prompt, up to the first token.")
    decode_ms: float = Field(description="From the first token to the last.")
    tokens_per_second: float | None = Field(description="Over the decode; null with fewer than two tokens.")


class GenerateResponse(BaseModel):
    """The answer, whole. Streamed, each event is {"text": piece} (and "logprobs" when asked for); the last one has all the
    other fields too."""

    id: str = Field(description="Of this answer.")
    model: str = Field(description="The model's name in /v1/models.")
    text: str = Field(description="What comes behind the prompt.")
    finish_reason: Literal["stop", "length"] = Field(
        description="stop: the model ended, or a stop string or token did; length: it was cut."
    )
    stop_reason: str | int | None = Field(description="The stop string or stop token id that ended it, if one did.")
    usage: Usage = Field(description="Tokens counted.")
    timings: Timings = Field(description="Waiting, reading, writing.")
    logprobs: list[TokenReport] | None = Field(None, description="Only when asked for.")
