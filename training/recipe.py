"""A recipe: everything that fixes a run, read from TOML. Its sections are the classes below; each task's own are beside it."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from model.errors import ConfigError
from training.optim import OptimizerName, Shape


class Section(BaseModel):
    """A table of a recipe: unknown keys are refused, and nothing changes once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Recipe(Section):
    """A whole recipe: a task's settings, read from a file, single values given on the command line winning."""

    @classmethod
    def from_toml(cls, path: Path | None, overrides: Mapping[str, Any] | None = None) -> Self:
        """Read a recipe (`path` None: the defaults); `overrides`, nested as its tables are, win; a value of None overrides
        nothing. ConfigError names file and field."""
        where, content = path or "settings", {}
        if path is not None:
            try:
                content = tomllib.loads(path.read_text("utf-8"))
            except (OSError, ValueError) as error:
                raise ConfigError(f"{path}: not readable as TOML ({error})") from None
        _merge(content, overrides or {}, where)
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise ConfigError(": ".join([str(where), *([place] if place else []), first["msg"]])) from None


def _merge(content: dict[str, Any], overrides: Mapping[str, Any], where: Path | str) -> None:
    for name, value in overrides.items():
        if not isinstance(value, Mapping):
            if value is not None:
                content[name] = value
        elif isinstance(table := content.setdefault(name, {}), dict):
            _merge(table, value, where)
        else:
            raise ConfigError(f"{where}: {name}: is {table!r}, not a table, so no field of it can be set")


class OptimSettings(Section):
    """The optimiser and its schedule. `matrix_lr` is Muon's, for the blocks' matrices; `lr` AdamW's, for the rest or for all.
    `schedule`: wsd is flat, then falls over the last `cooldown` of the run; cosine falls from the warm-up's end. Both end at
    `floor` of the peak."""

    optimizer: OptimizerName = "adamw"
    lr: float = Field(default=3e-3, gt=0)
    matrix_lr: float = Field(default=0.02, gt=0)
    weight_decay: float = Field(default=0.1, ge=0)
    beta2: float = Field(default=0.95, gt=0, lt=1)
    clip: float = Field(default=1.0, gt=0)
    warmup_steps: int = Field(default=100, ge=0)
    schedule: Shape = "wsd"
    cooldown: float = Field(default=0.4, gt=0, le=1)
    floor: float = Field(default=0.05, ge=0, le=1)


class RunSection(Section):
    """How long and how. The run ends at `minutes`, `steps` or `epochs`, whichever comes first.

    `bf16`: products in bfloat16 with float32 weights; by default where the processor has instructions for it. `micro_batch`: rows
    computed at a time, for memory; `checkpointing` computes each layer's activations twice to hold fewer: neither changes the
    result, but with dropout, whose draws are made for each micro-batch. `parallel`: what `torchrun` with several processes does.
    `keep`: newest saved states kept, beside the best. `sample_every`: text samples on the way (0: none). `tensorboard` writes
    event files beside the log.
    """

    seed: int = Field(default=0, ge=0, lt=2**32)
    minutes: float | None = Field(default=None, gt=0)
    steps: int | None = Field(default=None, ge=1)
    epochs: float | None = Field(default=None, gt=0)
    micro_batch: int = Field(default=16, ge=1)
    bf16: bool | None = None
    compile: bool = True
    checkpointing: bool = False
    parallel: Literal["ddp", "fsdp"] = "ddp"
    threads: int | None = Field(default=None, ge=1)
    device: str = "auto"
    log_every: int = Field(default=10, ge=1)
    eval_every: int = Field(default=250, ge=1)
    save_every: int = Field(default=250, ge=1)
    sample_every: int = Field(default=0, ge=0)
    keep: int = Field(default=2, ge=1)
    tensorboard: bool = True

    @model_validator(mode="after")
    def _has_an_end(self) -> Self:
        if self.minutes is None and self.steps is None and self.epochs is None:
            raise ValueError("give minutes, steps or epochs, so that the run ends")
        return self

    @property
    def precision_bf16(self) -> bool:
        """Whether to compute in bfloat16: as asked, or where it is faster."""
        if self.bf16 is not None:
            return self.bf16
        if self.device.startswith("cuda") or (self.device == "auto" and torch.cuda.is_available()):
            return torch.cuda.is_bf16_supported(including_emulation=False)
        known = getattr(torch.cpu, "get_capabilities", dict)()  # not in every version of PyTorch
        return any(known.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
