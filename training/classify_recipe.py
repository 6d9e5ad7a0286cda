"""The recipe of a classifier: what every fine-tuning recipe holds, which fields of the data are read, and how classes count."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from training.finetune import FinetuneData, FinetuneSettings, Method


class ClassifyData(FinetuneData):
    """Which rows, and which of their fields. `columns` names those of .csv and .tsv files without a header line. `labels` gives
    the classes their order (without it they are sorted), `label_names` other names than the data's, as in {"0" = "negative"}.
    `test`: files that are measured once, at the end; without any, `test_fraction` of the rows, chosen by a hash of their text, and
    validation rows are taken from the rest, so that nothing is chosen by them. `deduplicate` keeps the first row of each text, and
    none that the validation or test files have. `max_length`: tokens of a text that are read; without it as many as the model can.
    `eval_rows`: of the validation rows, measured on the way (all of them at the end)."""

    text_field: str = "text"
    label_field: str = "label"
    columns: tuple[str, ...] | None = None
    labels: tuple[str, ...] = ()
    label_names: dict[str, str] = Field(default_factory=dict)
    test: tuple[str, ...] = ()
    test_fraction: float = Field(default=0.0, ge=0, lt=1)
    deduplicate: bool = True
    max_length: int | None = Field(default=None, ge=1)
    class_weights: Literal["none", "balanced"] = "none"
    eval_rows: int = Field(default=1000, ge=1)
    about: str = ""  # a line on source and licence, for the model card


class ClassifySettings(FinetuneSettings):
    """A whole classification recipe."""

    learning_rates: ClassVar[Mapping[Method, float]] = {"full": 1e-4, "last_block": 1e-3, "lora": 1e-3}

    name: str = "classifier"
    data: ClassifyData = ClassifyData()
