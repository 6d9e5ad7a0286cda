"""The shape of a model: one frozen dataclass for both architectures, and presets by name. Free of torch."""

from dataclasses import dataclass, replace
from typing import Literal

from model.errors import ConfigError

Architecture = Literal["gpt2", "llama"]


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """How rotary frequencies are stretched beyond the trained context.

    kind "linear" divides all frequencies by `factor` (Chen et al., 2023). kind "llama3" divides only those whose
    wavelength is long against `original_context`, with a smooth ramp between the two factors (Llama 3.1's published
    code).
    """

    kind: Literal["linear", "llama3"]
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8192


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything that fixes a model's tensors and arithmetic. Sizes in elements. Raises ConfigError, naming the field.

    `gpt2`: learned positions, LayerNorm, GELU (tanh form), biases, as OpenAI published it (Radford et al., 2019).
    `llama`: rotary positions, RMSNorm, SwiGLU, grouped-query attention (Touvron et al., 2023; Ainslie et al., 2023).
    `labels` empty means a language model; otherwise a sequence classifier with one score per label.
    """

    architecture: Architecture
    vocab_size: int
    context_length: int
    n_layer: int
    n_head: int
    n_kv_head: int
    d_model: int
    d_ff: int
    head_dim: int
    norm_eps: float = 1e-5
    tie_embeddings: bool = True
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    attention_bias: bool = False
    mlp_bias: bool = False
    dropout: float = 0.0
    initializer_range: float = 0.02
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()
    pad_token_id: int | None = None
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.architecture not in ("gpt2", "llama"):
            raise ConfigError(f"architecture must be gpt2 or llama, not {self.architecture!r}")
        for name in ("vocab_size", "context_length", "n_layer", "n_head", "n_kv_head", "d_model", "d_ff", "head_dim"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"{name} must be a whole number of at least 1, not {value!r}")
        if self.n_head % self.n_kv_head:
            raise ConfigError(f"n_head ({self.n_head}) must be a multiple of n_kv_head ({self.n_kv_head})")
        if self.architecture == "gpt2" and (
            self.n_head * self.head_dim != self.d_model or self.n_kv_head != self.n_head
        ):
            raise ConfigError(
                f"gpt2 needs d_model = n_head x head_dim and n_kv_head = n_head, not d_model {self.d_model}, "
                f"n_head {self.n_head}, n_kv_head {self.n_kv_head}, head_dim {self.head_dim}"
            )
        if self.architecture == "llama" and self.head_dim % 2:
            raise ConfigError(f"head_dim must be even for rotary positions, not {self.head_dim}")
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"dropout must be from 0 to below 1, not {self.dropout!r}")
        self._check_token_ids()

    def _check_token_ids(self) -> None:
        ids = {"bos_token_id": self.bos_token_id, "pad_token_id": self.pad_token_id}
        ids |= {f"eos_token_ids[{i}]": token for i, token in enumerate(self.eos_token_ids)}
        for name, token in ids.items():
            if token is not None and not 0 <= token < self.vocab_size:
                raise ConfigError(f"{name} is {token}, outside the vocabulary of {self.vocab_size} tokens")


def gpt2_config(n_layer: int, n_head: int, d_model: int, **changes: object) -> ModelConfig:
    """GPT-2's configuration at a given size: vocabulary 50,257, 1,024 positions, MLP of 4 x d_model, heads of 64."""
    base = ModelConfig(
        architecture="gpt2", vocab_size=50257, context_length=1024, n_layer=n_layer, n_head=n_head, n_kv_head=n_head,
        d_model=d_model, d_ff=4 * d_model, head_dim=d_model // n_head, attention_bias=True, mlp_bias=True,
        bos_token_id=50256, eos_token_ids=(50256,),
    )  # fmt: skip
    return replace(base, **changes)  # type: ignore[arg-type]


PRESETS: dict[str, ModelConfig] = {
    "gpt2": gpt2_config(12, 12, 768),
    "gpt2-medium": gpt2_config(24, 16, 1024),
    "gpt2-large": gpt2_config(36, 20, 1280),
    "gpt2-xl": gpt2_config(48, 25, 1600),
    "distilgpt2": gpt2_config(6, 12, 768),
    "smollm2-135m": ModelConfig(
        architecture="llama", vocab_size=49152, context_length=8192, n_layer=30, n_head=9, n_kv_head=3, d_model=576,
        d_ff=1536, head_dim=64, rope_theta=100_000.0, bos_token_id=1, eos_token_ids=(2,), pad_token_id=2,
        initializer_range=1 / 24,
    ),
    # Ours, for pretraining on a CPU: a small vocabulary keeps the head from taking most of the work.
    "homegrown-4m": ModelConfig(
        architecture="llama", vocab_size=4096, context_length=512, n_layer=4, n_head=4, n_kv_head=4, d_model=256,
        d_ff=704, head_dim=64, bos_token_id=0, eos_token_ids=(0,),
    ),
    "homegrown-14m": ModelConfig(
        architecture="llama", vocab_size=8192, context_length=1024, n_layer=6, n_head=6, n_kv_head=6, d_model=384,
        d_ff=1024, head_dim=64, bos_token_id=0, eos_token_ids=(0,),
    ),
}  # fmt: skip


def preset(name: str) -> ModelConfig:
    """The preset of that name. ConfigError lists the names there are."""
    if name not in PRESETS:
        raise ConfigError(f"there is no preset {name!r}; the presets are {', '.join(PRESETS)}")
    return PRESETS[name]
