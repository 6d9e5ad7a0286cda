"""A model directory made from another, and what it keeps of it: how weights are stored, sampling defaults, prompt templates."""

from pathlib import Path
from typing import Any

import torch

from model.checkpoint import save_model
from model.config import ModelConfig
from model.errors import ConfigError
from model.files import read_json, write_json
from model.gpt import GPT, SequenceClassifier
from model.lora import lora_pairs
from model.prompts import CHAT_TEMPLATE_FILE, INSTRUCTION_TEMPLATE_FILE, PromptTemplate
from model.tokenizer import Tokenizer

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def stored_dtype(base: Path) -> torch.dtype:
    """How the weights of a model directory are stored; float32 where its config.json doesn't say."""
    fields = read_json(base / "config.json")
    return _DTYPES.get(str(fields.get("dtype") or fields.get("torch_dtype")).removeprefix("torch."), torch.float32)


def save_weights(model: GPT | SequenceClassifier, directory: Path, base: Path) -> None:
    """Write config.json, generation_config.json with the base's sampling defaults, and the weights in the base's dtype.
    ConfigError when the model has an adapter, which these files have no room for."""
    if any(True for _ in lora_pairs(model)):
        raise ConfigError("the model has an adapter; merge it before its weights are saved")
    save_model(model, directory, dtype=stored_dtype(base))
    name = "generation_config.json"
    if (base / name).is_file():
        write_json(directory / name, {**read_json(base / name), **read_json(directory / name)})


def save_texts(tokenizer: Tokenizer, config: ModelConfig, directory: Path, base: Path) -> None:
    """Write the tokenizer and the base's prompt templates. A classifier's tokenizer names the token that pads and the longest
    text, since other libraries batch and cut by them."""
    tokenizer.save(directory)
    if config.labels:
        path = directory / "tokenizer_config.json"
        fields: dict[str, Any] = {"padding_side": "right", "model_max_length": config.context_length}
        if config.pad_token_id is not None and (text := tokenizer.token_bytes(config.pad_token_id)):
            fields["pad_token"] = text.decode("utf-8", "replace")
        write_json(path, {**read_json(path), **fields})
    for name, text in own_templates(base).items():
        (directory / name).write_text(text, "utf-8")


def own_templates(base: Path) -> dict[str, str]:
    """The prompt templates that a model directory has of its own: file name -> text. TokenizerError names the file that can't be
    read."""
    chat, instruction = PromptTemplate.from_directory(base), base / INSTRUCTION_TEMPLATE_FILE
    files = {} if chat.plain else {CHAT_TEMPLATE_FILE: chat.text}
    return files | ({instruction.name: instruction.read_text("utf-8")} if instruction.is_file() else {})
