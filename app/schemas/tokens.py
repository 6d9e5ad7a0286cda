"""POST /tokenize and /detokenize. The field names are vLLM's, where it has the field."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, Discriminator, Field, Tag

from app.schemas.chat import MessagesFields
from app.schemas.common import CHAT_MODEL, RequestBody


class TokenizeFields(RequestBody):
    """What both forms of a request have in common."""

    model: str | None = Field(None, description="A name from /v1/models; by default the served model.")
    pieces: bool = Field(True, description="Also tell the bytes of each token.")
    return_token_strs: bool = Field(False, description="Also tell each token as text.")


class TokenizePrompt(TokenizeFields):
    """A text as /generate and /v1/completions read it."""

    prompt: str = Field(description="The text. Special tokens written in it, such as <|endoftext|>, count as such.")
    add_special_tokens: bool = Field(
        True, description="Put the token that begins a text in front, where the model wants it."
    )


class TokenizeChat(MessagesFields, TokenizeFields):
    """Messages as /v1/chat/completions reads them, in the model's template."""

    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {"prompt": (), "add_special_tokens": (False,)}

    model: str | None = Field(None, description=CHAT_MODEL)


def _form(value: Any) -> str:
    messages = value.get("messages") if isinstance(value, dict) else getattr(value, "messages", None)
    return "form[prompt]" if messages is None else "form[chat]"


# (The tags look like types, since error messages leave those out of a field's path.)
TokenizeRequest = Annotated[
    Annotated[TokenizePrompt, Tag("form[prompt]")] | Annotated[TokenizeChat, Tag("form[chat]")], Discriminator(_form)
]


class TokenizeResponse(BaseModel):
    """The tokens."""

    count: int = Field(description="How many there are.")
    max_model_len: int = Field(description="Context in tokens: prompt and answer together.")
    tokens: list[int] = Field(description="Their ids.")
    pieces: list[list[int]] | None = Field(
        None, description="The bytes of each, often part of a character only. Left out when the request has it false."
    )
    token_strs: list[str] | None = Field(
        None, description="Each as text, U+FFFD for parts of a character. Only with `return_token_strs`."
    )


class DetokenizeRequest(RequestBody):
    """Token ids to turn into text."""

    tokens: list[int] = Field(fail_fast=True, description="Token ids; those of special tokens become their text.")
    model: str | None = Field(None, description="A name from /v1/models; by default the served model.")


class DetokenizeResponse(BaseModel):
    """The text."""

    prompt: str = Field(description="Bytes that are not UTF-8 are U+FFFD.")
