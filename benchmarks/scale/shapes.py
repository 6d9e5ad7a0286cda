"""The models of the plan, as Homegrown builds them, and what a token of each costs."""

from dataclasses import dataclass, replace

from model.config import PRESETS, ModelConfig, gpt2_config


@dataclass(frozen=True)
class Shape:
    """A model: its name here, its configuration, and the batch that GPT-3 took at this size, in tokens (Brown et al., 2020,
    table 2.1)."""

    name: str
    config: ModelConfig
    usual_batch: float

    @property
    def matrices(self) -> int:
        """Weights that are multiplied with, once a token: those of the blocks and of the head."""
        c = self.config
        heads, keys = c.n_head * c.head_dim, c.n_kv_head * c.head_dim
        mlp = (2 if c.architecture == "gpt2" else 3) * c.d_model * c.d_ff
        block = c.d_model * (heads + 2 * keys) + heads * c.d_model + mlp
        return c.n_layer * block + c.vocab_size * c.d_model

    @property
    def parameters(self) -> int:
        """All, each counted once; biases and norms too."""
        c = self.config
        if c.architecture == "gpt2":
            biases = c.n_layer * (3 * c.d_model + c.d_model + c.d_ff + c.d_model)
            norms = (2 * c.n_layer + 1) * 2 * c.d_model
            return self.matrices + c.context_length * c.d_model + biases + norms
        embedding = 0 if c.tie_embeddings else c.vocab_size * c.d_model
        return self.matrices + embedding + (2 * c.n_layer + 1) * c.d_model

    @property
    def training_flops(self) -> float:
        """To learn from one token: 6 a weight, and causal attention. The convention of training/costs.py."""
        c = self.config
        return 6 * self.matrices + 6 * c.n_layer * c.n_head * c.head_dim * c.context_length

    def slot_bytes(self, element: int = 2) -> int:
        """Keys and values of a whole context, `element` bytes each, as model.backend.slot_bytes."""
        return self.config.context_length * self.token_bytes(element)

    def token_bytes(self, element: int = 2) -> int:
        """Keys and values of one token."""
        c = self.config
        return 2 * c.n_layer * c.n_kv_head * c.head_dim * element


SMALL = Shape("124 M", PRESETS["gpt2"], 0.5e6)
MIDDLE = Shape("1.3 B", gpt2_config(24, 16, 2048, context_length=2048), 1e6)  # GPT-3 XL's depth and width
LARGE = Shape(
    "7 B",
    ModelConfig(
        architecture="llama", vocab_size=32000, context_length=4096, n_layer=32, n_head=32, n_kv_head=32, d_model=4096,
        d_ff=11008, head_dim=128, tie_embeddings=False,
    ),
    2e6,
)  # fmt: skip
SHAPES = (SMALL, MIDDLE, LARGE)
LLAMA_8B = Shape(  # for comparison with what others measured; its heads share keys, so its cache is a quarter
    "8 B", replace(LARGE.config, vocab_size=128256, n_kv_head=8, d_ff=14336), 2e6
)
