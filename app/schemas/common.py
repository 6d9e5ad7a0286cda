"""What all request bodies share: how strictly they are read, and the sampling parameters."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from model.sampling_params import INT32_MAX, SamplingParams

MAX_STOPS = 4
CHAT_MODEL = "A name from /v1/models; by default the server's model for instructions and conversations."
_INT64 = 2**63


def is_ids(value: object) -> bool:
    """Whether it is a list of at least one whole number. (To isinstance a bool would be one.)"""
    return isinstance(value, list) and bool(value) and all(type(item) is int for item in value)


class RequestBody(BaseModel):
    """A JSON object. Types are taken at their word ("5" is no number), null means left out, unknown fields are ignored.

    `unsupported` names fields that mean something in OpenAI's API but not here, each with the values that change nothing:
    any other value is refused, never silently dropped.
    """

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False, protected_namespaces=())
    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _tidy(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        for name, harmless in cls.unsupported.items():
            value = data.get(name)
            if value is not None and not any(type(value) is type(h) and value == h for h in harmless):
                raise PydanticCustomError(
                    "unsupported_parameter", "{param} is not supported here; leave it out", {"param": name}
                )
        return {name: value for name, value in data.items() if value is not None}


class SamplingFields(RequestBody):
    """How tokens are chosen and where an answer ends. Ranges are OpenAI's where it has the parameter, else vLLM's."""

    temperature: float = Field(
        1.0, ge=0, le=2, description="0 always takes the likeliest token; higher is more varied."
    )
    top_p: float = Field(
        1.0, gt=0, le=1, description="Draw from the fewest tokens that hold this share of probability."
    )
    top_k: int = Field(0, ge=0, le=INT32_MAX, description="Draw from this many likeliest tokens; 0 is off.")
    min_p: float = Field(
        0.0, ge=0, le=1, description="Leave out tokens less likely than this share of the likeliest one."
    )
    presence_penalty: float = Field(
        0.0, ge=-2, le=2, description="Taken off the logit of every token that the answer has already."
    )
    frequency_penalty: float = Field(
        0.0, ge=-2, le=2, description="Taken off the logit of a token for each time the answer has it already."
    )
    repetition_penalty: float = Field(
        1.0,
        ge=1e-3,
        le=1e3,
        description="Divides the logit of every token that prompt or answer has already; 1 is off.",
    )
    seed: int | None = Field(
        None,
        ge=-_INT64,
        lt=_INT64,
        description="The same seed gives the same answer; left out, each answer is drawn anew.",
    )
    stop: str | Annotated[list[str], Field(fail_fast=True)] = Field(
        [], description=f"Up to {MAX_STOPS} strings; the answer ends before the first of them, which is not part of it."
    )
    stop_token_ids: list[int] = Field(
        [], max_length=128, description="Token ids that end the answer, like end of text."
    )
    ignore_eos: bool = Field(False, description="Go on after the end-of-text token.")
    min_tokens: int = Field(0, ge=0, le=INT32_MAX, description="No end-of-text token or stop before this many tokens.")
    logit_bias: dict[str, float] = Field(
        {}, description="Token id -> -100..100, added to its logit: -100 bans the token, 100 all but forces it."
    )

    @field_validator("stop")
    @classmethod
    def _check_stop(cls, value: str | list[str]) -> list[str]:
        stops = [value] if isinstance(value, str) else value
        if len(stops) > MAX_STOPS:
            raise ValueError(f"at most {MAX_STOPS} stop strings")
        if "" in stops:
            raise ValueError("a stop string must not be empty")
        return stops

    @field_validator("logit_bias", mode="before")
    @classmethod
    def _first_wrong_bias(cls, value: Any) -> Any:
        """Thousands of mistakes would take seconds to list."""
        wrong = (v for v in value.values() if type(v) not in (int, float)) if isinstance(value, dict) else ()
        for _ in wrong:
            raise ValueError("values must be numbers")
        return value

    @field_validator("logit_bias")
    @classmethod
    def _check_bias(cls, value: dict[str, float]) -> dict[str, float]:
        for token, bias in value.items():
            if not (token.isascii() and token.isdecimal() and len(token) < 10):
                raise ValueError(f"{token[:20]!r} is no token id")
            if not -100 <= bias <= 100:
                raise ValueError("values must be from -100 to 100")
        return value

    @property
    def stops(self) -> list[str]:
        """The stop strings."""
        return [self.stop] if isinstance(self.stop, str) else self.stop

    def sampling_params(self) -> SamplingParams:
        """The model's view of these fields."""
        return SamplingParams(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            repetition_penalty=self.repetition_penalty,
            seed=self.seed,
            logit_bias={int(token): bias for token, bias in self.logit_bias.items()},
            min_tokens=self.min_tokens,
            stop_token_ids=tuple(self.stop_token_ids),
            ignore_eos=self.ignore_eos,
        )


class ErrorBody(BaseModel):
    """What went wrong."""

    message: str = Field(description="For a person.")
    type: str = Field(description="invalid_request_error, authentication_error, rate_limit_error or server_error.")
    param: str | None = Field(description="The field at fault.")
    code: str | None = Field(description="The kind of mistake, for programs.")
    n_prompt_tokens: int | None = Field(None, description="With context_length_exceeded: the prompt's length.")
    n_ctx: int | None = Field(None, description="With context_length_exceeded: the context's length.")


class ErrorResponse(BaseModel):
    """Every answer that is not a success."""

    error: ErrorBody = Field(description="The mistake.")


class Usage(BaseModel):
    """Tokens counted. An end-of-text token, or tokens cut off by a stop string, are not part of the answer."""

    prompt_tokens: int = Field(description="Of the prompt.")
    completion_tokens: int = Field(description="Of the answer.")
    total_tokens: int = Field(description="Of both.")
