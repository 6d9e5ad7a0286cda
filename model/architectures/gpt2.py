"""GPT-2's published layout (openai-community/gpt2): linear weights are stored [in, out], queries, keys and values in
one."""

from typing import Any

from model.architectures.fields import Weights, require, take, token_ids
from model.config import ModelConfig


def config_from_hf(fields: dict[str, Any]) -> ModelConfig:
    """The content of a GPT-2 `config.json` -> ModelConfig. ConfigError names the field."""
    require(fields, "activation_function", ("gelu_new", "gelu_pytorch_tanh"))
    require(fields, "scale_attn_weights", (True,))
    require(fields, "scale_attn_by_inverse_layer_idx", (False, None))
    require(fields, "add_cross_attention", (False, None))
    d_model, n_head = take(fields, "n_embd", int, 768), take(fields, "n_head", int, 12)
    return ModelConfig(
        architecture="gpt2",
        vocab_size=take(fields, "vocab_size", int, 50257),
        context_length=take(fields, "n_positions", int, 1024),
        n_layer=take(fields, "n_layer", int, 12),
        n_head=n_head,
        n_kv_head=n_head,
        d_model=d_model,
        d_ff=take(fields, "n_inner", int, 4 * d_model),
        head_dim=d_model // max(n_head, 1),
        norm_eps=take(fields, "layer_norm_epsilon", float, 1e-5),
        tie_embeddings=take(fields, "tie_word_embeddings", bool, True),
        attention_bias=True,
        mlp_bias=True,
        dropout=take(fields, "resid_pdrop", float, 0.1),
        initializer_range=take(fields, "initializer_range", float, 0.02),
        **token_ids({"vocab_size": 50257, "bos_token_id": 50256, "eos_token_id": 50256, **fields}),
    )


def config_to_hf(config: ModelConfig) -> dict[str, Any]:
    """ModelConfig -> the fields that are GPT-2's own."""
    return {
        "architectures": ["GPT2ForSequenceClassification" if config.labels else "GPT2LMHeadModel"],
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "vocab_size": config.vocab_size,
        "n_positions": config.context_length,
        "n_ctx": config.context_length,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_embd": config.d_model,
        "n_inner": config.d_ff,
        "layer_norm_epsilon": config.norm_eps,
        "initializer_range": config.initializer_range,
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
        "scale_attn_weights": True,
        "use_cache": True,
    }


def weight_map(config: ModelConfig) -> dict[str, Weights]:
    """Our names -> GPT-2's."""
    names = {
        "token_embedding.weight": Weights(("transformer.wte.weight",)),
        "position_embedding.weight": Weights(("transformer.wpe.weight",)),
    }
    for i in range(config.n_layer):
        for part in ("weight", "bias"):
            for ours, theirs in (("attention_norm", "ln_1"), ("mlp_norm", "ln_2")):
                names[f"blocks.{i}.{ours}.{part}"] = Weights((f"transformer.h.{i}.{theirs}.{part}",))
            for ours, theirs in _LINEARS:
                source = Weights((f"transformer.h.{i}.{theirs}.{part}",), transposed=part == "weight")
                names[f"blocks.{i}.{ours}.{part}"] = source
    for part in ("weight", "bias"):
        names[f"norm.{part}"] = Weights((f"transformer.ln_f.{part}",))
    if not config.tie_embeddings and not config.labels:
        names["head.weight"] = Weights(("lm_head.weight",))
    return names


_LINEARS = (
    ("attention.qkv", "attn.c_attn"),
    ("attention.out", "attn.c_proj"),
    ("mlp.up", "mlp.c_fc"),
    ("mlp.down", "mlp.c_proj"),
)
