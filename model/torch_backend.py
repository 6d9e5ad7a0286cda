"""The back end on PyTorch: for GPUs, and for processors where our own kernels couldn't be built."""

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.backend import DTYPES, BackendSpec, Segment, check_segments, choose_slots, slot_bytes
from model.config import ModelConfig
from model.errors import ConfigError
from model.gpt import GPT, SequenceClassifier
from model.kv_cache import KVCache
from model.lora import LowRank, Projection
from model.multi_lora import AdapterSet
from model.quantization import DECODED, load_quantized
from model.slot_rows import FlatRows
from model.torch_graphs import BucketedStep


class TorchBackend:
    """See model.backend.Backend.

    All segments go through the layers as one matrix of rows without padding. On a GPU, rows of one token go in a step of their
    own instead, in shapes that repeat, and as a captured graph (model.torch_graphs); `bucketed` chooses that step, which needs
    no GPU.

    Not `invariant`: PyTorch's matrix products choose their blocking, and with it the order of their sums, by the number of
    rows, so a row's last bits depend on its company. Who needs the same bits runs each row alone and cuts prompts at fixed
    places. (int8 products are exact in any company; norms, attention and the float products around them still are not.)
    """

    invariant = False

    def __init__(
        self,
        model: GPT | SequenceClassifier,
        *,
        n_slots: int,
        context: int | None = None,
        quantize: str = "none",
        dtype: torch.dtype | None = None,
        threads: int = 1,
        bucketed: bool | None = None,
    ) -> None:
        """`model` as load_quantized gives it for `quantize` and `dtype` (None: that of its embedding); it is changed when
        adapters are added."""
        trunk = model.trunk if isinstance(model, SequenceClassifier) else model
        device = next(trunk.norm.parameters()).device
        dtype = trunk.token_embedding.weight.dtype if dtype is None else dtype
        self._model, self._device, self._dtype = trunk, device, dtype
        self.config, self.n_slots, self.threads, self.quantize = model.config, n_slots, threads, quantize
        self.device, self.dtype = device.type, str(dtype).removeprefix("torch.")
        self.kernels = "torch"
        self.score_head = model.score.weight.float() if isinstance(model, SequenceClassifier) else None
        bucketed = self.device == "cuda" if bucketed is None else bucketed
        self._cache = _make_cache(model.config, n_slots + bucketed, context, dtype, device)  # the step pads with a slot
        self.context = self._cache.context
        self._step = BucketedStep(trunk, self._cache) if bucketed else None
        self._written = [0] * (n_slots + 1)  # positions of each slot that may hold anything but zeros
        self._adapters = AdapterSet(trunk)

    @classmethod
    def load(cls, spec: BackendSpec) -> "TorchBackend":
        """Load and warm up; `spec` without automatic choices left but for slots and context. Errors as load_backend."""
        torch.set_num_threads(spec.threads)
        dtype = DTYPES[spec.dtype]
        model = load_quantized(spec.model, spec.quantize, dtype=dtype, device=spec.device)
        n_slots, context = choose_slots(model.config, spec.context, dtype.itemsize, spec.max_slots)
        backend = cls(
            model, n_slots=n_slots, context=context, quantize=spec.quantize, dtype=dtype, threads=spec.threads
        )
        backend.forward([Segment(0, 0, [0])])  # the first pass pays for lazy set-up; no request should
        return backend

    @torch.inference_mode()
    def forward(self, segments: Sequence[Segment]) -> Tensor:
        """See model.backend.Backend."""
        check_segments(segments, self.n_slots, self.context)
        self._adapters.check({segment.adapter for segment in segments})
        with self._arithmetic():
            return self._flat(segments) if self._step is None else self._stepped(self._step, segments)

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """See model.backend.Backend."""
        head = self._model.head
        if self._dtype is torch.bfloat16 and isinstance(head, nn.Linear):
            return _wide_product(hidden, head.weight)
        return self._model.logits(hidden)

    def copy_slot(self, source: int, target: int, length: int) -> None:
        """See model.backend.Backend."""
        self._cache.copy_slot(source, target, length)
        self._keep(target, length)

    def add_adapter(self, pairs: Sequence[tuple[Projection, LowRank]]) -> int:
        """See model.backend.Backend."""
        return self._adapters.add(pairs)

    def remove_adapter(self, adapter: int) -> None:
        """See model.backend.Backend."""
        self._adapters.remove(adapter)

    def close(self) -> None:
        """See model.backend.Backend."""
        del self._model, self._cache, self._step, self._adapters

    def _flat(self, segments: Sequence[Segment]) -> Tensor:
        """The wanted hidden states of all segments, as one row of tokens."""
        rows = FlatRows.locate(self._cache, [(s.slot, s.start, len(s.tokens)) for s in segments])
        tokens = torch.tensor([[token for s in segments for token in s.tokens]], device=self._device)  # [1, N]
        places = [(s.adapter, span.begin, span.end) for s, span in zip(segments, rows.spans, strict=True)]
        with self._adapters.on(places):
            hidden = self._model.hidden_rows(tokens, rows)[0]  # [N, D]
        wanted = [
            i for s, span in zip(segments, rows.spans, strict=True) for i in range(span.end - s.outputs, span.end)
        ]
        if len(wanted) < len(hidden):
            hidden = hidden[torch.tensor(wanted, dtype=torch.long, device=self._device)]
        return hidden.float()

    def _stepped(self, step: BucketedStep, segments: Sequence[Segment]) -> Tensor:
        """`_flat`, but rows of one token without an adapter go in a step of their own."""
        self._clear_behind(segments)
        stepped = [i for i, s in enumerate(segments) if len(s.tokens) == 1 and not s.adapter]
        others = [i for i, s in enumerate(segments) if len(s.tokens) > 1 or s.adapter]
        parts: list[Tensor] = [torch.empty(0)] * len(segments)
        if stepped:
            hidden = step.run([segments[i] for i in stepped])  # [n, D]
            for i, row in zip(stepped, hidden.split(1), strict=True):
                parts[i] = row[: segments[i].outputs]
        if others:
            hidden = self._flat([segments[i] for i in others])
            for i, rows in zip(others, hidden.split([segments[i].outputs for i in others]), strict=True):
                parts[i] = rows
        return torch.cat(parts)

    def _arithmetic(self) -> AbstractContextManager[object]:
        """bfloat16 products of float32 inputs, where the weights are bfloat16; norms and the residual stream stay float32."""
        half = self._dtype is torch.bfloat16
        return torch.autocast(self._device.type, torch.bfloat16, enabled=half, cache_enabled=False)

    def _clear_behind(self, segments: Sequence[Segment]) -> None:
        """Zeros over what earlier owners left behind: a masked position must hold a finite number, since 0 x NaN is NaN."""
        for segment in segments:
            self._keep(segment.slot, segment.start)
            self._written[segment.slot] = segment.start + len(segment.tokens)

    def _keep(self, slot: int, length: int) -> None:
        if self._step is not None and self._written[slot] > length:
            self._cache.clear(slot, length, self._written[slot])
        self._written[slot] = length


def _wide_product(x: Tensor, weight: Tensor) -> Tensor:
    """x W^T in float32 of bfloat16 weights: logits rounded to bfloat16 change one likeliest token in fifty."""
    if x.is_cuda:
        return torch.mm(x.bfloat16(), weight.t(), out_dtype=torch.float32)
    blocks = [F.linear(x, part.float()) for part in weight.split(max(1, DECODED // weight.shape[1]))]
    return torch.cat(blocks, dim=1)


def _make_cache(
    config: ModelConfig, n_slots: int, context: int | None, dtype: torch.dtype, device: torch.device
) -> KVCache:
    try:
        return KVCache(config, n_slots, context=context, dtype=dtype, device=device)
    except (MemoryError, RuntimeError) as error:  # torch reports memory that can't be had as a RuntimeError
        positions = context or config.context_length
        need = n_slots * slot_bytes(config, positions, dtype.itemsize)
        raise ConfigError(
            f"max_slots: {n_slots} slots of {positions} tokens need {need / 1e9:.1f} GB that {device} doesn't have; "
            f"lower max_slots or context ({str(error).splitlines()[0]})"
        ) from None
