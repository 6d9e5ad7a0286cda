"""The back end on PyTorch: for GPUs, and for processors where our own kernels couldn't be built."""

from collections.abc import Sequence

import torch
from torch import Tensor

from model.attention import FlatRows
from model.backend import DTYPES, BackendSpec, Segment, check_segments, choose_slots, slot_bytes
from model.checkpoint import load_model
from model.errors import ConfigError
from model.gpt import GPT, SequenceClassifier
from model.kv_cache import KVCache
from model.lora import LowRank, Projection


class TorchBackend:
    """See model.backend.Backend.

    All segments go through the layers as one matrix of rows without padding. Not `invariant`: PyTorch's matrix products
    choose their blocking, and with it the order of their sums, by the number of rows, so a row's last bits depend on its
    company. Who needs bit for bit the same answer runs each row alone and cuts prompts at fixed places.
    """

    invariant = False

    def __init__(
        self,
        model: GPT | SequenceClassifier,
        *,
        n_slots: int,
        context: int | None = None,
        quantize: str = "none",
        threads: int = 1,
    ) -> None:
        self._model = model.trunk if isinstance(model, SequenceClassifier) else model
        weight = self._model.token_embedding.weight
        self.config, self.n_slots, self.threads, self.quantize = model.config, n_slots, threads, quantize
        self._device, self._dtype = weight.device, weight.dtype
        self.device, self.dtype = weight.device.type, str(weight.dtype).removeprefix("torch.")
        self.kernels = "torch"
        self.score_head = model.score.weight.float() if isinstance(model, SequenceClassifier) else None
        self._cache = _make_cache(self._model, n_slots, context)
        self.context = self._cache.context

    @classmethod
    def load(cls, spec: BackendSpec) -> "TorchBackend":
        """Load and warm up; `spec` without automatic choices left but for slots and context. Errors as load_backend."""
        torch.set_num_threads(spec.threads)
        dtype = DTYPES[spec.dtype]
        model = load_model(spec.model, dtype=dtype, device=spec.device)
        n_slots, context = choose_slots(model.config, spec.context, dtype.itemsize, spec.max_slots)
        backend = cls(model, n_slots=n_slots, context=context, quantize=spec.quantize, threads=spec.threads)
        backend.forward([Segment(0, 0, [0])])  # the first pass pays for lazy set-up; no request should
        return backend

    @torch.inference_mode()
    def forward(self, segments: Sequence[Segment]) -> Tensor:
        """See model.backend.Backend."""
        check_segments(segments, self.n_slots, self.context)
        rows = FlatRows.locate(self._cache, [(s.slot, s.start, len(s.tokens)) for s in segments])
        tokens = torch.tensor([[token for s in segments for token in s.tokens]], device=self._device)  # [1, N]
        hidden = self._model.hidden_rows(tokens, rows)[0]  # [N, D]
        wanted = [
            i for s, span in zip(segments, rows.spans, strict=True) for i in range(span.end - s.outputs, span.end)
        ]
        if len(wanted) < len(hidden):
            hidden = hidden[torch.tensor(wanted, dtype=torch.long, device=self._device)]
        return hidden.float()

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """See model.backend.Backend."""
        return self._model.logits(hidden.to(self._dtype)).float()

    def copy_slot(self, source: int, target: int, length: int) -> None:
        """See model.backend.Backend."""
        self._cache.copy_slot(source, target, length)

    def add_adapter(self, pairs: Sequence[tuple[Projection, LowRank]]) -> int:
        """See model.backend.Backend."""
        raise NotImplementedError

    def remove_adapter(self, adapter: int) -> None:
        """See model.backend.Backend."""
        raise KeyError(adapter)

    def close(self) -> None:
        """See model.backend.Backend."""
        del self._model, self._cache


def _make_cache(model: GPT, n_slots: int, context: int | None) -> KVCache:
    weight = model.token_embedding.weight
    try:
        return KVCache(model.config, n_slots, context=context, dtype=weight.dtype, device=weight.device)
    except (MemoryError, RuntimeError) as error:  # torch reports memory that can't be had as a RuntimeError
        positions = context or model.config.context_length
        need = n_slots * slot_bytes(model.config, positions, weight.dtype.itemsize)
        raise ConfigError(
            f"max_slots: {n_slots} slots of {positions} tokens need {need / 1e9:.1f} GB that {weight.device} doesn't have; "
            f"lower max_slots or context ({str(error).splitlines()[0]})"
        ) from None
