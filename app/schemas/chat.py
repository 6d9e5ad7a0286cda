"""POST /v1/chat/completions."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from app.schemas.common import CHAT_MODEL, RequestBody
from app.schemas.formats import FormatFields
from app.schemas.openai import OpenAIFields, OpenAIUsage

MAX_TOP_LOGPROBS = 20
MAX_MESSAGES = 2048  # as OpenAI has it


class TextPart(RequestBody):
    """A piece of a message."""

    type: Literal["text"] = Field(description="Only text can be read here: no images, sound or files.")
    text: str = Field(description="Parts of one message are joined by line ends.")


# A string, or parts: which of the two is seen at once, so that a mistake in one is not reported as one in the other. (The tags
# look like types, since error messages leave those out of a field's path.)
Content = Annotated[
    Annotated[str, Tag("str")]
    | Annotated[list[TextPart], Field(min_length=1, max_length=MAX_MESSAGES), Tag("list[part]")],
    Discriminator(lambda value: "list[part]" if isinstance(value, list) else "str"),
]


class ChatMessage(RequestBody):
    """Something that was said."""

    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "tool_calls": ([],),
        "function_call": (),
        "audio": (),
        "refusal": ("",),
    }

    role: Literal["system", "developer", "user", "assistant"] = Field(
        description="Who says it. developer is OpenAI's newer name for system, and the same here."
    )
    content: Content = Field(
        description="The text, as a string or as parts of type text. Special tokens written in it are text like any other."
    )
    name: str | None = Field(
        None, max_length=64, pattern=r"^[^\s<|\\/>]+$", description="Of the speaker, for templates that show it."
    )

    def to_template(self) -> dict[str, str | None]:
        """The message as chat templates know it."""
        role = "system" if self.role == "developer" else self.role
        content = self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)
        return {"role": role, "content": content, "name": self.name}


class MessagesFields(RequestBody):
    """A conversation, and where the model is to take it up."""

    messages: list[ChatMessage] = Field(
        min_length=1,
        max_length=MAX_MESSAGES,
        description="The conversation so far. A last message of the assistant's is continued.",
    )
    continue_final_message: bool | None = Field(
        None,
        description="Continue the last message instead of answering it; by default so when it is the assistant's. "
        "An extension, as in vLLM.",
    )
    add_generation_prompt: bool | None = Field(
        None,
        description="Put what the template has in front of an answer behind the last message; by default unless that is "
        "continued. An extension, as in vLLM.",
    )

    @model_validator(mode="after")
    def _check_continuation(self) -> Self:
        if self.continue_final_message:
            wrong = None
            if self.add_generation_prompt:
                wrong = "can't be set together with add_generation_prompt; leave out one of the two"
            elif self.messages[-1].role != "assistant":
                wrong = "needs a last message of the assistant's"
            if wrong is not None:
                param = "continue_final_message"
                raise PydanticCustomError("value_error", "{param} {wrong}", {"param": param, "wrong": wrong})
        return self

    @property
    def continues(self) -> bool:
        """Whether the last message is continued."""
        if self.continue_final_message is not None:
            return self.continue_final_message
        return self.messages[-1].role == "assistant" and self.add_generation_prompt is None

    @property
    def opens_answer(self) -> bool:
        """Whether the prompt ends with the beginning of an answer."""
        return not self.continues if self.add_generation_prompt is None else self.add_generation_prompt


class ChatRequest(OpenAIFields, FormatFields, MessagesFields):
    """Answer a conversation."""

    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **OpenAIFields.unsupported,
        "moderation": (),
        "echo": (False,),
        "add_special_tokens": (False,),
        "chat_template": (),
        "chat_template_kwargs": ({},),
        "documents": ([],),
    }

    model: str | None = Field(None, description=CHAT_MODEL)
    max_tokens: int | None = Field(
        None,
        ge=0,
        le=2**31 - 1,
        description="Longest answer, in tokens. Left out, it is the rest of the context.",
    )
    max_completion_tokens: int | None = Field(
        None, ge=0, le=2**31 - 1, description="OpenAI's newer name for max_tokens; wins when both are set."
    )
    logprobs: bool = Field(False, description="Report the log-probability of each token of the answer.")
    top_logprobs: int | None = Field(
        None,
        ge=0,
        le=MAX_TOP_LOGPROBS,
        description="Report this many of the likeliest tokens in each place too; needs logprobs.",
    )

    @model_validator(mode="after")
    def _check_logprobs(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            raise PydanticCustomError("value_error", "{param} needs logprobs to be true", {"param": "top_logprobs"})
        return self

    @property
    def length_field(self) -> str:
        """The name of the field that says how long an answer may be."""
        return "max_tokens" if self.max_completion_tokens is None else "max_completion_tokens"

    @property
    def asked_tokens(self) -> int | None:
        """Longest answer, if the client said."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def alternatives(self) -> int | None:
        """How many alternatives to report with each token; None: no log-probabilities at all."""
        return (self.top_logprobs or 0) if self.logprobs else None


class TokenLogprob(BaseModel):
    """A token and its log-probability under the model's own distribution, before any sampling parameter."""

    token: str = Field(description="Its text; U+FFFD where it holds only part of a character.")
    logprob: float = Field(description="Natural logarithm; -9999.0 for a banned token.")
    bytes: list[int] = Field(description="Its true bytes.")


class ChatTokenLogprob(TokenLogprob):
    """A token of the answer."""

    top_logprobs: list[TokenLogprob] = Field(description="The likeliest tokens in its place, best first.")


class ChatLogprobs(BaseModel):
    """Of an answer, or of a piece of it."""

    content: list[ChatTokenLogprob] = Field(description="One entry per token.")
    refusal: None = Field(description="Always null.")


class AnswerMessage(BaseModel):
    """What the model says."""

    role: Literal["assistant"] = Field(description="Always assistant.")
    content: str = Field(description="The text; of a continued message only what was added.")
    refusal: None = Field(description="Always null.")


class ChatChoice(BaseModel):
    """One of the answers."""

    index: int = Field(description="Which of the n answers.")
    message: AnswerMessage = Field(description="The answer.")
    logprobs: ChatLogprobs | None = Field(description="null unless asked for.")
    finish_reason: Literal["stop", "length"] = Field(
        description="stop: the model ended, or a stop string or token did; length: it was cut."
    )
    stop_reason: str | int | None = Field(description="The stop string or stop token id that ended it, if one did.")


class ChatResponse(BaseModel):
    """The answers, whole. Streamed, each event is a chat.completion.chunk: the same fields, but `delta` for `message`, first with
    the role, then with pieces of the content; finish_reason stands in the last one of each choice."""

    id: str = Field(description="Of this answer; the same in all chunks.")
    object: Literal["chat.completion"] = Field(description="What this is.")
    created: int = Field(description="Unix time of the answer's beginning.")
    model: str = Field(description="The model's name in /v1/models.")
    choices: list[ChatChoice] = Field(description="n of them.")
    usage: OpenAIUsage = Field(description="Tokens of all the choices; the prompt's once.")
