"""A GGUF file (llama.cpp's format) -> a model directory: weights, configuration, tokenizer, chat template.

Names and layout follow llama.cpp's converter (convert_hf_to_gguf.py), backwards: it renames tensors, stores GPT-2's
linear weights as [out, in], and reorders the rows of Llama's query and key weights for its kind of rotary positions.
Quantised weights become the floating-point numbers that they stand for.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.architectures import config_from_hf, weight_map
from model.checkpoint import empty_model, save_state
from model.config import ModelConfig
from model.errors import CheckpointError, ConfigError, TokenizerError
from model.files import file_sha256, staged_directory
from model.gguf_file import GgufFile
from model.gguf_tokenizer import end_ids, read_tokenizer
from model.prompts import PromptError, PromptTemplate

_LAYERS = {
    "gpt2": {
        "attn_norm": "ln_1",
        "attn_qkv": "attn.c_attn",
        "attn_output": "attn.c_proj",
        "ffn_norm": "ln_2",
        "ffn_up": "mlp.c_fc",
        "ffn_down": "mlp.c_proj",
    },
    "llama": {
        "attn_norm": "input_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_norm": "post_attention_layernorm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    },
}
_ENDS = {
    "gpt2": {
        "transformer.wte.weight": "token_embd.weight",
        "transformer.wpe.weight": "position_embd.weight",
        "transformer.ln_f.weight": "output_norm.weight",
        "transformer.ln_f.bias": "output_norm.bias",
    },
    "llama": {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"},
}
_PREFIX = {"gpt2": "transformer.h", "llama": "model.layers"}
_HEAD, _EMBEDDING, _ROPE_FACTORS = "output.weight", "token_embd.weight", "rope_freqs.weight"
# Half precision holds what 4 to 8 bits and a scale stand for better than bfloat16 does.
_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def import_gguf(
    path: Path | str,
    directory: Path | str,
    *,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the model in the GGUF file `path` (architecture gpt2 or llama) as a model directory, which is returned.

    The directory appears when it is complete. The weights are stored as the file's matrices suggest: float32, float16,
    bfloat16; float16 for quantised ones. `progress` is called with tensors done and tensors in all.
    CheckpointError: not a whole GGUF file, another architecture or kind of tokenizer, a missing, unknown or misshapen
    tensor, a directory that holds something already (unless `overwrite`).
    """
    path, directory = Path(path), Path(directory)
    file = GgufFile(path)
    config = _config(file)
    template = file.text("tokenizer.chat_template", "")
    try:
        tokenizer = read_tokenizer(file)
        chat = PromptTemplate(template, source=f"{path}: tokenizer.chat_template") if template else None
    except (TokenizerError, PromptError) as error:
        raise CheckpointError(str(error)) from None
    if tokenizer.vocab_size > config.vocab_size:
        raise CheckpointError(f"{path}: {tokenizer.vocab_size} tokens, but {_EMBEDDING} has {config.vocab_size} rows")
    sources = _sources(file, config)
    with staged_directory(directory, overwrite=overwrite) as stage:
        save_state(config, _read_all(file, sources, progress), stage)
        tokenizer.save(stage)
        if chat is not None:
            chat.save(stage)
        (stage / "README.md").write_text(_card(file), encoding="utf-8")
    return directory


def _config(file: GgufFile) -> ModelConfig:
    architecture = file.text("general.architecture")
    if architecture not in _LAYERS:
        raise CheckpointError(
            f"{file.path}: general.architecture {architecture!r} is not supported; known are {', '.join(_LAYERS)}"
        )
    if _EMBEDDING not in file.tensors:
        raise CheckpointError(f"{file.path}: tensor {_EMBEDDING} is missing; the file is incomplete")
    fields = _gpt2_fields(file) if architecture == "gpt2" else _llama_fields(file)
    ends = end_ids(file)
    bos, pad = (file.number(f"tokenizer.ggml.{name}_token_id", -1) for name in ("bos", "padding"))
    fields |= {
        "model_type": architecture,
        "vocab_size": file.shape(_EMBEDDING)[0],
        "tie_word_embeddings": not _has_own_head(file),
        "bos_token_id": bos if bos >= 0 else None,
        "eos_token_id": ends if len(ends) > 1 else next(iter(ends), None),
        "pad_token_id": pad if pad >= 0 else None,
    }
    try:
        return config_from_hf(fields)
    except ConfigError as error:
        raise CheckpointError(f"{file.path}: {error}") from None


