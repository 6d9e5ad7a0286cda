"""POST /classify."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError, ValidatorFunctionWrapHandler, field_validator, model_validator
from pydantic_core import PydanticCustomError

from app.likelihood import DEFAULT_TEMPLATE, LABEL_PLACE, TEXT_PLACE
from app.schemas.common import RequestBody
from app.schemas.embeddings import MAX_INPUTS, InputUsage

MAX_LABELS = 128
MAX_EXAMPLES = 128
MAX_SCORES = 16384
_LONGEST_LABEL = 200  # characters


class LabelledText(RequestBody):
    """A text and the label that is right for it."""

    text: str = Field(min_length=1, description="The text; blanks around it don't count.")
    label: str = Field(min_length=1, description="One of `labels`.")


class ClassifyRequest(RequestBody):
    """Texts to label: by a classifier, or, with `labels`, by a language model that was not trained for it."""

    input: str | Annotated[list[str], Field(min_length=1, max_length=MAX_INPUTS)] = Field(
        description=f"A text, or up to {MAX_INPUTS}, and with `labels` up to {MAX_SCORES} texts x labels; none blank. Blanks "
        "around a text don't count, nothing written in it counts as a special token, and what the context has no room for is "
        "cut from its end."
    )
    model: str | None = Field(
        None,
        description="A name from /v1/models; by default the served model, or, where that generates and no labels are given, "
        "the one classifier that there is.",
    )
    labels: list[str] | None = Field(
        None,
        min_length=2,
        max_length=MAX_LABELS,
        description="The labels to choose from: needed with a language model, refused with a classifier, which has its own.",
    )
    examples: list[LabelledText] = Field(
        [],
        max_length=MAX_EXAMPLES,
        description="Shown to a language model before each text (few-shot). They must fit into the context with it.",
    )
    template: str = Field(
        DEFAULT_TEMPLATE,
        max_length=4096,
        description=f"How a language model is shown a text and its label: has {TEXT_PLACE} once and ends in {LABEL_PLACE}. Two "
        "line breaks part it from the examples before it, which are shown in the same way.",
    )
    top_k: int | None = Field(
        None, ge=1, description="Only so many of the likeliest labels in `scores`; by default all."
    )

    @field_validator("input", mode="wrap")
    @classmethod
    def _say_it_once(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError:  # one for each shape that it might have had
            raise ValueError(f"must be a text or a list of 1 to {MAX_INPUTS} texts") from None

    @field_validator("labels")
    @classmethod
    def _check_labels(cls, value: list[str] | None) -> list[str] | None:
        for label in value or ():
            if not label.strip() or len(label) > _LONGEST_LABEL:
                raise ValueError(f"a label must have 1 to {_LONGEST_LABEL} characters that are not all blank")
            if any("\ud800" <= character <= "\udfff" for character in label):
                raise ValueError("a label has half a surrogate pair, which no answer could repeat")
        if value is not None and len(set(value)) < len(value):
            raise ValueError("a label stands there twice; name each once")
        return value

    @field_validator("template")
    @classmethod
    def _check_template(cls, value: str) -> str:
        if value.count(TEXT_PLACE) != 1 or value.count(LABEL_PLACE) != 1 or not value.endswith(LABEL_PLACE):
            raise ValueError(f"must have {TEXT_PLACE} once and end in {LABEL_PLACE}, its only one")
        return value

    @model_validator(mode="after")
    def _check_texts(self) -> Self:
        if len(self.texts) * len(self.labels or ()) > MAX_SCORES:
            raise _wrong("input", f"more than {MAX_SCORES} texts x labels; send the texts in several requests")
        for i, text in enumerate(self.texts):
            if not text.strip():
                where = "input" if isinstance(self.input, str) else f"input[{i}]"
                raise _wrong(where, "is blank; give some text")
        for i, example in enumerate(self.examples):
            if not example.text.strip():
                raise _wrong(f"examples[{i}].text", "is blank; give some text")
            if self.labels is not None and example.label not in self.labels:
                raise _wrong(f"examples[{i}].label", "is none of the labels")
        return self

    @property
    def texts(self) -> Sequence[str]:
        """One entry per answer."""
        return [self.input] if isinstance(self.input, str) else self.input


def _wrong(where: str, what: str) -> PydanticCustomError:
    return PydanticCustomError("invalid_value", "{param}: {what}", {"param": where, "what": what})


class Classification(BaseModel):
    """The answer for one text."""

    object: Literal["classification"] = Field("classification", description="What this is.")
    index: int = Field(description="The text's place in the request.")
    label: str = Field(description="The likeliest label.")
    scores: dict[str, float] = Field(
        description="Label -> probability, the likeliest first; over all labels they sum to 1. With `top_k` only so many."
    )
    truncated: bool = Field(description="Whether the text was too long for the context and its end was not read.")


class ClassifyResponse(BaseModel):
    """One answer per text, in their order."""

    id: str = Field(description="Of this answer.")
    object: Literal["list"] = Field("list", description="What this is.")
    model: str = Field(description="The model that answered.")
    data: list[Classification] = Field(description="An entry per text.")
    usage: InputUsage = Field(description="Tokens read for the texts; what labels get without a text is not counted.")
