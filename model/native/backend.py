"""The back end on our own kernels for processors: fast from one row to many, and bit for bit the same in any company."""

import ctypes
import itertools
import os
import weakref
from array import array
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from model.architectures import read_config
from model.backend import BackendSpec, Segment, check_segments, choose_slots, slot_bytes
from model.checkpoint import empty_model, read_weights
from model.config import ModelConfig
from model.errors import ConfigError
from model.gpt import GPT, SequenceClassifier
from model.lora import LowRank, Projection
from model.native import library as native
from model.native.weights import fill, locate

_FORMATS = {"float32": 0, "bfloat16": 1, "int8": 2, "int4": 3}


class NativeBackend:
    """See model.backend.Backend. The weights live packed in the library, the slots beside them: in float32 with float32 weights,
    else in 16 bits.

    `invariant`: every sum is taken in one order, whatever the company, the chunking, the slot and the number of threads.
    """

    device = "cpu"
    invariant = True

    def __init__(
        self,
        config: ModelConfig,
        tensors: Iterable[tuple[str, Tensor]],
        *,
        n_slots: int | None = None,
        context: int | None = None,
        dtype: str = "float32",
        quantize: str = "none",
        threads: int = 1,
        streamed: bool = False,
    ) -> None:
        """`tensors`: our parameters by name, read one by one; n_slots and context None: as choose_slots says; `streamed`: see
        model.native.weights.fill.

        ConfigError when the settings or the shape can't be had."""
        self._library = native.load()
        self.config, self.dtype, self.quantize, self.threads = config, dtype, quantize, threads
        self.kernels = f"native {self._library.hg_isa().decode()}"
        element_bytes = 4 if dtype == "float32" and quantize == "none" else 2
        self.n_slots, self.context = choose_slots(config, context, element_bytes, n_slots)
        handle = self._create(element_bytes)
        self._handle: int | None = handle
        self._free = weakref.finalize(self, _destroy, self._library, handle, os.getpid())
        self.score_head = fill(self._library, handle, config, self.context, tensors, streamed=streamed)
        self._logits = _empty(0, config.vocab_size)
        self._numbers = itertools.count(1)
        self._adapters: set[int] = set()

    @classmethod
    def load(cls, spec: BackendSpec) -> "NativeBackend":
        """Load and warm up; `spec` without automatic choices left but for slots and context. Errors as load_backend."""
        config = read_config(spec.model)
        shapes = {name: tensor.shape for name, tensor in empty_model(config).state_dict().items()}
        tensors = read_weights(spec.model, config, shapes, release=True)
        backend = cls(
            config, tensors, n_slots=spec.max_slots, context=spec.context, dtype=spec.dtype, quantize=spec.quantize,
            threads=spec.threads, streamed=True,
        )  # fmt: skip
        hidden = backend.forward([Segment(0, 0, [0])])  # the first pass pays for buffers; no request should
        if backend.score_head is None:
            backend.logits(hidden)
        return backend

    @classmethod
    def from_model(cls, model: GPT | SequenceClassifier, **options: object) -> "NativeBackend":
        """The same from a model in memory, whose weights are copied; `options` as for the constructor."""
        return cls(model.config, model.state_dict().items(), **options)  # type: ignore[arg-type]

    def forward(self, segments: Sequence[Segment]) -> Tensor:
        """See model.backend.Backend."""
        handle = self._open()
        check_segments(segments, self.n_slots, self.context)
        for segment in segments:
            if segment.adapter and segment.adapter not in self._adapters:
                raise KeyError(f"there is no adapter {segment.adapter}")
        records = (native.SegmentRecord * len(segments))(
            *((s.slot, s.adapter, s.start, len(s.tokens), s.outputs) for s in segments)
        )
        tokens = array("i", itertools.chain.from_iterable(s.tokens for s in segments))
        hidden = _empty(sum(s.outputs for s in segments), self.config.d_model)
        self._check(
            self._library.hg_forward(
                handle, records, len(records), tokens.buffer_info()[0], len(tokens), hidden.data_ptr()
            )
        )
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """See model.backend.Backend; the result is overwritten by the next call."""
        handle = self._open()
        if self.score_head is not None:
            raise ConfigError("this model is a classifier: it has no language-model head to generate with")
        if hidden.ndim != 2 or hidden.shape[1] != self.config.d_model:
            raise ValueError(f"hidden states must be [R, {self.config.d_model}], not {list(hidden.shape)}")
        hidden = hidden.to("cpu", torch.float32).contiguous()
        if len(hidden) > len(self._logits):
            self._logits = _empty(len(hidden), self.config.vocab_size)
        out = self._logits[: len(hidden)]
        self._check(self._library.hg_logits(handle, hidden.data_ptr(), len(hidden), out.data_ptr()))
        return out

    def copy_slot(self, source: int, target: int, length: int) -> None:
        """See model.backend.Backend. ValueError when there is no such slot or length."""
        self._check(self._library.hg_copy_slot(self._open(), source, target, length))

    def add_adapter(self, pairs: Sequence[tuple[Projection, LowRank]]) -> int:
        """See model.backend.Backend."""
        handle = self._open()
        if not pairs:
            raise ConfigError("the adapter has no pairs")
        number = next(self._numbers)
        try:
            for projection, pair in pairs:
                try:
                    self._add_pair(handle, number, projection, pair)
                except (KeyError, ValueError):
                    raise ConfigError(f"the adapter's pair on {projection.path} doesn't fit this model") from None
        except BaseException:
            self._library.hg_remove_adapter(handle, number)  # what was added before; if nothing was, this does nothing
            raise
        self._adapters.add(number)
        return number

    def remove_adapter(self, adapter: int) -> None:
        """See model.backend.Backend."""
        handle = self._open()
        self._adapters.remove(adapter)
        self._check(self._library.hg_remove_adapter(handle, adapter))

    def close(self) -> None:
        """See model.backend.Backend. Any call but this one then raises RuntimeError."""
        self._handle = None
        self._free()

    def _open(self) -> int:
        if self._handle is None:
            raise RuntimeError("the back end is closed")
        return self._handle

    def _add_pair(self, handle: int, number: int, projection: Projection, pair: LowRank) -> None:
        layer, matrix, offset = locate(self.config, projection.ours)
        for name, rows in projection.layout.items():
            if name == projection.name:
                break
            offset += rows
        a, b = (part.detach().to("cpu", torch.float32).contiguous() for part in (pair.a, pair.b))
        if len(b) != projection.layout[projection.name] or a.shape[0] != b.shape[1]:
            raise ValueError(projection.path)
        self._check(
            self._library.hg_add_pair(
                handle, number, matrix, layer, offset, b.shape[0], a.shape[1], a.shape[0], pair.scaling,
                a.data_ptr(), b.data_ptr(),
            )
        )  # fmt: skip

    def _create(self, element_bytes: int) -> int:
        config, handle = self.config, ctypes.c_void_p()
        if why := refusal(config):
            raise ConfigError(f"the native kernels can't run this model ({why}); choose backend torch")
        shape = _shape(config, self.dtype if self.quantize == "none" else self.quantize)
        shape.n_slots, shape.context, shape.half_cache = self.n_slots, self.context, element_bytes == 2
        code = self._library.hg_create(ctypes.byref(shape), self.threads, ctypes.byref(handle))
        if code == 0 and handle.value is not None:
            return handle.value
        why = self._library.hg_error().decode(errors="replace")
        if code == native.NO_MEMORY:
            size = self.n_slots * slot_bytes(config, self.context, element_bytes) / 1e9
            why = f"{why}; it asks for {self.n_slots} slots of {self.context} tokens, {size:.1f} GB: lower max_slots or context"
        raise ConfigError(f"the native kernels can't be set up: {why}")

    def _check(self, code: int) -> None:
        native.check(self._library, code)


