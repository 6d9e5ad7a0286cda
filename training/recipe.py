"""A recipe: everything that fixes a pretraining run, read from TOML. Its sections are the classes below."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from model.errors import ConfigError
from training.optim import OptimizerName


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSettings(_Section):
    """What is read: `corpus` files or directories (usually given on the command line). `tokenizer`: a tokenizer.json
    to use; without it one of `vocab_size` tokens is trained on the corpus."""

    corpus: list[str] = []
    tokenizer: str | None = None
    vocab_size: int = Field(default=4096, ge=257)
    validation_fraction: float = Field(default=0.02, gt=0, lt=1)
    about: str = ""  # a line on source and licence, for the model card


class ModelSettings(_Section):
    """A preset and what differs from it; the vocabulary's size always follows the tokenizer."""

    preset: str = "homegrown-4m"
    changes: dict[str, int | float] = {}


class OptimSettings(_Section):
    """The optimiser and its schedule. `matrix_lr` is Muon's; `batch_tokens` the tokens of one update."""

    optimizer: OptimizerName = "muon"
    lr: float = Field(default=3e-3, gt=0)
    matrix_lr: float = Field(default=0.02, gt=0)
    weight_decay: float = Field(default=0.1, ge=0)
    beta2: float = Field(default=0.95, gt=0, lt=1)
    clip: float = Field(default=1.0, gt=0)
    batch_tokens: int = Field(default=16384, ge=1)
    warmup_steps: int = Field(default=100, ge=0)
    cooldown: float = Field(default=0.4, gt=0, le=1)
    floor: float = Field(default=0.05, ge=0, le=1)


class RunSection(_Section):
    """How long and how. The run ends at `minutes` or `steps`, whichever comes first."""

    seed: int = 0
    minutes: float | None = Field(default=None, gt=0)
    steps: int | None = Field(default=None, ge=1)
    micro_batch: int = Field(default=16, ge=1)
    bf16: bool = True
    compile: bool = True
    threads: int | None = Field(default=None, ge=1)
    device: str = "cpu"
    log_every: int = Field(default=10, ge=1)
    eval_every: int = Field(default=250, ge=1)
    eval_tokens: int = Field(default=100_000, ge=1)
    save_every: int = Field(default=250, ge=1)
    keep: int = Field(default=2, ge=1)

    @model_validator(mode="after")
    def _has_an_end(self) -> "RunSection":
        if self.minutes is None and self.steps is None:
            raise ValueError("give minutes or steps, so that the run ends")
        return self


class PretrainSettings(_Section):
    """A whole recipe."""

    name: str = "homegrown"
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    optim: OptimSettings = OptimSettings()
    run: RunSection

    @classmethod
    def from_toml(cls, path: Path, overrides: Mapping[str, Mapping[str, Any]] | None = None) -> "PretrainSettings":
        """Read a recipe; `overrides` (section -> field -> value) win. ConfigError names file and field."""
        try:
            content = tomllib.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: not readable as TOML ({error})") from None
        for section, fields in (overrides or {}).items():
            content.setdefault(section, {}).update(fields)
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            raise ConfigError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
