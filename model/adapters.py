"""Adapters on disk: PEFT directories (`adapter_config.json`, `adapter_model.safetensors`), in both directions.

What an adapter changes is read from its tensors' names, so one of any subset of projections and layers is exact; what its
configuration asks beyond plain low-rank pairs is refused by name. Beside PEFT's two files a classifier's adapter has
`labels.json`, since PEFT's own keep the labels nowhere.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from model.checkpoint import empty_model, load_model, write_tensors
from model.classifier import as_classifier
from model.config import ModelConfig
from model.derived import save_texts, save_weights
from model.errors import CheckpointError, ConfigError
from model.files import read_json, staged_directory, write_json
from model.gpt import GPT, SequenceClassifier
from model.hub import carrier, resolve_model
from model.lora import LoraConfig, LowRank, Projection, add_pair, lora_pairs, merge_lora, projections
from model.tokenizer import Tokenizer

ADAPTER_CONFIG, ADAPTER_WEIGHTS, LABELS = "adapter_config.json", "adapter_model.safetensors", "labels.json"
_PREFIX, _SCORE = "base_model.model.", "base_model.model.score.weight"
_TASKS = {"CAUSAL_LM": False, "SEQ_CLS": True}

# What a plain adapter says in these fields of its configuration (or nothing): anything else changes the arithmetic.
_PLAIN: dict[str, tuple[object, ...]] = {
    "bias": ("none",),
    "init_lora_weights": (
        True,
        False,
        "gaussian",
        "orthogonal",
        "eva",
        "lora_ga",
    ),  # the others rewrite the base's weights
}
_ABSENT = (
    "use_dora", "use_qalora", "use_bdlora", "lora_bias", "rank_pattern", "alpha_pattern", "layer_replication",
    "trainable_token_indices", "target_parameters", "alora_invocation_tokens", "arrow_config", "kasa_config",
    "monteclora_config", "velora_config", "megatron_config",
)  # fmt: skip


def save_adapter(model: GPT | SequenceClassifier, directory: Path | str, base_name: str) -> None:
    """Write the model's pairs (and a classifier's head) as a PEFT adapter directory that names `base_name` as its base.

    ConfigError when the model has none; CheckpointError when the disk doesn't take it.
    """
    directory = Path(directory)
    pairs = list(lora_pairs(model))
    if not pairs:
        raise ConfigError("the model has no adapter to save")
    tensors: dict[str, Tensor] = {}
    for projection, pair in pairs:
        tensors[f"{_PREFIX}{projection.path}.lora_A.weight"] = pair.a
        tensors[f"{_PREFIX}{projection.path}.lora_B.weight"] = pair.b
    if isinstance(model, SequenceClassifier):
        tensors[_SCORE] = model.score.weight
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    directory.mkdir(parents=True, exist_ok=True)
    write_tensors(directory / ADAPTER_WEIGHTS, tensors, {"format": "pt"})
    if isinstance(model, SequenceClassifier):
        write_json(directory / LABELS, {"id2label": {str(i): label for i, label in enumerate(model.config.labels)}})
    config, changed = pairs[0][1].config, [projection for projection, _ in pairs]
    fields = {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if isinstance(model, SequenceClassifier) else "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "use_rslora": config.rslora,
        "target_modules": _targets(changed, projections(model)),
        "modules_to_save": ["score"] if isinstance(model, SequenceClassifier) else None,
        "fan_in_fan_out": any(projection.transposed for projection in changed),
        "bias": "none",
        "init_lora_weights": True,
        "inference_mode": True,
    }
    write_json(directory / ADAPTER_CONFIG, fields)


def _targets(changed: list[Projection], there: list[Projection]) -> list[str]:
    """Short names when every projection so called is changed, else full paths: PEFT reads either as the end of a path."""
    paths = {projection.path for projection in changed}
    names = sorted({projection.name for projection in changed})
    same = all(projection.path in paths for projection in there if projection.name in names)
    return names if same else sorted(paths)


def load_adapter(model: GPT | SequenceClassifier, directory: Path | str) -> None:
    """Put the adapter in `directory` on its base model, in place: pairs and head in the base's dtype, nothing trainable.

    The model is left as it was when the adapter can't be used. CheckpointError names the file and the field or tensor: a
    missing, damaged or pickled file, a feature beyond plain pairs, another rank or shape than the model's, a projection or
    tensor that the model hasn't. ConfigError when the model has an adapter already.
    """
    directory = Path(directory)
    if any(True for _ in lora_pairs(model)):
        raise ConfigError("the model has an adapter already; merge it before another is loaded")
    fields = read_adapter_config(directory)
    config, tensors = _lora_config(fields, directory), _read_tensors(directory)
    classifier = isinstance(model, SequenceClassifier)
    if _TASKS.get(str(fields.get("task_type")), classifier) != classifier:
        wanted = "a language model" if classifier else "a classifier"
        raise CheckpointError(
            f"{directory / ADAPTER_CONFIG}: task_type {fields['task_type']}: the adapter is for {wanted}, the model is none"
        )
    plan = _match(model, config, tensors, directory / ADAPTER_WEIGHTS)
    head = tensors.pop(_SCORE, None)
    if isinstance(model, SequenceClassifier) and head is not None:
        model.score.load_state_dict({"weight": head})
    model.requires_grad_(False)
    for projection, a, b in plan:
        pair = add_pair(model, projection, config).requires_grad_(False)
        pair.a.copy_(a)
        pair.b.copy_(b)


@dataclass(frozen=True)
class AdapterWeights:
    """An adapter apart from any model: its pairs, each with its projection, and a classifier's head and labels; float32."""

    pairs: list[tuple[Projection, LowRank]]
    score: Tensor | None  # [n_labels, D]; None: it generates
    labels: tuple[str, ...]


