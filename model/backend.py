"""What runs a model: slots that hold sequences, segments of new tokens in, hidden states and logits out.

Two of them: our own kernels for processors (model.native) and PyTorch (model.torch_backend). The engine, the evaluation and
the benchmarks know this protocol alone. Shapes: R rows, D = d_model, V = vocab_size.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from model.architectures import read_config
from model.checkpoint import stored_dtypes
from model.config import ModelConfig
from model.errors import ConfigError, ContextLengthError

if TYPE_CHECKING:
    from model.lora import LowRank, Projection

logger = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
QUANTIZE = ("none", "int8", "int4")
BACKENDS = ("native", "torch")
_CACHE_BYTES = 1 << 30
_AUTO_SLOTS = (4, 32)
_LARGE = 32_000_000  # weights of blocks and head: more than caches hold
_MAX_SLOTS = (1 << 31) - 1  # what 32 bits count; a context is rounded up to blocks besides
_MAX_CONTEXT = (1 << 31) - (1 << 10)


@dataclass(frozen=True, slots=True)
class Segment:
    """The next tokens of one slot. A slot occurs at most once in a forward."""

    slot: int
    start: int  # tokens that the slot keeps; the new ones go behind them, over whatever lay there
    tokens: Sequence[int]  # at least one
    outputs: int = 1  # hidden states wanted, of the last so many tokens: 0 to len(tokens)
    adapter: int = 0  # 0: the base model; else a number that add_adapter gave


class Backend(Protocol):
    """A loaded model with its cache slots. It knows no requests. Not for two threads at once."""

    config: ModelConfig
    n_slots: int
    context: int  # positions of a slot
    dtype: str  # float32 or bfloat16: of the weights that aren't quantised
    quantize: str  # none, int8 or int4
    device: str  # cpu or cuda
    threads: int
    kernels: str  # "torch", "native avx512", ...: for logs and reports
    invariant: bool  # results are bit for bit the same in any company, chunking and slot
    score_head: Tensor | None  # [n_labels, D] float32 of a classifier, which has no logits; else None

    def forward(self, segments: Sequence[Segment]) -> Tensor:
        """Append each segment to its slot; the final norm's output, [sum of outputs, D] float32, in the segments' order.

        Errors are raised before a tensor is touched: ContextLengthError for a segment that passes the slots' end, ValueError
        for one that breaks the protocol, KeyError for an adapter that isn't there.
        """
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """[R, D] -> [R, V] float32, perhaps in a buffer that the next call overwrites. ConfigError on a classifier."""
        ...

    def copy_slot(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions of slot `source` into slot `target`."""
        ...

    def add_adapter(self, pairs: "Sequence[tuple[Projection, LowRank]]") -> int:
        """Take low-rank pairs (as model.lora.lora_pairs gives them, of a language model or a classifier); the adapter's
        number, from 1. ConfigError when one fits no projection of this model."""
        ...

    def remove_adapter(self, adapter: int) -> None:
        """Forget an adapter. KeyError when it isn't there."""
        ...

    def close(self) -> None:
        """Free what it holds; nothing may be called afterwards."""
        ...


@dataclass(frozen=True, kw_only=True)
class BackendSpec:
    """What to load and how. "auto" and None are the automatic choices that load_backend describes."""

    model: Path  # a model directory
    dtype: str = "auto"  # auto, float32, bfloat16
    quantize: str = "auto"  # auto, none, int8, int4
    device: str = "auto"  # auto, cpu, cuda
    threads: int = 1
    spare: int = 0  # of these threads, how many to do without where they are worth less than a processor is to others
    max_slots: int | None = None
    context: int | None = None
    backend: str = "auto"  # auto, native, torch


def load_backend(spec: BackendSpec) -> Backend:
    """Load the model with what runs it best here.

    Automatic: a CUDA device if there is one. There PyTorch in bfloat16; on a processor our kernels where they could be built,
    else PyTorch; bfloat16 only when the checkpoint stores 16 bits a weight, our kernels run it and the processor multiplies
    it (AVX512-BF16), else float32. Never quantised unasked. A model too wide for our kernels runs on PyTorch, with a line in
    the log. Slots: a GiB of cache, from 4 to 32.

    Raises ConfigError for a setting that can't be had, naming it, and CheckpointError as load_model.
    """
    config = _check(spec)
    device = choose_device(spec.device)
    native = _use_native(spec.backend, device, config)
    dtype = choose_dtype(spec.dtype, device, spec.model, native=native)
    chosen = replace(
        spec,
        dtype=dtype,
        quantize="none" if spec.quantize == "auto" else spec.quantize,
        device=device.type,
        threads=spec.threads if native and _is_large(config) else max(1, spec.threads - spec.spare),
        backend="native" if native else "torch",
    )
    if native:
        from model.native.backend import NativeBackend

        return NativeBackend.load(chosen)
    from model.torch_backend import TorchBackend

    return TorchBackend.load(chosen)


