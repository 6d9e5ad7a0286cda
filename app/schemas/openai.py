"""What OpenAI's two ways to generate have in common: /v1/completions and /v1/chat/completions."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

from pydantic import BaseModel, Field, model_validator
from pydantic_core import PydanticCustomError

from app.engine.messages import Finish
from app.schemas.common import RequestBody, SamplingFields, Usage

MAX_CHOICES = 128


class StreamOptions(RequestBody):
    """Only together with `stream`."""

    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "include_obfuscation": (False,),
        "continuous_usage_stats": (False,),  # vLLM's: usage in every chunk
    }

    include_usage: bool = Field(
        False, description="Send one more chunk before the end, with usage and no choices; usage is null in the others."
    )


class OpenAIFields(SamplingFields):
    """The fields of both routes."""

    # The values named change nothing, so they may be sent; any other is refused. First OpenAI's own, then what other servers
    # have added to its API and clients may therefore believe to work here.
    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "tools": ([],),
        "tool_choice": ("none", "auto"),
        "functions": ([],),
        "function_call": ("none", "auto"),
        "modalities": (["text"],),
        "audio": (),
        "prediction": (),
        "reasoning_effort": ("none",),
        "verbosity": ("medium",),
        "web_search_options": (),
        "store": (False,),
        "service_tier": ("auto", "default"),
        "use_beam_search": (False,),
        "length_penalty": (1, 1.0),
        "include_stop_str_in_output": (False,),
        "skip_special_tokens": (True,),
        "return_token_ids": (False,),
        "return_tokens_as_token_ids": (False,),
        "truncate_prompt_tokens": (),
        "prompt_logprobs": (),
        "allowed_token_ids": (),
        "bad_words": ([],),
        "structured_outputs": (),
        "guided_json": (),
        "guided_regex": (),
        "guided_choice": (),
        "guided_grammar": (),
    }

    model: str | None = Field(None, description="A name from /v1/models; by default the served model.")
    n: int = Field(
        1,
        ge=1,
        le=MAX_CHOICES,
        description="Answers to each prompt. All of a request's answers must fit into the server's slots and queue.",
    )
    best_of: int | None = Field(
        None, ge=1, le=MAX_CHOICES, description="Only the value of n: answers are not made to be thrown away."
    )
    stream: bool = Field(False, description="Send the answer piece by piece as server-sent events.")
    stream_options: StreamOptions | None = Field(None, description="More about the stream; refused without `stream`.")
    user: str | None = Field(None, description="The client's own name for its user. Not used, and not logged.")

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise PydanticCustomError(
                "invalid_value",
                "{param} needs stream to be true; leave it out of a request whose answer is not streamed",
                {"param": "stream_options"},
            )
        if self.best_of not in (None, self.n):
            raise PydanticCustomError(
                "unsupported_parameter",
                "{param} must be the same as n here: every answer that is made is returned; leave it out",
                {"param": "best_of"},
            )
        return self

    @property
    def include_usage(self) -> bool:
        """Whether the stream is to end with a chunk of usage."""
        return self.stream_options is not None and self.stream_options.include_usage


class PromptTokensDetails(BaseModel):
    """More about a prompt's tokens."""

    cached_tokens: int = Field(description="Those that needed no computing: an earlier request had begun with them.")


class OpenAIUsage(Usage):
    """Tokens counted; a prompt counts once, however many answers it has."""

    prompt_tokens_details: PromptTokensDetails = Field(description="More about the prompt's tokens.")


def count_usage(finishes: Sequence[Finish], n: int) -> dict[str, Any]:
    """OpenAIUsage, as a dict, of all answers to a request: `n` to each prompt, one prompt's after the other's."""
    firsts = range(0, len(finishes), n)
    prompt = sum(finishes[first].prompt_tokens for first in firsts)
    completion = sum(finish.completion_tokens for finish in finishes)
    # The choices of one prompt share it: what the first of them computes is cached for the others.
    cached = sum(min(finish.timings.cached for finish in finishes[first : first + n]) for first in firsts)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
