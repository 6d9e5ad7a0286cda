"""Low-rank adaptation (Hu et al., 2021): y = W x + scaling * B A x with W frozen, A and B small.

Queries, keys and values are one product here, while adapters are published per projection. So each published projection has
its own pair, on its own rows of the product: the parametrisation of `peft`, exactly.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.architectures import weight_map
from model.errors import ConfigError
from model.gpt import GPT, SequenceClassifier


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """An adapter's shape. `targets`: projections by their published names (llama: q_proj, k_proj, v_proj, o_proj, gate_proj,
    up_proj, down_proj; gpt2: c_attn, c_proj, c_fc, where c_proj is that of attention and of the MLP), or "all".

    The product is scaled by alpha / rank, with `rslora` by alpha / sqrt(rank) (Kalajdzievski, 2023). ConfigError names the
    field.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: Literal["all"] | tuple[str, ...] = "all"
    rslora: bool = False

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError(f"rank must be at least 1, not {self.rank}")
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"dropout must be from 0 to below 1, not {self.dropout}")
        if not self.targets:
            raise ConfigError('targets is empty; name projections, or "all"')

    @property
    def scaling(self) -> float:
        """What the product of the pair is multiplied by."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


class LowRank(nn.Module):
    """One published projection's pair: [..., n_in] -> scaling * B A x, [..., n_out]; zero at the start, since B is."""

    def __init__(
        self,
        n_in: int,
        n_out: int,
        config: LoraConfig,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.empty(config.rank, n_in, device=device, dtype=dtype))
        self.b = nn.Parameter(torch.zeros(n_out, config.rank, device=device, dtype=dtype))
        self.dropout = nn.Dropout(config.dropout)
        self.config, self.scaling = config, config.scaling
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))  # as nn.Linear draws its weights

    def forward(self, x: Tensor) -> Tensor:
        """[..., n_in] -> [..., n_out]."""
        return F.linear(F.linear(self.dropout(x), self.a), self.b) * self.scaling

    def delta(self) -> Tensor:
        """What the pair adds to its rows of the weight: [n_out, n_in] float32."""
        return self.b.float() @ self.a.float() * self.scaling


class LoraLinear(nn.Linear):
    """A frozen linear layer with a pair on some or all of the published projections that it computes.

    `pairs`: published name -> LowRank. `layout`: every published name with its number of output rows, in order. Weight and
    bias keep their names and identity, so whatever reads the base's weights still does.
    """

    def __init__(self, base: nn.Linear, layout: dict[str, int]) -> None:
        super().__init__(base.in_features, base.out_features, bias=base.bias is not None, device="meta")
        self.weight = base.weight
        self.bias = base.bias
        self.layout, self.pairs = layout, nn.ModuleDict()

    def forward(self, input: Tensor) -> Tensor:
        """[..., in_features] -> [..., out_features]."""
        outputs = F.linear(input, self.weight, self.bias).split(list(self.layout.values()), dim=-1)
        changed = [
            output + self.pairs[name](input) if name in self.pairs else output
            for name, output in zip(self.layout, outputs, strict=True)
        ]
        return changed[0] if len(changed) == 1 else torch.cat(changed, dim=-1)


@dataclass(frozen=True)
class Projection:
    """A published linear layer and where ours computes it."""

    path: str  # published, such as model.layers.0.self_attn.q_proj
    ours: str  # such as blocks.0.attention.qkv, within the whole model
    layout: dict[str, int]  # the published names that our layer computes, with their output rows
    transposed: bool  # published as [in, out]

    @property
    def name(self) -> str:
        """The last part of the path: what adapters' targets name."""
        return self.path.rpartition(".")[2]


def projections(model: GPT | SequenceClassifier) -> list[Projection]:
    """Every published linear layer of the blocks, in the order of the layers: what an adapter can be put on."""
    found = []
    for parameter, source in weight_map(model.config).items():
        ours, _, kind = parameter.rpartition(".")
        layer = model.get_submodule(ours)
        if kind != "weight" or ".blocks." not in f".{ours}" or not isinstance(layer, nn.Linear):
            continue
        paths = [name.removesuffix(".weight") for name in source.names]
        names = [path.rpartition(".")[2] for path in paths]
        layout = dict(zip(names, source.rows or (layer.out_features,), strict=True))
        found += [Projection(path, ours, layout, source.transposed) for path in paths]
    return found


def add_lora(model: GPT | SequenceClassifier, config: LoraConfig) -> None:
    """Freeze the model and put a fresh pair on every targeted projection, in place; a classifier's head stays trainable.

    Drawn from the global random generator, in the order of `projections`. ConfigError names a target that the architecture
    hasn't, or says that the model has pairs already.
    """
    if any(True for _ in lora_pairs(model)):
        raise ConfigError("the model has an adapter already; merge it before another is added")
    there = projections(model)
    names = list(dict.fromkeys(projection.name for projection in there))
    unknown = [] if config.targets == "all" else [target for target in config.targets if target not in names]
    if unknown:
        raise ConfigError(
            f"targets names {', '.join(unknown)}, which a {model.config.architecture} model hasn't; it has {', '.join(names)}"
        )
    model.requires_grad_(False)
    for projection in there:
        if config.targets == "all" or projection.name in config.targets:
            add_pair(model, projection, config)
    if isinstance(model, SequenceClassifier):
        model.score.requires_grad_(True)


def add_pair(model: GPT | SequenceClassifier, projection: Projection, config: LoraConfig) -> LowRank:
    """Put a fresh pair on one projection, in the weight's dtype, and return it."""
    layer = model.get_submodule(projection.ours)
    assert isinstance(layer, nn.Linear)
    if not isinstance(layer, LoraLinear):
        layer = LoraLinear(layer, projection.layout)
        model.set_submodule(projection.ours, layer)
    weight = layer.weight
    pair = LowRank(layer.in_features, projection.layout[projection.name], config, weight.device, weight.dtype)
    layer.pairs[projection.name] = pair.train(model.training)
    return pair


def lora_pairs(model: GPT | SequenceClassifier) -> Iterator[tuple[Projection, LowRank]]:
    """The pairs on a model, each with its projection."""
    for projection in projections(model):
        layer = model.get_submodule(projection.ours)
        if isinstance(layer, LoraLinear) and projection.name in layer.pairs:
            pair = layer.pairs[projection.name]
            assert isinstance(pair, LowRank)
            yield projection, pair


@torch.no_grad()
def merge_lora(model: GPT | SequenceClassifier) -> None:
    """Add every pair to the weight below it, in place, computed in float32: the same function, and plain layers again."""
    for path, layer in list(model.named_modules()):
        if not isinstance(layer, LoraLinear):
            continue
        rows = layer.weight.split(list(layer.layout.values()))  # views
        for name, part in zip(layer.layout, rows, strict=True):
            if name in layer.pairs:
                pair = layer.pairs[name]
                assert isinstance(pair, LowRank)
                part.copy_(part.float() + pair.delta())
        plain = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
        plain.weight, plain.bias = layer.weight, layer.bias
        model.set_submodule(path, plain.train(layer.training))
