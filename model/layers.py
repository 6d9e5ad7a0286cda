"""Norms, MLPs and rotary positions: small and pure. Shapes: B rows, T positions, D = d_model, F = d_ff, K =
head_dim."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import ModelConfig, RopeScaling


class RMSNorm(nn.Module):
    """Root-mean-square norm with a learned gain (Zhang and Sennrich, 2019). The mean is taken in float32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """[..., size] -> the same shape and dtype."""
        wide = x.float()
        scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * (wide * scale).to(x.dtype)


class GeluMLP(nn.Module):
    """GPT-2's feed-forward: D -> F -> D with the tanh form of GELU (Hendrycks and Gimpel, 2016)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.d_model, config.d_ff, bias=config.mlp_bias)
        self.down = nn.Linear(config.d_ff, config.d_model, bias=config.mlp_bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        return self.dropout(self.down(F.gelu(self.up(x), approximate="tanh")))


class SwiGLU(nn.Module):
    """Llama's feed-forward: down(silu(gate(x)) * up(x)) (Shazeer, 2020)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.d_model, config.d_ff, bias=config.mlp_bias)
        self.up = nn.Linear(config.d_model, config.d_ff, bias=config.mlp_bias)
        self.down = nn.Linear(config.d_ff, config.d_model, bias=config.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        return self.down(F.silu(self.gate(x)) * self.up(x))


def make_norm(config: ModelConfig) -> nn.Module:
    """The architecture's norm over the last dimension, of size d_model."""
    if config.architecture == "gpt2":
        return nn.LayerNorm(config.d_model, eps=config.norm_eps)
    return RMSNorm(config.d_model, config.norm_eps)


def make_mlp(config: ModelConfig) -> nn.Module:
    """The architecture's feed-forward layer."""
    return GeluMLP(config) if config.architecture == "gpt2" else SwiGLU(config)


def rope_table(config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Cosines and sines of every position, each [context_length, K] float32 on the CPU (Su et al., 2021).

    Frequency i turns by theta^(-2i/K) a position; both halves of a head carry the same frequencies, the layout of the
    published Llama weights.
    """
    # On the CPU whatever the default device: a model built without memory still needs them.
    half = torch.arange(0, config.head_dim, 2, dtype=torch.int64, device="cpu").float() / config.head_dim
    frequency = 1.0 / (config.rope_theta**half)  # [K/2]
    if config.rope_scaling is not None:
        frequency = _scale_frequencies(frequency, config.rope_scaling)
    angle = torch.outer(torch.arange(config.context_length, device="cpu").float(), frequency)  # [context, K/2]
    angle = torch.cat((angle, angle), dim=-1)  # [context, K]
    return angle.cos(), angle.sin()


def _scale_frequencies(frequency: Tensor, scaling: RopeScaling) -> Tensor:
    if scaling.kind == "linear":
        return frequency / scaling.factor
    turns = scaling.original_context * frequency / (2 * math.pi)  # turns within the original context
    ramp = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    keep = ramp.clamp(0.0, 1.0)  # 1: a short wavelength, left alone; 0: a long one, divided
    return keep * frequency + (1 - keep) * frequency / scaling.factor


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (i, i + K/2) of x [B, H, T, K] by its position's angle; cos, sin [B or 1, 1, T, K]. Keeps the
    dtype."""
    left, right = x.chunk(2, dim=-1)
    turned = torch.cat((-right, left), dim=-1)
    return (x * cos + turned * sin).to(x.dtype)