def read_adapter(config: ModelConfig, directory: Path | str) -> AdapterWeights:
    """The adapter in `directory` as a model of `config` would get it, without that model: for servers of many adapters.

    One that classifies brings its own head, so its base may be a language model. Errors as `load_adapter`.
    """
    directory = Path(directory)
    fields = read_adapter_config(directory)
    lora, tensors = _lora_config(fields, directory), _read_tensors(directory)
    classifies = _TASKS.get(str(fields.get("task_type")), _SCORE in tensors)
    if config.labels and not classifies:
        raise CheckpointError(
            f"{directory / ADAPTER_CONFIG}: task_type: the adapter is for a language model, the model is none"
        )
    labels = adapter_labels(directory, config.labels) if classifies else ()
    shape = empty_model(replace(config, labels=labels))
    plan = _match(shape, lora, tensors, directory / ADAPTER_WEIGHTS)
    pairs = []
    for projection, a, b in plan:
        pair = LowRank(a.shape[1], b.shape[0], lora).requires_grad_(False).eval()
        pair.a.copy_(a)
        pair.b.copy_(b)
        pairs.append((projection, pair))
    return AdapterWeights(pairs, tensors[_SCORE].float() if classifies else None, labels)


def load_with_adapter(
    directory: Path | str, base: str | None = None, *, dtype: torch.dtype = torch.float32
) -> tuple[GPT | SequenceClassifier, Path]:
    """The adapter in `directory` on its base (`base`: a model's name or directory, where it isn't the model that carries the
    adapter, else the one that it names), in evaluation mode, and the base's directory. Errors as `load_adapter` and
    `load_model`."""
    directory = Path(directory)
    fields = read_adapter_config(directory)
    owner = carrier(directory)
    name = base or (str(owner) if owner else fields.get("base_model_name_or_path"))
    if not isinstance(name, str) or not name:
        raise CheckpointError(f"{directory / ADAPTER_CONFIG}: base_model_name_or_path is missing; name the base model")
    where = resolve_model(name)
    model = load_model(where, dtype=dtype)
    if fields.get("task_type") == "SEQ_CLS":
        labels = adapter_labels(directory, model.config.labels)
        if labels != model.config.labels:
            model = as_classifier(model, labels)
    load_adapter(model, directory)
    return model.eval(), where


def merge_adapter(directory: Path, target: Path, base: str | None = None, *, overwrite: bool = False) -> None:
    """Write the model that the adapter in `directory` makes of its base, as a model directory that needs neither: merged in
    float32, stored as the base is, with the adapter's tokenizer, templates and card where it has them. Errors as
    `load_with_adapter`; CheckpointError when `target` holds files and `overwrite` isn't set."""
    with staged_directory(target, overwrite=overwrite) as stage:
        model, where = load_with_adapter(directory, base)
        merge_lora(model)
        save_weights(model, stage, where)
        texts = directory if (directory / "tokenizer.json").is_file() else where
        save_texts(Tokenizer.from_directory(texts), model.config, stage, texts)
        if (directory / "README.md").is_file():
            card = (directory / "README.md").read_text("utf-8")
            card = re.sub(r'(?m)^library_name: "?peft"?$', 'library_name: "transformers"', card, count=1)
            merged = "\n## Merged\n\nThe adapter above is part of these weights; they need no other.\n"
            (stage / "README.md").write_text(card + merged, "utf-8")