def _gpt2_fields(file: GgufFile) -> dict[str, Any]:
    return {
        "n_positions": file.number("gpt2.context_length"),
        "n_embd": file.number("gpt2.embedding_length"),
        "n_inner": file.number("gpt2.feed_forward_length"),
        "n_layer": file.number("gpt2.block_count"),
        "n_head": file.number("gpt2.attention.head_count"),
        "layer_norm_epsilon": file.real("gpt2.attention.layer_norm_epsilon"),
        "resid_pdrop": 0.0,  # the file has no word on dropout, which is for training only
    }


def _llama_fields(file: GgufFile) -> dict[str, Any]:
    if file.number("llama.expert_count", 0):
        raise CheckpointError(f"{file.path}: llama.expert_count: mixtures of experts are not supported")
    n_head, d_model = file.number("llama.attention.head_count"), file.number("llama.embedding_length")
    head_dim = file.number("llama.attention.key_length", d_model // max(n_head, 1))
    if file.number("llama.rope.dimension_count", head_dim) != head_dim:
        raise CheckpointError(f"{file.path}: llama.rope.dimension_count: rotary positions on a part are not supported")
    theta = file.real("llama.rope.freq_base", 10_000.0)
    return {
        "max_position_embeddings": file.number("llama.context_length"),
        "hidden_size": d_model,
        "intermediate_size": file.number("llama.feed_forward_length"),
        "num_hidden_layers": file.number("llama.block_count"),
        "num_attention_heads": n_head,
        "num_key_value_heads": file.number("llama.attention.head_count_kv", n_head),
        "head_dim": head_dim,
        "rms_norm_eps": file.real("llama.attention.layer_norm_rms_epsilon"),
        "rope_theta": theta,
        "rope_scaling": _rope_scaling(file, head_dim, theta),
        "attention_bias": "blk.0.attn_q.bias" in file.tensors,
        "mlp_bias": "blk.0.ffn_gate.bias" in file.tensors,
    }


def _rope_scaling(file: GgufFile, head_dim: int, theta: float) -> dict[str, Any] | None:
    """Llama 3.1's and later scaling is in the file as its effect, a divisor for each frequency: find what had it."""
    kind = file.text("llama.rope.scaling.type", "none")
    if kind != "none":
        return {"rope_type": kind, "factor": file.real("llama.rope.scaling.factor")}
    if _ROPE_FACTORS not in file.tensors:
        return None
    divisors = file.read(_ROPE_FACTORS).reshape(-1)
    factor, low, high, original = float(divisors.max()), 1.0, 4.0, 8192
    turns = original * theta ** -(np.arange(0, head_dim, 2) / head_dim) / (2 * math.pi)  # in the original context
    smooth = np.clip((turns - low) / (high - low), 0.0, 1.0)
    if divisors.shape != smooth.shape or not np.allclose(divisors, 1 / ((1 - smooth) / factor + smooth), rtol=1e-3):
        raise CheckpointError(f"{file.path}: {_ROPE_FACTORS}: a scaling of rotary positions that is not Llama 3's")
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": original,
    }


def _has_own_head(file: GgufFile) -> bool:
    """Older converters wrote a tied head a second time; quantised, the two copies may differ a little."""
    if _HEAD not in file.tensors:
        return False
    if file.shape(_HEAD) != file.shape(_EMBEDDING):
        raise CheckpointError(f"{file.path}: {_HEAD} and {_EMBEDDING} have different shapes")
    head, embedding = file.read(_HEAD, rows=1024), file.read(_EMBEDDING, rows=1024)
    return bool(np.linalg.norm(head - embedding) > 0.5 * np.linalg.norm(embedding))


