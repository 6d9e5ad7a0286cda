"""What all fine-tuning shares: its settings, the model it starts from, and the directory it leaves.

Three methods: `full` trains every weight, `last_block` the last block, the final norm and the head, `lora` low-rank pairs
beside the frozen linear layers (and a classifier's head).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator

from model.adapters import ADAPTER_CONFIG, save_adapter
from model.checkpoint import load_model
from model.classifier import as_classifier
from model.derived import save_texts, save_weights, stored_dtype
from model.errors import CheckpointError, ConfigError
from model.files import staged_directory
from model.gpt import GPT, SequenceClassifier
from model.hub import resolve_model
from model.lora import LoraConfig, add_lora
from model.tokenizer import Tokenizer
from training.costs import count_parameters
from training.recipe import OptimSettings, Recipe, RunSection, Section

Method = Literal["full", "last_block", "lora"]


class LoraSettings(Section):
    """Low-rank adaptation. `alpha` / `rank` scales the pairs' product (`rslora`: `alpha` / sqrt(rank)). `targets`: projections
    by their published names (q_proj, v_proj, c_attn, ...), or "all" of them."""

    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: Literal["all"] | tuple[str, ...] = "all"
    rslora: bool = False

    def config(self) -> LoraConfig:
        """The same for the model's own code."""
        return LoraConfig(**self.model_dump())


class FinetuneOptim(OptimSettings):
    """As in pretraining, with the defaults of short runs: few updates of warm-up, then linearly down to nothing. `batch_rows`:
    examples an update. `lr` follows from the method when it isn't given; `matrix_lr`, Muon's, is a fifth of pretraining's."""

    batch_rows: int = Field(default=16, ge=1)
    matrix_lr: float = Field(default=0.004, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    beta2: float = Field(default=0.999, gt=0, lt=1)
    warmup_steps: int = Field(default=20, ge=0)
    cooldown: float = Field(default=1.0, gt=0, le=1)
    floor: float = Field(default=0.0, ge=0, le=1)


class FinetuneRun(RunSection):
    """As in pretraining, three epochs by default. Not compiled by default: a short run with rows of many lengths spends more on
    compiling than it wins."""

    epochs: float | None = Field(default=3.0, gt=0)
    compile: bool = False
    eval_every: int = Field(default=100, ge=1)
    save_every: int = Field(default=100, ge=1)


class FinetuneData(Section):
    """Which rows measure and which train. `validation`: files of their own; without any, `validation_fraction` of the rows,
    chosen by a hash of their text, so that equal texts are never on both sides."""

    validation: tuple[str, ...] = ()
    validation_fraction: float = Field(default=0.1, gt=0, lt=1)


class FinetuneSettings(Recipe):
    """A fine-tuning recipe; each task adds its own. `model`: a bundled or pulled model's name, or a model directory."""

    learning_rates: ClassVar[Mapping[Method, float]] = {"full": 1e-4, "last_block": 5e-4, "lora": 5e-4}

    name: str = "finetuned"
    model: str = "homegrown-base"
    method: Method = "full"
    lora: LoraSettings = LoraSettings()
    data: FinetuneData = FinetuneData()
    optim: FinetuneOptim = FinetuneOptim()
    run: FinetuneRun = FinetuneRun()

    @model_validator(mode="before")
    @classmethod
    def _rate_of_the_method(cls, content: Any) -> Any:
        """The learning rate that suits the method, where the recipe names none."""
        if not isinstance(content, dict) or not isinstance(optim := content.get("optim", {}), dict):
            return content
        rate = cls.learning_rates.get(content.get("method", cls.model_fields["method"].default))
        return content if rate is None else {**content, "optim": {"lr": rate, **optim}}


@dataclass(frozen=True)
class Start:
    """Where a run begins. `model`: float32 on the CPU, requires_grad set as the method says. `base`: the directory it came
    from, `base_name` what an adapter names it by; `dtype`: how its weights were stored, so how they will be."""

    model: GPT | SequenceClassifier
    tokenizer: Tokenizer
    base: Path
    base_name: str
    dtype: torch.dtype

    @property
    def trunk(self) -> GPT:
        """The transformer itself."""
        return self.model.trunk if isinstance(self.model, SequenceClassifier) else self.model

    @property
    def language_model(self) -> GPT:
        """The model of a run that was started without labels."""
        assert isinstance(self.model, GPT)
        return self.model

    @property
    def classifier(self) -> SequenceClassifier:
        """The model of a run that was started with labels."""
        assert isinstance(self.model, SequenceClassifier)
        return self.model


def start(settings: FinetuneSettings, labels: tuple[str, ...] = ()) -> Start:
    """The base model, ready to be trained: a language model, or with `labels` a classifier, whose head is new (drawn from
    run.seed) unless the base is a classifier of the same labels.

    CheckpointError when the base can't be read; ConfigError when it is a classifier and a language model is wanted, or when it
    has no projection of a name in lora.targets.
    """
    if (Path(settings.model) / ADAPTER_CONFIG).is_file():
        raise CheckpointError(
            f"{settings.model}: is an adapter; merge it first: homegrown merge {settings.model} --out DIR"
        )
    base = resolve_model(settings.model)
    tokenizer, model = Tokenizer.from_directory(base), load_model(base)
    torch.manual_seed(settings.run.seed)
    if labels and model.config.labels != labels:
        model = as_classifier(model, labels, seed=settings.run.seed)
    elif not labels and isinstance(model, SequenceClassifier):
        raise ConfigError(f"{base}: is a classifier; this task needs a language model")
    name = str(base.resolve()) if Path(settings.model).is_dir() else settings.model
    started = Start(model, tokenizer, base, name, stored_dtype(base))
    _choose_weights(started, settings)
    return started


def _choose_weights(started: Start, settings: FinetuneSettings) -> None:
    if settings.method == "lora":
        add_lora(started.model, settings.lora.config())
        return
    started.model.requires_grad_(settings.method == "full")
    trunk = started.trunk
    head = started.model.score if isinstance(started.model, SequenceClassifier) else trunk.head
    for part in (trunk.blocks[-1], trunk.norm):
        part.requires_grad_(True)
    if (
        head is not None and head.weight is not trunk.token_embedding.weight
    ):  # a tied head is the embedding, in front of all
        head.requires_grad_(True)


def fingerprint(started: Start, settings: FinetuneSettings, **data: Any) -> dict[str, Any]:
    """What a resumption must share with the run it goes on with; `data`: what fixes the task's rows. To be taken before any
    update: the weights at the start are in it."""
    digest = hashlib.sha256()
    for name, tensor in started.model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy())
    fixed = {
        "model": digest.hexdigest(),
        "method": settings.method,
        "seed": settings.run.seed,
        "optimizer": settings.optim.optimizer,
        "batch_rows": settings.optim.batch_rows,
    }
    if settings.method == "lora":
        fixed["lora"] = settings.lora.model_dump(mode="json")
    return fixed | data


