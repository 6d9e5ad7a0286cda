"""Llama's published layout (meta-llama, HuggingFaceTB/SmolLM2): linear weights [out, in]; queries, keys, values
apart."""

from typing import Any

from model.architectures.fields import Weights, require, take, token_ids
from model.config import ModelConfig, RopeScaling
from model.errors import ConfigError


def config_from_hf(fields: dict[str, Any]) -> ModelConfig:
    """The content of a Llama `config.json` -> ModelConfig. ConfigError names the field."""
    require(fields, "hidden_act", ("silu",))
    require(fields, "pretraining_tp", (1, None))
    n_head, d_model = take(fields, "num_attention_heads", int), take(fields, "hidden_size", int)
    theta, scaling = _rope(fields)
    return ModelConfig(
        architecture="llama",
        vocab_size=take(fields, "vocab_size", int),
        context_length=take(fields, "max_position_embeddings", int, 2048),
        n_layer=take(fields, "num_hidden_layers", int),
        n_head=n_head,
        n_kv_head=take(fields, "num_key_value_heads", int, n_head),
        d_model=d_model,
        d_ff=take(fields, "intermediate_size", int),
        head_dim=take(fields, "head_dim", int, d_model // max(n_head, 1)),
        norm_eps=take(fields, "rms_norm_eps", float, 1e-6),
        tie_embeddings=take(fields, "tie_word_embeddings", bool, False),
        rope_theta=theta,
        rope_scaling=scaling,
        attention_bias=take(fields, "attention_bias", bool, False),
        mlp_bias=take(fields, "mlp_bias", bool, False),
        dropout=0.0,  # the architecture has none outside attention, where the published models use 0
        initializer_range=take(fields, "initializer_range", float, 0.02),
        **token_ids(fields),
    )


def _rope(fields: dict[str, Any]) -> tuple[float, RopeScaling | None]:
    """theta and scaling from `rope_parameters` (transformers 5) or `rope_theta` + `rope_scaling` (before)."""
    rope = fields.get("rope_parameters") or fields.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise ConfigError(f"rope_scaling must be an object, not {rope!r}")
    theta = take({**fields, **rope}, "rope_theta", float, 10_000.0)
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return theta, None
    if kind == "linear":
        return theta, RopeScaling(kind="linear", factor=take(rope, "factor", float))
    if kind == "llama3":
        return theta, RopeScaling(
            kind="llama3",
            factor=take(rope, "factor", float),
            low_freq_factor=take(rope, "low_freq_factor", float),
            high_freq_factor=take(rope, "high_freq_factor", float),
            original_context=take(rope, "original_max_position_embeddings", int),
        )
    raise ConfigError(f"rope_type {kind!r} is not supported, only 'default', 'linear' and 'llama3'")


def config_to_hf(config: ModelConfig) -> dict[str, Any]:
    """ModelConfig -> the fields that are Llama's own."""
    return {
        "architectures": ["LlamaForSequenceClassification" if config.labels else "LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context_length,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.n_kv_head,
        "hidden_size": config.d_model,
        "intermediate_size": config.d_ff,
        "head_dim": config.head_dim,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": _rope_scaling_to_hf(config.rope_scaling),
        "attention_bias": config.attention_bias,
        "mlp_bias": config.mlp_bias,
        "attention_dropout": 0.0,
        "initializer_range": config.initializer_range,
        "use_cache": True,
    }


def _rope_scaling_to_hf(scaling: RopeScaling | None) -> dict[str, Any] | None:
    if scaling is None:
        return None
    fields: dict[str, Any] = {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind == "llama3":
        fields["low_freq_factor"] = scaling.low_freq_factor
        fields["high_freq_factor"] = scaling.high_freq_factor
        fields["original_max_position_embeddings"] = scaling.original_context
    return fields


def weight_map(config: ModelConfig) -> dict[str, Weights]:
    """Our names -> Llama's. Queries, keys and values are laid end to end in ours."""
    width, kv_width = config.n_head * config.head_dim, config.n_kv_head * config.head_dim
    names = {"token_embedding.weight": Weights(("model.embed_tokens.weight",))}
    for i in range(config.n_layer):
        theirs = f"model.layers.{i}"
        names[f"blocks.{i}.attention_norm.weight"] = Weights((f"{theirs}.input_layernorm.weight",))
        names[f"blocks.{i}.mlp_norm.weight"] = Weights((f"{theirs}.post_attention_layernorm.weight",))
        for part in ("weight", "bias") if config.attention_bias else ("weight",):
            parts = tuple(f"{theirs}.self_attn.{p}_proj.{part}" for p in "qkv")
            names[f"blocks.{i}.attention.qkv.{part}"] = Weights(parts, rows=(width, kv_width, kv_width))
            names[f"blocks.{i}.attention.out.{part}"] = Weights((f"{theirs}.self_attn.o_proj.{part}",))
        for part in ("weight", "bias") if config.mlp_bias else ("weight",):
            for p in ("gate", "up", "down"):
                names[f"blocks.{i}.mlp.{p}.{part}"] = Weights((f"{theirs}.mlp.{p}_proj.{part}",))
    names["norm.weight"] = Weights(("model.norm.weight",))
    if not config.tie_embeddings and not config.labels:
        names["head.weight"] = Weights(("lm_head.weight",))
    return names
