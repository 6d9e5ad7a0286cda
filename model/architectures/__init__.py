"""Published layouts <-> ours: `config.json` and weight names of each architecture. Free of torch, and nothing else
here."""

from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from model.architectures import gpt2, llama
from model.architectures.fields import Weights
from model.config import ModelConfig
from model.errors import CheckpointError, ConfigError
from model.files import read_json

__all__ = ["Weights", "config_from_hf", "config_to_hf", "read_config", "weight_map"]

_ARCHITECTURES: dict[str, ModuleType] = {"gpt2": gpt2, "llama": llama}


@dataclass(frozen=True)
class _Head:
    suffix: str
    classifier: bool


_HEADS = (
    _Head("LMHeadModel", False),
    _Head("ForCausalLM", False),
    _Head("ForSequenceClassification", True),
    _Head("Model", False),
)


def config_from_hf(fields: dict[str, Any]) -> ModelConfig:
    """A published `config.json`'s content -> ModelConfig. ConfigError names the field that can't be used."""
    kind = fields.get("model_type")
    if kind not in _ARCHITECTURES:
        raise ConfigError(
            f"model_type {kind!r} is not supported; this program runs {' and '.join(_ARCHITECTURES)} models"
        )
    config = _ARCHITECTURES[kind].config_from_hf(fields)
    return replace(config, labels=_labels(fields))


def config_to_hf(config: ModelConfig) -> dict[str, Any]:
    """ModelConfig -> the content of `config.json` that transformers, vLLM and llama.cpp's converter read."""
    fields = _ARCHITECTURES[config.architecture].config_to_hf(config)
    eos = config.eos_token_ids
    fields["bos_token_id"] = config.bos_token_id
    fields["eos_token_id"] = list(eos) if len(eos) > 1 else (eos[0] if eos else None)
    fields["pad_token_id"] = config.pad_token_id
    fields["tie_word_embeddings"] = config.tie_embeddings
    if config.labels:
        fields["id2label"] = {str(i): label for i, label in enumerate(config.labels)}
        fields["label2id"] = {label: i for i, label in enumerate(config.labels)}
    return fields


def weight_map(config: ModelConfig) -> dict[str, Weights]:
    """Our parameter names -> where the published layout keeps each."""
    names = _ARCHITECTURES[config.architecture].weight_map(config)
    if not config.labels:
        return names
    return {f"trunk.{ours}": theirs for ours, theirs in names.items()} | {"score.weight": Weights(("score.weight",))}


def read_config(directory: Path) -> ModelConfig:
    """The configuration in a model directory: config.json, with the end tokens of generation_config.json when it has
    any.

    CheckpointError names the file and the field.
    """
    path = Path(directory) / "config.json"
    if not Path(directory).is_dir():
        raise CheckpointError(f"{directory}: no such model directory")
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; a model directory needs it")
    fields, generation = read_json(path), Path(directory) / "generation_config.json"
    if generation.is_file():
        eos = read_json(generation).get("eos_token_id")
        fields["eos_token_id"] = fields.get("eos_token_id") if eos is None else eos
    try:
        return config_from_hf(fields)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _labels(fields: dict[str, Any]) -> tuple[str, ...]:
    """The labels of a classifier's config; () for a language model's. ConfigError on any other head."""
    for name in fields.get("architectures") or ():
        head = next((head for head in _HEADS if str(name).endswith(head.suffix)), None)
        if head is None:
            raise ConfigError(
                f"architectures names {name!r}: only language models and sequence classifiers are supported"
            )
        if head.classifier:
            return _classifier_labels(fields)
    return ()


def _classifier_labels(fields: dict[str, Any]) -> tuple[str, ...]:
    id2label = fields.get("id2label") or {str(i): f"LABEL_{i}" for i in range(int(fields.get("num_labels") or 2))}
    try:
        labels = {int(index): str(label) for index, label in id2label.items()}
    except (AttributeError, ValueError):
        raise ConfigError(f"id2label must map 0, 1, ... to names, not {id2label!r}") from None
    if sorted(labels) != list(range(len(labels))) or len(set(labels.values())) != len(labels):
        raise ConfigError(f"id2label must number its labels 0, 1, ... and name each once, not {id2label!r}")
    return tuple(labels[i] for i in range(len(labels)))