def method_text(started: Start, settings: FinetuneSettings) -> str:
    """What was trained, in a sentence without its end, for cards."""
    lora, count = settings.lora, count_parameters(started.model)
    targets = lora.targets if lora.targets == "all" else ", ".join(lora.targets)
    scaling = f"alpha {lora.alpha:g}{', scaled by its root' if lora.rslora else ''}"
    what = {
        "full": "All weights were trained",
        "last_block": "The last block, the final norm and the head, where it has weights of its own, were trained",
        "lora": f"Low-rank pairs were trained (rank {lora.rank}, {scaling}, dropout {lora.dropout:g}, targets {targets})",
    }
    return f"{what[settings.method]}: {count.trainable:,} of {count.total:,} parameters"


@torch.no_grad()
def round_weights(started: Start, settings: FinetuneSettings) -> None:
    """Round the weights, in place, to what `export` will store, so that what is measured is what is shipped. Adapters are
    stored in float32, and their base as it was."""
    if settings.method != "lora":
        for parameter in started.model.parameters():
            parameter.copy_(parameter.to(started.dtype))


def export(
    started: Start,
    settings: FinetuneSettings,
    directory: Path,
    *,
    card: str,
    templates: Mapping[str, str] | None = None,
) -> Path:
    """Write directory/model, whole or not at all, and return it: a Hugging Face model directory, for `lora` a PEFT adapter
    directory; with the tokenizer, `card` as README.md, and the base's prompt templates, where `templates` (file name -> text)
    has no other."""
    target = directory / "model"
    with staged_directory(target, overwrite=True) as stage:
        if settings.method == "lora":
            save_adapter(started.model, stage, started.base_name)
        else:
            save_weights(started.model, stage, started.base)
        save_texts(started.tokenizer, started.model.config, stage, started.base)
        for name, text in (templates or {}).items():
            (stage / name).write_text(text, "utf-8")
        (stage / "README.md").write_text(card, "utf-8")
    return target