def choose_device(name: str) -> torch.device:
    """The device that setting `device` means. ConfigError when it isn't there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "device: there is no CUDA device (or this PyTorch was built without CUDA); choose cpu or auto"
        )
    return torch.device(name)


def choose_dtype(name: str, device: torch.device, directory: Path, *, native: bool) -> str:
    """The number format that setting `dtype` means for the checkpoint in `directory`; see load_backend."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bfloat16"
    if not native or not _native_bfloat16():
        return "float32"
    sixteen = stored_dtypes(directory) <= {"BF16", "F16"}
    return "bfloat16" if sixteen else "float32"


def choose_slots(config: ModelConfig, context: int | None, element_bytes: int, wanted: int | None) -> tuple[int, int]:
    """Cache slots and the positions of each: `wanted` and `context`, else what a GiB holds (4 to 32) and the model's own.
    ConfigError when either can't be."""
    positions = config.context_length if context is None else context
    if not 1 <= positions <= config.context_length:
        raise ConfigError(f"context must be from 1 to the model's {config.context_length}, not {positions}")
    if positions > _MAX_CONTEXT:
        raise ConfigError(f"context: {positions} tokens are more than a slot can have; choose {_MAX_CONTEXT} or fewer")
    if wanted is not None and wanted < 1:
        raise ConfigError(f"max_slots must be at least 1, not {wanted}")
    if wanted is not None and wanted > _MAX_SLOTS:
        raise ConfigError(
            f"max_slots: {wanted} slots are more than there can be; lower max_slots to {_MAX_SLOTS} or fewer"
        )
    low, high = _AUTO_SLOTS
    fitting = _CACHE_BYTES // slot_bytes(config, positions, element_bytes)
    return wanted or min(max(fitting, low), high), positions


def slot_bytes(config: ModelConfig, context: int, element_bytes: int) -> int:
    """Bytes of one slot's keys and values."""
    return 2 * config.n_layer * config.n_kv_head * config.head_dim * context * element_bytes


def check_segments(segments: Sequence[Segment], n_slots: int, context: int) -> None:
    """What every back end checks before it touches a tensor; errors as Backend.forward."""
    if not segments:
        raise ValueError("a forward needs at least one segment")
    if len({segment.slot for segment in segments}) != len(segments):
        raise ValueError("a slot may occur only once in a forward")
    for segment in segments:
        if not 0 <= segment.slot < n_slots:
            raise ValueError(f"slot {segment.slot} is none of the {n_slots} there are")
        if not segment.tokens or segment.start < 0:
            raise ValueError(f"slot {segment.slot}: a segment needs a token and a start of at least 0")
        if not 0 <= segment.outputs <= len(segment.tokens):
            raise ValueError(f"slot {segment.slot}: {segment.outputs} outputs of {len(segment.tokens)} tokens")
        length = segment.start + len(segment.tokens)
        if length > context:
            raise ContextLengthError(
                f"{length} tokens don't fit the context of {context} tokens; shorten the text", length, context
            )


def _check(spec: BackendSpec) -> ModelConfig:
    """The model's configuration. ConfigError names the setting that is none of its choices."""
    choices = {
        "dtype": ("auto", *DTYPES),
        "quantize": ("auto", *QUANTIZE),
        "device": ("auto", "cpu", "cuda"),
        "backend": ("auto", *BACKENDS),
    }
    for name, allowed in choices.items():
        value = getattr(spec, name)
        if value not in allowed:
            raise ConfigError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
    if spec.threads < 1:
        raise ConfigError(f"threads must be at least 1, not {spec.threads}")
    return read_config(spec.model)  # an unusable model is said before a library is loaded


def _use_native(backend: str, device: torch.device, config: ModelConfig) -> bool:
    """Whether our own kernels run the model. ConfigError when they are asked for and can't."""
    if backend == "torch" or (backend == "auto" and device.type != "cpu"):
        return False
    if device.type != "cpu":
        raise ConfigError("backend: the native kernels run on a processor; choose device cpu, or backend torch")
    from model.native import library

    if not library.available():
        if backend == "native":
            raise ConfigError(
                f"backend: the native kernels weren't built, or not from these sources; {library.BUILD_AGAIN}, or choose"
                " backend torch"
            )
        return False
    from model.native.backend import refusal

    why = refusal(config)
    if why is None:
        return True
    if backend == "native":
        raise ConfigError(f"backend: the native kernels can't run this model ({why}); choose backend torch or auto")
    logger.warning("the native kernels can't run this model (%s): PyTorch computes it", why)
    return False


def _is_large(config: ModelConfig) -> bool:
    """Whether a step reads so much that a last thread is worth its processor, although a server's other work wants it too. The
    kernels' threads wait for no one of them (PyTorch's do), but a step of a small model is over before they have all begun."""
    block = (2 * config.n_head + 2 * config.n_kv_head) * config.head_dim * config.d_model
    block += (3 if config.architecture == "llama" else 2) * config.d_model * config.d_ff
    return config.n_layer * block + config.vocab_size * config.d_model >= _LARGE


def _native_bfloat16() -> bool:
    """Whether the kernels that are chosen here multiply bfloat16 in hardware."""
    from model.native import library

    return library.load().hg_isa() == b"avx512"
