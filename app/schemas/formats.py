"""response_format: answers that are JSON, or JSON that fits a schema."""

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from app.engine.messages import Grammar
from app.schemas.common import RequestBody

MAX_SCHEMA_BYTES = 65536  # the engine's own limit, looked at before anything is sent: once for all choices


class JSONSchemaFormat(RequestBody):
    """A schema for the answer."""

    name: str = Field(
        min_length=1,
        max_length=64,
        pattern="^[a-zA-Z0-9_-]+$",
        description="What the schema is called; changes nothing.",
    )
    description: str | None = Field(
        None, description="What the answer is for. The model doesn't read it: put it into a message too."
    )
    schema_: dict[str, Any] = Field(
        alias="schema", description="A JSON schema of up to 64 KiB. What can't be enforced is refused."
    )
    strict: bool = Field(False, description="Changes nothing: the answer always fits the schema.")

    @field_validator("schema_")
    @classmethod
    def _check_schema(cls, value: dict[str, Any]) -> dict[str, Any]:
        size = len(_dump(value).encode())
        if size > MAX_SCHEMA_BYTES:
            raise ValueError(f"of {size} bytes; at most {MAX_SCHEMA_BYTES} can be used: make it shorter")
        return value


class ResponseFormat(RequestBody):
    """The form of the answer. Every answer that is complete fits it; one cut by max_tokens or by a stop string of the
    request's own is only the beginning of such an answer, as finish_reason and stop_reason tell."""

    # llama.cpp's way to give a schema: its callers expect it to be enforced.
    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {"schema": ()}

    type: Literal["text", "json_object", "json_schema"] = Field(
        description="Any text, some JSON object, or JSON that fits `json_schema`."
    )
    json_schema: JSONSchemaFormat | None = Field(
        None, description="The schema; required with type json_schema, and only there."
    )

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        if (self.json_schema is not None) != (self.type == "json_schema"):
            text = "is only for type json_schema" if self.json_schema else "is missing; type json_schema needs it"
            raise PydanticCustomError("value_error", "{param} {text}", {"param": "json_schema", "text": text})
        return self

    @property
    def grammar(self) -> Grammar | None:
        """What the engine is to hold the answer to; None: nothing."""
        if self.json_schema is not None:
            return Grammar("json_schema", _dump(self.json_schema.schema_))
        return Grammar("json_object", "") if self.type == "json_object" else None


class FormatFields(RequestBody):
    """What requests with a `response_format` have in common. (`/generate`, `/instruct` and completions take it too: an
    extension to OpenAI's API, as in vLLM.)"""

    response_format: ResponseFormat | None = Field(
        None,
        description="The form of the answer: any text, a JSON object, or JSON that fits a schema; by default text.",
    )

    @property
    def grammar(self) -> Grammar | None:
        """What the engine is to hold the answer to; None: nothing."""
        return self.response_format and self.response_format.grammar


def _dump(schema: dict[str, Any]) -> str:
    """The schema as text. ValueError for one that has none."""
    try:
        text = json.dumps(schema, ensure_ascii=False, allow_nan=False)
        text.encode()
    except RecursionError:
        raise ValueError("nested too deep") from None
    except UnicodeEncodeError:
        raise ValueError("has half a surrogate pair, which is no text; leave it out") from None
    return text
