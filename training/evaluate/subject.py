"""The model that is evaluated, and what the user asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from model.adapters import ADAPTER_CONFIG, load_with_adapter
from model.architectures import read_config
from model.backend import Backend, BackendSpec, load_backend
from model.checkpoint import empty_model, load_model
from model.errors import ConfigError, HomegrownError
from model.gpt import GPT, SequenceClassifier
from model.hub import resolve_model
from model.tokenizer import Tokenizer
from training.evaluate.ngram_baseline import Ngrams
from training.evaluate.scoring import BATCH_TOKENS, Scorer

T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """How to evaluate; each task's module says what it makes of these.

    limit: items taken at most: of texts and articles the first, of rows some drawn by the seed. stride: tokens from one perplexity
    window to the next. train: a labelled file for baselines and few-shot examples. names: a label's text in the data -> what it is
    called (by the classifier, or in the prompt). columns: of .csv and .tsv files without a header line. fields: (name, column) of
    rows with answers, where a column has another name. shots, prompt, calibrate: few-shot. max_tokens: of a generated answer.
    tasks: a directory of lm-eval task files of one's own. threads: for tokenising.
    """

    limit: int | None = None
    stride: int | None = None
    ngrams: Ngrams | None = None
    train: Path | None = None
    text_field: str = "text"
    label_field: str = "label"
    columns: tuple[str, ...] | None = None
    names: tuple[tuple[str, str], ...] = ()
    fields: tuple[tuple[str, str], ...] = ()
    shots: int = 0
    prompt: str | None = None
    calibrate: bool = True
    seed: int = 0
    max_tokens: int = 64
    tasks: Path | None = None
    threads: int = 1


@dataclass(frozen=True)
class Subject:
    """A loaded model with its tokenizer and the settings of its arithmetic. `directory`: where its tokenizer and templates are.
    `backend`: what computes the scores in the model's place, which then has a shape and no weights."""

    name: str
    directory: Path
    model: GPT | SequenceClassifier
    tokenizer: Tokenizer
    bf16: bool = False
    batch_tokens: int = BATCH_TOKENS
    backend: Backend | None = None

    @property
    def language_model(self) -> GPT:
        """The model, when it has a language-model head. ConfigError when it is a classifier, or has no weights here."""
        model = self._scored_model
        if self.backend is not None:
            raise ConfigError(
                f"{self.name}: --quantize, --dtype and --backend are for measures that score text; leave them out where it is "
                "to be generated"
            )
        return model

    @property
    def _scored_model(self) -> GPT:
        if not isinstance(self.model, GPT):
            raise ConfigError(
                f"{self.name}: is a classifier, without a language-model head; evaluate it on labelled rows: --on classify=FILE"
            )
        return self.model

    @property
    def classifier(self) -> SequenceClassifier:
        """The model, when it is a classifier. ConfigError when it isn't."""
        if not isinstance(self.model, SequenceClassifier):
            raise ConfigError(
                f"{self.name}: is a language model, without a classification head; score its labels with --on fewshot=FILE"
            )
        return self.model

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return torch.device(self.backend.device) if self.backend else next(self.model.parameters()).device

    def check(self, kind: str) -> None:
        """ConfigError when the model can't be measured on data of that kind."""
        if kind == "classify":
            _ = self.classifier
        elif kind == "answers":
            _ = self.language_model
        else:
            _ = self._scored_model

    def scorer(self) -> Scorer:
        """A scorer of the language model."""
        return Scorer(self._scored_model, bf16=self.bf16, batch_tokens=self.batch_tokens, backend=self.backend)

    def headline(self) -> str:
        """What a table says of it in one line."""
        about = self.describe()
        size = f"{about['architecture']}, {about['parameters']:,} parameters"
        return f"{self.name}: {size}, {about['arithmetic']}, {about['device']}"

    def describe(self) -> dict[str, Any]:
        """What a report says of the model: shape, parameters, arithmetic."""
        config = self.model.config
        return {
            "name": self.name,
            "architecture": config.architecture,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "layers": config.n_layer,
            "width": config.d_model,
            "context": config.context_length,
            "vocabulary": self.tokenizer.vocab_size,
            "labels": list(config.labels),
            "arithmetic": self._arithmetic(),
            "device": str(self.device),
        }

    def _arithmetic(self) -> str:
        if self.backend is None:
            return "bfloat16 products, float32 sums" if self.bf16 else "float32"
        quantized = "" if self.backend.quantize == "none" else f", {self.backend.quantize} weights"
        return f"{self.backend.dtype}{quantized} ({self.backend.kernels})"