@dataclass(frozen=True)
class _Source:
    """Where a published tensor comes from. rotary_heads: how many heads' rows are to be put back in order (0: none).
    transposed: it is published the other way round."""

    name: str
    shape: tuple[int, ...]  # in the GGUF file
    transposed: bool = False
    rotary_heads: int = 0

    def restore(self, values: np.ndarray) -> np.ndarray:
        if self.rotary_heads:  # [head, K/2, 2 halves, ...] -> [head, 2 halves, K/2, ...]
            paired = values.reshape(self.rotary_heads, -1, 2, *values.shape[1:])
            values = paired.swapaxes(1, 2).reshape(values.shape)
        return values.T if self.transposed else values


def _sources(file: GgufFile, config: ModelConfig) -> dict[str, _Source]:
    """Published name -> source, for every tensor of the model. CheckpointError unless the file has exactly those."""
    shapes = {name: tuple(tensor.shape) for name, tensor in empty_model(config).state_dict().items()}
    sources: dict[str, _Source] = {}
    for ours, weights in weight_map(config).items():
        rows = weights.rows or shapes[ours][:1]
        for published, n_rows in zip(weights.names, rows, strict=True):
            shape = (n_rows, *shapes[ours][1:])
            name = _gguf_name(published, config.architecture)
            heads = {"attn_q": config.n_head, "attn_k": config.n_kv_head}.get(name.split(".")[-2], 0)
            found = file.shape(name) if name in file.tensors else None
            if found != shape:
                problem = "is missing" if found is None else f"has shape {list(found)}, expected {list(shape)}"
                raise CheckpointError(f"{file.path}: tensor {name} {problem}; the file is incomplete or damaged")
            sources[published] = _Source(name, shape, weights.transposed, heads)
    unknown = file.tensors.keys() - {source.name for source in sources.values()} - {_HEAD, _ROPE_FACTORS}
    if unknown:
        raise CheckpointError(
            f"{file.path}: tensors that a {config.architecture} model doesn't have: {', '.join(sorted(unknown)[:3])}"
        )
    return sources


def _gguf_name(published: str, architecture: str) -> str:
    if published == "lm_head.weight":
        return _HEAD
    if published in _ENDS[architecture]:
        return _ENDS[architecture][published]
    layer, _, rest = published.removeprefix(f"{_PREFIX[architecture]}.").partition(".")
    module, _, part = rest.rpartition(".")
    short = next(short for short, long in _LAYERS[architecture].items() if long == module)
    return f"blk.{layer}.{short}.{part}"


def _read_all(
    file: GgufFile,
    sources: Mapping[str, _Source],
    progress: Callable[[int, int], None] | None,
) -> dict[str, Tensor]:
    sizes: Counter[str] = Counter()
    for source in sources.values():
        if len(source.shape) == 2:
            sizes[file.tensors[source.name].tensor_type.name] += math.prod(source.shape)
    dtype = _DTYPES.get(sizes.most_common(1)[0][0], torch.float16)
    tensors: dict[str, Tensor] = {}
    for done, (published, source) in enumerate(sources.items(), 1):
        values = np.ascontiguousarray(source.restore(file.read(source.name)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a memory-mapped array can't be written to, nor is it
            tensors[published] = torch.from_numpy(values).to(dtype)
        if not tensors[published].isfinite().all():
            raise CheckpointError(f"{file.path}: tensor {source.name} holds numbers that are not finite as {dtype}")
        if progress is not None:
            progress(done, len(sources))
    return tensors


def _card(file: GgufFile) -> str:
    """The README.md: where the model is from. The license is the one the file states."""
    name, license_ = file.text("general.name", file.path.stem), file.text("general.license", "")
    head = f"---\nlicense: {license_}\n---\n\n" if license_ else ""
    kinds = Counter(tensor.tensor_type.name for tensor in file.tensors.values())
    stored = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    return (
        f"{head}# {name}\n\nImported by homegrown from a GGUF file.\n\n- file: `{file.path.name}`\n"
        f"- tensors: {stored}\n- sha256: `{file_sha256(file.path)}`\n"
    )
