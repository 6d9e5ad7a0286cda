"""Weights of 8 and 4 bits in PyTorch: layers, and how a model is loaded into them tensor by tensor.

Where our own kernels run they quantise for themselves (model.native). This is for GPUs and for what has no kernels.
"""

from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.architectures import read_config
from model.checkpoint import empty_model, read_weights
from model.errors import ConfigError
from model.gpt import GPT, SequenceClassifier

GROUP = 32  # inputs that share a scale in 4 bits
_BASE = 128  # of the two digits of an input
DECODED = 1 << 19  # weights decoded at a time: they stay in a core's cache until the product has used them


class QuantizedLinear(nn.Module):
    """A linear layer of decoded weights: y = x W^T + bias, [..., n_in] -> [..., n_out], in the input's dtype. Memory is saved,
    not time: every pass decodes the weights anew, a block of outputs at a time."""

    def __init__(self, n_out: int, n_in: int, bias: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = n_out, n_in
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def decode(self, rows: slice | Tensor) -> Tensor:
        """Those rows of the weight, [n, n_in] float32."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """[..., n_in] -> [..., n_out]."""
        step = max(1, DECODED // self.in_features)
        blocks = [
            F.linear(x, self.decode(slice(begin, begin + step)).to(x.dtype))
            for begin in range(0, self.out_features, step)
        ]
        y = blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=-1)
        return y if self.bias is None else y + self.bias


class Int8Linear(QuantizedLinear):
    """Weights of 8 bits with one scale for each output.

    Where the device multiplies them (CUDA, processors with VNNI), a token's inputs become 15-bit whole numbers under a scale
    of its own, in two digits of 8 bits (one digit costs a Llama-like model 4 % of perplexity: a few of its inputs are far
    larger than the rest). Both digits are multiplied in one product and summed exactly, so a token's result never depends on
    the others. Elsewhere weights are decoded, and only memory is saved.
    """

    weight: Tensor  # [n_out, n_in] int8, both padded with zeros to multiples of 8
    scale: Tensor  # [n_out] float32

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        n_out, n_in = weight.shape
        super().__init__(n_out, n_in, bias)
        wide = weight.float()
        scale = wide.abs().amax(1).clamp_min(1e-12) / 127
        rounded = (wide / scale[:, None]).round().to(torch.int8)
        self.register_buffer("weight", F.pad(rounded, (0, -n_in % 8, 0, -n_out % 8)))
        self.register_buffer("scale", scale)
        self.integer = multiplies_int8(weight.device)

    def decode(self, rows: slice | Tensor) -> Tensor:
        """See QuantizedLinear."""
        return self.weight[: self.out_features, : self.in_features][rows].float() * self.scale[rows][:, None]

    def forward(self, x: Tensor) -> Tensor:
        """[..., n_in] -> [..., n_out]."""
        if not self.integer:
            return super().forward(x)
        flat = x.reshape(-1, self.in_features).float()  # [N, n_in]
        scale = flat.abs().amax(1, keepdim=True).clamp_min(1e-12) / (127 * _BASE)  # [N, 1]
        whole = (flat / scale).round()
        high = (whole / _BASE).round()  # [-127, 127]
        digits = torch.cat((high, whole - high * _BASE)).to(torch.int8)  # [2 N, n_in]; the low one in [-64, 64]
        n = len(flat)
        more = max(-2 * n % 8, 32 - 2 * n) if x.is_cuda else 0  # cuBLAS takes rows by the eight, and more than 16
        digits = F.pad(digits, (0, self.weight.shape[1] - self.in_features, 0, more))
        sums = torch.ops.aten._int_mm(digits, self.weight.t())[:, : self.out_features].float()
        y = (sums[:n] * _BASE + sums[n : 2 * n]) * scale * self.scale
        if self.bias is not None:
            y = y + self.bias
        return y.to(x.dtype).view(*x.shape[:-1], self.out_features)


class Int4Linear(QuantizedLinear):
    """Weights of 4 bits: 16 levels from the least to the greatest of each GROUP inputs of an output. (Levels symmetric to zero
    lose several times as much.) They are decoded for every product, on any device: this saves memory, and takes time."""

    codes: Tensor  # [n_out, n_in / 2] uint8: two to a byte, the first of the pair in the low half
    scale: Tensor  # [n_out, n_in / GROUP] float16
    least: Tensor  # the same shape

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        n_out, n_in = weight.shape
        super().__init__(n_out, n_in, bias)
        groups = F.pad(weight.float(), (0, -n_in % GROUP)).view(n_out, -1, GROUP)
        least = groups.amin(2).half()
        scale = ((groups.amax(2) - least.float()) / 15).half()
        steps = (groups - least.float()[:, :, None]) / scale.float().clamp_min(1e-12)[:, :, None]
        codes = steps.round().clamp(0, 15).to(torch.uint8).view(n_out, -1)
        self.register_buffer("codes", codes[:, ::2] | codes[:, 1::2] << 4)
        self.register_buffer("scale", scale)
        self.register_buffer("least", least)

    def decode(self, rows: slice | Tensor) -> Tensor:
        """See QuantizedLinear."""
        packed = self.codes[rows]
        codes = torch.stack((packed & 15, packed >> 4), dim=-1).view(len(packed), -1, GROUP)
        groups = codes.float() * self.scale[rows].float()[:, :, None] + self.least[rows].float()[:, :, None]
        return groups.view(len(packed), -1)[:, : self.in_features]


class TiedEmbedding(nn.Module):
    """The embedding of a model whose head is quantised and shares the weight: rows of that, decoded."""

    def __init__(self, head: QuantizedLinear, dtype: torch.dtype) -> None:
        super().__init__()
        self._head = [head]  # not a submodule: the model has it already
        self.dtype = dtype

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, T] int64 -> [B, T, D]."""
        return self._head[0].decode(tokens.reshape(-1)).view(*tokens.shape, -1).to(self.dtype)


def load_quantized(
    directory: Path | str, quantize: str, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> GPT | SequenceClassifier:
    """As load_model, for inference: the products' weights in 8 or 4 bits ("int8", "int4") or as `dtype` ("none"), norms in
    float32, all else as `dtype`. With 4 bits the head has 8: it alone would lose more than all the layers.

    Each tensor is converted as it is read: the whole of the weights is never in memory otherwise. ConfigError for another name;
    CheckpointError as load_model.
    """
    if quantize not in ("none", "int8", "int4"):
        raise ConfigError(f"quantize must be one of none, int8, int4, not {quantize!r}")
    config = read_config(Path(directory))
    model = empty_model(config)
    trunk = model.trunk if isinstance(model, SequenceClassifier) else model
    tied = trunk.head is not None and config.tie_embeddings
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    rest: dict[str, Tensor] = {}
    for name, tensor in read_weights(directory, config, shapes):
        path = "head" if tied and name == "token_embedding.weight" else name.removesuffix(".weight")
        layer = model.get_submodule(path) if path != name else None
        if quantize != "none" and isinstance(layer, nn.Linear) and path != "score":
            kind = Int4Linear if quantize == "int4" and path != "head" else Int8Linear
            bias = None if layer.bias is None else torch.empty_like(layer.bias)
            model.set_submodule(path, kind(tensor.to(device), bias))
        else:
            norm = "norm" in name.rpartition(".")[0].rpartition(".")[2]
            rest[name] = tensor.to(device=device, dtype=torch.float32 if norm else dtype)
    if isinstance(trunk.head, QuantizedLinear) and tied:
        trunk.set_submodule("token_embedding", TiedEmbedding(trunk.head, dtype))
    model.load_state_dict(rest, strict=False, assign=True)
    if tied and quantize == "none":
        trunk.tie_embeddings()
    left = [name for name, tensor in model.named_parameters() if tensor.is_meta]
    assert not left, f"no weights for {left}"
    return model.to(device).eval().requires_grad_(False)


@cache
def multiplies_int8(device: torch.device) -> bool:
    """Whether the device has exact products of 8-bit numbers. Without VNNI, oneDNN's may overflow in between."""
    return device.type == "cuda" or (device.type == "cpu" and bool(torch.cpu._is_vnni_supported()))