def adapter_labels(directory: Path, base_labels: tuple[str, ...] = ()) -> tuple[str, ...]:
    """A classifier adapter's labels: those of labels.json, else the base's when they are as many, else LABEL_0, LABEL_1, ...
    CheckpointError when the file can't be used or there is no head."""
    if (directory / LABELS).is_file():
        names = read_json(directory / LABELS).get("id2label")
        if not isinstance(names, dict) or sorted(names) != sorted(str(i) for i in range(len(names))) or not names:
            raise CheckpointError(f"{directory / LABELS}: id2label must name labels 0, 1, ..., not {names!r}")
        return tuple(str(names[str(i)]) for i in range(len(names)))
    head = _read_tensors(directory).get(_SCORE)
    if head is None:
        raise CheckpointError(f"{directory / ADAPTER_WEIGHTS}: has no tensor {_SCORE}, a classifier's head")
    return base_labels if len(base_labels) == len(head) else tuple(f"LABEL_{i}" for i in range(len(head)))


def read_adapter_config(directory: Path) -> dict[str, Any]:
    """The content of adapter_config.json. CheckpointError names the file."""
    path = Path(directory) / ADAPTER_CONFIG
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; an adapter directory needs it")
    return read_json(path)


def _lora_config(fields: Mapping[str, Any], directory: Path) -> LoraConfig:
    path = directory / ADAPTER_CONFIG
    if fields.get("peft_type") != "LORA":
        raise CheckpointError(f"{path}: peft_type {fields.get('peft_type')!r} is not supported, only 'LORA'")
    if fields.get("task_type") not in (None, *_TASKS):
        raise CheckpointError(
            f"{path}: task_type {fields['task_type']!r} is not supported, only {' and '.join(_TASKS)}"
        )
    for name in _ABSENT:
        if fields.get(name):
            raise CheckpointError(f"{path}: {name} is not supported; only plain low-rank pairs are")
    for name, allowed in _PLAIN.items():
        if fields.get(name, allowed[0]) not in allowed:
            raise CheckpointError(f"{path}: {name} {fields[name]!r} is not supported; only plain low-rank pairs are")
    extra = set(fields.get("modules_to_save") or ()) - {"score", "classifier"}
    if extra:
        raise CheckpointError(
            f"{path}: modules_to_save {', '.join(sorted(extra))}: only a classifier's score can be saved beside"
        )
    rank, alpha = fields.get("r"), fields.get("lora_alpha", 8)
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        raise CheckpointError(f"{path}: r must be a whole number of at least 1, not {rank!r}")
    if not isinstance(alpha, int | float) or isinstance(alpha, bool):
        raise CheckpointError(f"{path}: lora_alpha must be a number, not {alpha!r}")
    return LoraConfig(
        rank=rank, alpha=alpha, dropout=float(fields.get("lora_dropout") or 0.0), rslora=bool(fields.get("use_rslora"))
    )


def _read_tensors(directory: Path) -> dict[str, Tensor]:
    path = directory / ADAPTER_WEIGHTS
    if not path.is_file():
        if (directory / "adapter_model.bin").is_file():
            raise CheckpointError(
                f"{directory}: holds adapter_model.bin but no {ADAPTER_WEIGHTS}; pickle files can run code and are never "
                "loaded: save the adapter as safetensors"
            )
        raise CheckpointError(f"{path}: no such file; an adapter directory needs its weights")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: truncated or corrupt ({error}); get the file again") from None


def _match(
    model: GPT | SequenceClassifier, config: LoraConfig, tensors: Mapping[str, Tensor], path: Path
) -> list[tuple[Projection, Tensor, Tensor]]:
    """Each projection that the adapter changes, with its two tensors; every tensor is used, and every shape is right."""
    plan, used = [], set()
    for projection in projections(model):
        layer = model.get_submodule(projection.ours)
        names = [f"{_PREFIX}{projection.path}.lora_{part}.weight" for part in "AB"]
        if not any(name in tensors for name in names):
            continue
        shapes = [(config.rank, layer.in_features), (projection.layout[projection.name], config.rank)]
        for name, shape in zip(names, shapes, strict=True):
            _check(tensors, name, shape, path)
        used |= set(names)
        plan.append((projection, tensors[names[0]], tensors[names[1]]))
    if isinstance(model, SequenceClassifier):
        _check(tensors, _SCORE, tuple(model.score.weight.shape), path)
        used.add(_SCORE)
    unknown = sorted(set(tensors) - used)
    if unknown:
        raise CheckpointError(
            f"{path}: tensor {unknown[0]} belongs to no projection of this {model.config.architecture} model"
            f" ({len(unknown)} such); the adapter is of another model"
        )
    if not plan:
        raise CheckpointError(f"{path}: holds no low-rank pair")
    return plan


def _check(tensors: Mapping[str, Tensor], name: str, shape: tuple[int, ...], path: Path) -> None:
    if name not in tensors:
        raise CheckpointError(f"{path}: has no tensor {name}; the file is incomplete or of another model")
    if tuple(tensors[name].shape) != shape:
        raise CheckpointError(
            f"{path}: tensor {name} has shape {list(tensors[name].shape)}, but the model and r ask for {list(shape)}; "
            "the adapter is of another model or another rank"
        )
