"""POST /v1/completions."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, cast

from pydantic import BaseModel, Field, field_validator

from app.schemas.common import is_ids
from app.schemas.formats import FormatFields
from app.schemas.openai import OpenAIFields, OpenAIUsage

DEFAULT_MAX_TOKENS = 16
DEFAULT_PROMPT = "<|endoftext|>"
MAX_PROMPTS = 2048

Prompt = str | list[int]
AnyPrompt = str | list[str] | list[int] | list[list[int]]


class CompletionRequest(OpenAIFields, FormatFields):
    """Continue one text or several."""

    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **OpenAIFields.unsupported,
        "suffix": ("",),
        "messages": (),
        "max_completion_tokens": (),
        "top_logprobs": (0,),
        "add_special_tokens": (True,),
    }

    prompt: AnyPrompt = Field(
        DEFAULT_PROMPT,
        description="The text to continue, or its token ids; or a list of either. Special tokens written in a text count as "
        "such; token ids are taken as they are. Left out, a new text is begun.",
    )
    max_tokens: int = Field(
        DEFAULT_MAX_TOKENS,
        ge=0,
        le=2**31 - 1,
        description="Longest answer, in tokens. Left out, it is cut to the room that the context has; 0 with echo and "
        "logprobs scores the prompt.",
    )
    echo: bool = Field(False, description="Give the prompt back before the answer.")
    logprobs: int | None = Field(
        None,
        ge=0,
        le=5,
        description="Report each token's log-probability and this many likeliest alternatives; with echo the prompt's too.",
    )

    @field_validator("prompt", mode="plain", json_schema_input_type=AnyPrompt)
    @classmethod
    def _check_prompt(cls, value: object) -> AnyPrompt:
        """One clear message, where a union would give one mistake for each kind of prompt there is."""
        if not _is_text(value) and not is_ids(value) and not (isinstance(value, list) and value):
            raise ValueError("must be a text, a list of token ids, or a list of either with at least one prompt in it")
        if isinstance(value, list) and not is_ids(value):
            if len(value) > MAX_PROMPTS:
                raise ValueError(f"at most {MAX_PROMPTS} prompts")
            member = _is_text if isinstance(value[0], str) else is_ids
            wrong = next((place for place, prompt in enumerate(value) if not member(prompt)), None)
            if wrong is not None:
                raise ValueError(
                    f"number {wrong} of the list is not like a prompt that can be used; all must be texts, or all "
                    "non-empty lists of token ids"
                )
        return cast(AnyPrompt, value)

    @property
    def prompts(self) -> list[Prompt]:
        """The prompts, each a text or its token ids."""
        if isinstance(self.prompt, str) or isinstance(self.prompt[0], int):
            return [cast(Prompt, self.prompt)]
        return cast(list[Prompt], self.prompt)

    @property
    def asked_tokens(self) -> int | None:
        """max_tokens if the client set it."""
        return self.max_tokens if "max_tokens" in self.model_fields_set else None


def _is_text(value: object) -> bool:
    """Whether it is a text that UTF-8 can carry: JSON's escapes can spell half a surrogate pair."""
    if not isinstance(value, str):
        return False
    try:
        return value.isascii() or bool(value.encode())
    except UnicodeEncodeError:
        return False


class CompletionLogprobs(BaseModel):
    """Lists of one length, a place for each token. Numbers are natural logarithms under the model's own distribution, before
    any sampling parameter; -9999.0 stands for a banned token."""

    tokens: list[str] = Field(description=r"The token's text; `bytes:\xe2\x82` where it holds part of a character.")
    token_logprobs: list[float | None] = Field(description="Null for the very first token of a prompt.")
    top_logprobs: list[dict[str, float] | None] = Field(
        description="The likeliest tokens at this place, best first, and always the token itself."
    )
    text_offset: list[int] = Field(description="Characters of the choice's text before the token's first byte.")
    bytes: list[list[int]] = Field(description="The token's true bytes.")


class CompletionChoice(BaseModel):
    """One answer."""

    index: int = Field(description="prompt * n + number of the choice.")
    text: str = Field(description="The answer; with echo the prompt before it.")
    logprobs: CompletionLogprobs | None = Field(None, description="Null unless asked for.")
    finish_reason: Literal["stop", "length"] = Field(
        description="stop: the model ended, or a stop string or token did; length: it was cut."
    )
    stop_reason: str | int | None = Field(
        None, description="The stop string or stop token id that ended it, if one did."
    )


class CompletionResponse(BaseModel):
    """All answers. Streamed, each event is such an object with one choice: a piece of its text and, in its last one,
    finish_reason and stop_reason."""

    id: str = Field(description="Of this answer; the same in all chunks.")
    object: Literal["text_completion"] = Field("text_completion", description="What this is.")
    created: int = Field(description="Unix time of the request.")
    model: str = Field(description="The model's name in /v1/models.")
    choices: list[CompletionChoice] = Field(description="n to each prompt, one prompt's after the other's.")
    usage: OpenAIUsage = Field(description="Tokens of all the choices; each prompt's once.")
