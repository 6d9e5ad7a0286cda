"""The recipes of instruction and preference tuning: what every fine-tuning recipe holds, which fields of the data are read, and
how prompts and batches are made of them."""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from training.data.dialogues import Fields
from training.data.examples import Layout, TooLong
from training.finetune import FinetuneData, FinetuneSettings, Method
from training.recipe import Section
from training.templates import Family


class DialogueData(FinetuneData):
    """Which rows, and how prompts are made of them.

    `fields`: the columns' names, where they are others; `columns`: those of .csv and .tsv files without a header line.
    `validation_fraction` goes by a hash of the first request, or of the field `split_field` (a document that several rows ask
    about, so that it is on one side). `template`: auto takes the base's own. `max_tokens`: of prompt and answer together, the
    model's context by default; what is longer is dropped, or cut at its end, as `too_long` says. `eval_rows`: of the validation
    rows, measured on the way (all of them at the end).
    """

    fields: Fields = Fields()
    columns: tuple[str, ...] | None = None
    split_field: str | None = None
    template: Family = "auto"
    too_long: TooLong = "drop"
    max_tokens: int | None = Field(default=None, ge=2)
    eval_rows: int = Field(default=500, ge=1)
    about: str = ""  # a line on source and licence, for the model card


class InstructData(DialogueData):
    """`layout`: padded has one example a row; packed fills rows of `max_tokens` with several, which don't see each other, so that
    little is padding: optim.batch_rows then counts such rows."""

    layout: Layout = "padded"


class AnswerSettings(Section):
    """Answers that the model writes to validation prompts, chosen by the seed: `measured` before and after training, `shown` of
    them in the card and as samples on the way, each of up to `max_tokens`."""

    measured: int = Field(default=100, ge=1)
    shown: int = Field(default=5, ge=0)
    max_tokens: int = Field(default=128, ge=1)


class InstructSettings(FinetuneSettings):
    """A whole recipe of instruction tuning."""

    learning_rates: ClassVar[Mapping[Method, float]] = {"full": 2e-4, "last_block": 5e-4, "lora": 1e-3}

    name: str = "instruct"
    data: InstructData = InstructData()
    answers: AnswerSettings = AnswerSettings()


class PreferSettings(FinetuneSettings):
    """A whole recipe of preference tuning (DPO). `beta`: how strongly the model is held to what it was (Rafailov et al., 2023)."""

    learning_rates: ClassVar[Mapping[Method, float]] = {"full": 2e-5, "last_block": 1e-4, "lora": 2e-4}

    name: str = "preferred"
    beta: float = Field(default=0.1, gt=0)
    data: DialogueData = DialogueData()
    answers: AnswerSettings = AnswerSettings()