def load_subject(
    name: str | Path,
    *,
    base: str | None = None,
    device: str = "auto",
    bf16: bool = False,
    batch_tokens: int = BATCH_TOKENS,
) -> Subject:
    """The model to evaluate: a bundled or pulled one's name, a model directory, or the directory of a low-rank adapter (`base`: its
    base model, where it isn't the one that the adapter names). `device` "auto": a GPU if there is one. ConfigError for a device
    that isn't there, CheckpointError for a directory that can't be used."""
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    try:
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {device!r} can't be used: {str(error).splitlines()[0]}") from None
    directory = Path(name)
    if (directory / ADAPTER_CONFIG).is_file() and not (directory / "config.json").is_file():
        model, where = load_with_adapter(directory, base)
        model = model.to(chosen)
        texts = directory if (directory / "tokenizer.json").is_file() else where
    else:
        if base is not None:
            raise ConfigError(f"base: {name} is no adapter, so it has no base model; leave --base out")
        texts = resolve_model(str(name))
        model = load_model(texts, device=chosen)
    return Subject(str(name), texts, model, Tokenizer.from_directory(texts), bf16, batch_tokens)


def load_backend_subject(
    name: str | Path,
    *,
    quantize: str = "none",
    dtype: str = "auto",
    backend: str = "auto",
    device: str = "auto",
    threads: int = 1,
    batch_tokens: int = BATCH_TOKENS,
) -> Subject:
    """A language model to be scored by the arithmetic that serves it. Settings as model.backend.BackendSpec. ConfigError for one
    that can't be had, and for an adapter or a classifier; CheckpointError for a directory that can't be used."""
    if (Path(name) / ADAPTER_CONFIG).is_file() and not (Path(name) / "config.json").is_file():
        raise ConfigError(f"{name}: is an adapter; merge it (homegrown merge) to measure it with these settings")
    directory = resolve_model(str(name))
    model = empty_model(read_config(directory))
    if not isinstance(model, GPT):
        raise ConfigError(f"{name}: is a classifier; --quantize, --dtype and --backend are for language models")
    spec = BackendSpec(model=directory, quantize=quantize, dtype=dtype, backend=backend, device=device, threads=threads)
    tokenizer = Tokenizer.from_directory(directory)
    return Subject(str(name), directory, model, tokenizer, batch_tokens=batch_tokens, backend=load_backend(spec))


def taken(n: int, limit: int | None) -> int:
    """How many of `n` items are evaluated. ConfigError for a limit below 1."""
    if limit is not None and limit < 1:
        raise ConfigError(f"limit must be at least 1, not {limit}")
    return n if limit is None else min(n, limit)


def drawn(items: Sequence[T], options: Options) -> list[T]:
    """The items to evaluate, in their order: all, or as many as the limit, drawn by the seed, since files are often sorted."""
    order = np.random.default_rng(options.seed).permutation(len(items))[: taken(len(items), options.limit)]
    return [items[i] for i in sorted(order)]


def nothing_left(path: Path | str, why: str) -> HomegrownError:
    """The error of a file in which nothing can be scored."""
    return ConfigError(f"{path}: nothing in it can be scored: {why}")