def refusal(config: ModelConfig) -> str | None:
    """Why the kernels can't compute a model of this shape, whatever the memory there is; None when they can."""
    if max(config.vocab_size, config.n_layer, config.n_head, config.head_dim, config.d_model, config.d_ff) >= 1 << 31:
        return "a size in config.json is larger than the kernels can count"
    library, shape = native.load(), _shape(config, "float32")
    return library.hg_error().decode(errors="replace") if library.hg_check_shape(ctypes.byref(shape)) else None


def _shape(config: ModelConfig, products: str) -> native.Shape:
    """For one slot of one token; `products`: the number format of the matrices."""
    # 4 bits cost the head, and with it the tied embedding, more quality than all else together, and save it little time.
    head = "int8" if products == "int4" else products
    return native.Shape(
        architecture=0 if config.architecture == "gpt2" else 1, vocab_size=config.vocab_size, n_layer=config.n_layer,
        n_head=config.n_head, n_kv_head=config.n_kv_head, head_dim=config.head_dim, d_model=config.d_model,
        d_ff=config.d_ff, norm_eps=config.norm_eps, format=_FORMATS[products], head_format=_FORMATS[head],
        tied=config.tie_embeddings, head=not config.labels, n_slots=1, context=1, half_cache=False,
    )  # fmt: skip


def _destroy(library: ctypes.CDLL, handle: int, owner: int) -> None:
    """Free a model in the process that made it. A fork has its memory, which goes with the process, but not the threads that
    the end of a model waits for."""
    if os.getpid() == owner:
        library.hg_destroy(handle)


def _empty(*shape: int) -> Tensor:
    # The kernels write into it: of this type and here, whatever the defaults are now.
    return torch.empty(shape, dtype=torch.float32, device="cpu")
