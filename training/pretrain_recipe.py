"""The recipe of a pretraining run: base recipe's sections, and what is read, of which model, for how long."""

from typing import Self

from pydantic import Field, model_validator

from training.data.filters import FilterSettings
from training.optim import OptimizerName
from training.recipe import OptimSettings, Recipe, RunSection, Section


class DataSettings(Section):
    """What is read: `corpus` files, directories or `hf:` names (usually given on the command line), the text of a row in
    `field`. `tokenizer`: a tokenizer.json to use; without it one of `vocab_size` tokens is trained on the corpus.
    `document_mask`: tokens see their own document alone, and positions begin anew in each. `general`: files of other text, to see
    what going on from `model.start` does to it; their rows' text is in `field` too."""

    corpus: tuple[str, ...] = ()
    field: str = "text"
    tokenizer: str | None = None
    vocab_size: int = Field(default=4096, ge=257)
    validation_fraction: float = Field(default=0.02, gt=0, lt=1)
    filters: FilterSettings = FilterSettings()
    document_mask: bool = True
    general: tuple[str, ...] = ()
    about: str = ""  # a line on source and licence, for the model card


class ModelSettings(Section):
    """A preset and what differs from it, its vocabulary following the tokenizer; or `start`, a bundled or pulled model's name or
    a model directory to go on from, with its own tokenizer."""

    preset: str = "homegrown-4m"
    changes: dict[str, int | float] = Field(default={})
    start: str | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if self.start is not None and self.model_fields_set & {"preset", "changes"}:
            raise ValueError("start brings its own shape; leave preset and changes out")
        return self


class PretrainOptim(OptimSettings):
    """`batch_tokens`: tokens of one update, over all processes."""

    optimizer: OptimizerName = "muon"
    batch_tokens: int = Field(default=16384, ge=1)


class PretrainRun(RunSection):
    """`eval_tokens`: of the validation split, read at each evaluation (the whole of it at the end). `prompts`: what samples on the
    way begin with."""

    eval_tokens: int = Field(default=100_000, ge=2)
    prompts: tuple[str, ...] = ("",)


class PretrainSettings(Recipe):
    """A whole pretraining recipe."""

    name: str = "homegrown"
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    optim: PretrainOptim = PretrainOptim()
    run: PretrainRun

    @model_validator(mode="after")
    def _general_text_needs_a_start(self) -> Self:
        if self.data.general and self.model.start is None:
            raise ValueError("data.general is measured before and after going on from a model; name it as model.start")
        return self
