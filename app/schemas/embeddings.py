"""POST /v1/embeddings."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError, ValidatorFunctionWrapHandler, field_validator

from app.schemas.common import RequestBody

MAX_INPUTS = 2048  # OpenAI's
_SHAPES = "must be a text, a list of texts, a list of token ids, or a list of such lists"

TokenIds = Annotated[list[int], Field(min_length=1)]


class EmbeddingRequest(RequestBody):
    """Texts to turn into vectors."""

    input: (
        Annotated[str, Field(min_length=1)]
        | Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=MAX_INPUTS)]
        | TokenIds
        | Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_INPUTS)]
    ) = Field(
        description=f"A text, up to {MAX_INPUTS} texts, the token ids of one, or of up to {MAX_INPUTS}. None empty, none longer "
        "than the context. Nothing written in a text counts as a special token."
    )
    model: str | None = Field(None, description="A name from /v1/models; by default the served model.")
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="A list of numbers, or the base64 of their bytes: float32, little-endian."
    )
    dimensions: int | None = Field(
        None, ge=1, description="Only the model's own number: a shorter vector of the same meaning can't be had here."
    )
    user: str | None = Field(None, description="The client's own name for its user. Not used, and not logged.")

    @field_validator("input", mode="wrap")
    @classmethod
    def _say_it_once(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        mistake = _mistake(value)
        if mistake is not None:  # else there would be one for each shape that it might have had, and for each entry
            raise ValueError(mistake)
        try:
            return handler(value)
        except ValidationError:  # the shape is right
            raise ValueError("has half a surrogate pair, which is no text") from None

    @property
    def inputs(self) -> list[str] | list[list[int]]:
        """One entry per vector."""
        if isinstance(self.input, str):
            return [self.input]
        return [self.input] if isinstance(self.input[0], int) else self.input  # type: ignore[return-value]


def _mistake(value: object) -> str | None:
    """What is wrong with an input; None when it has one of the shapes."""
    if value in ("", []):
        return "is empty; give at least one text"
    if isinstance(value, str):
        return None
    kinds = set(map(type, value)) if isinstance(value, list) else set()
    if not isinstance(value, list) or kinds not in ({str}, {int}, {list}):
        return _SHAPES
    if kinds == {int}:
        return None
    if len(value) > MAX_INPUTS:
        return f"at most {MAX_INPUTS} inputs in one request, not {len(value)}"
    if not all(value):
        return f"entry {next(i for i, entry in enumerate(value) if not entry)} is empty; leave it out"
    if kinds == {list} and any(set(map(type, entry)) != {int} for entry in value):
        return _SHAPES
    return None


class Embedding(BaseModel):
    """The vector of one input."""

    object: Literal["embedding"] = Field("embedding", description="What this is.")
    index: int = Field(description="The input's place in the request.")
    embedding: list[float] | str = Field(description="[d_model] numbers of length 1 together, or their base64.")


class InputUsage(BaseModel):
    """Tokens of the inputs, as the model read them."""

    prompt_tokens: int = Field(description="All of them.")
    total_tokens: int = Field(description="The same: nothing is generated.")


class EmbeddingResponse(BaseModel):
    """The mean of the last hidden states over each input's tokens, scaled to length 1; in the inputs' order."""

    object: Literal["list"] = Field("list", description="What this is.")
    data: list[Embedding] = Field(description="An entry per input.")
    model: str = Field(description="The model that answered.")
    usage: InputUsage = Field(description="Tokens of the inputs.")
