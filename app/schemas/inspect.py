"""POST /inspect: a short text as the model reads it, layer by layer."""

from typing import Annotated

from pydantic import BaseModel, Field

from app.schemas.common import RequestBody

MAX_TOKENS = 128
_MOST_LAYERS = 1024


class InspectRequest(RequestBody):
    """A text to look at."""

    text: str = Field(
        description=f"The text, of up to {MAX_TOKENS} tokens. It is read as a prompt: special tokens written in it count as such."
    )
    model: str | None = Field(
        None, description="A name from /v1/models; by default the served model. It must be one that gives text."
    )
    layers: list[Annotated[int, Field(ge=0, lt=_MOST_LAYERS)]] | None = Field(
        None,
        fail_fast=True,
        max_length=_MOST_LAYERS,
        description="Whose attention is to be told: numbers of layers, from 0; by default all. The lens always has all.",
    )


class InspectedToken(BaseModel):
    """A token of the text."""

    id: int = Field(description="Its id.")
    text: str = Field(description="Its text, U+FFFD for parts of a character.")
    bytes: list[int] = Field(description="Its bytes, often part of a character only.")


class LensToken(BaseModel):
    """A token that may come next."""

    id: int = Field(description="Its id.")
    text: str = Field(description="Its text, U+FFFD for parts of a character.")
    bytes: list[int] = Field(description="Its bytes, often part of a character only.")
    probability: float = Field(description="Its share, rounded to 6 digits.")


class InspectResponse(BaseModel):
    """What attention looks at in every layer and head, and what the model would say next after each layer."""

    id: str = Field(description="The answer's own name.")
    model: str = Field(description="The model that answered.")
    tokens: list[InspectedToken] = Field(description="The text as the model reads it.")
    layers: int = Field(description="Layers of the model.")
    heads: int = Field(description="Heads of attention in each.")
    attention_layers: list[int] = Field(description="Whose attention this is: the request's `layers`, or all.")
    attention: list[list[list[list[float]]]] = Field(
        description="[layer][head][query][key], rounded to 4 digits: how much each position takes from each. A row sums to 1, and "
        "is 0 behind the query itself."
    )
    lens: list[list[list[LensToken]]] = Field(
        description="[layers + 1][position]: the 5 likeliest next tokens, best first, where the final norm and the head are put "
        "on the hidden state after the embedding, then after each layer (the logit lens). The last is the model's own prediction."
    )
