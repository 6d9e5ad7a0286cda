"""The tensors: weights, KV cache, and the three things a step does with them: prefill, decode, pick."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from app.engine.messages import EngineSpec, TokenLogprobs
from app.engine.process import choose_threads
from model.checkpoint import load_model
from model.config import ModelConfig
from model.errors import ConfigError
from model.gpt import GPT
from model.kv_cache import KVCache
from model.sampling import SamplingRow, logprobs, sample

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_CACHE_BYTES = 1 << 30
_AUTO_SLOTS = (4, 32)


@dataclass(frozen=True)
class Runner:
    """A loaded model with its cache slots. Rows in, logits out; it knows no requests. Not for two threads at once."""

    model: GPT
    cache: KVCache
    device: torch.device
    dtype: torch.dtype
    threads: int

    @classmethod
    def load(cls, spec: EngineSpec) -> "Runner":
        """Load and warm up. Raises HomegrownError with one line for a person."""
        device, threads = choose_device(spec.device), choose_threads(spec.threads)
        dtype = choose_dtype(spec.dtype, device)
        torch.set_num_threads(threads)
        model = load_model(Path(spec.model), dtype=dtype, device=device)
        if not isinstance(model, GPT):
            raise ConfigError(f"{spec.model} is a classifier; name a language model")
        runner = cls(model, _make_cache(spec, model.config, dtype, device), device, dtype, threads)
        runner.decode([0], [0], [0])  # the first pass pays for lazy set-up; no request should
        return runner

    @torch.inference_mode()
    def prefill(self, slot: int, tokens: Sequence[int], start: int) -> Tensor:
        """Put `tokens` behind the `start` ones that `slot` holds; the logits [1, V] float32 after the last of them."""
        hidden = self._hidden([tokens], [slot], [start], start + len(tokens))  # [1, T, D]
        return self.model.logits(hidden[:, -1]).float()

    @torch.inference_mode()
    def decode(self, slots: Sequence[int], tokens: Sequence[int], starts: Sequence[int]) -> Tensor:
        """Put one token behind the starts[b] ones that slots[b] holds, for each row; the logits [B, V] float32 after it."""
        hidden = self._hidden([[token] for token in tokens], slots, starts, max(starts) + 1)  # [B, 1, D]
        return self.model.logits(hidden[:, -1]).float()

    @torch.inference_mode()
    def pick(
        self, logits: Tensor, rows: Sequence[SamplingRow], tops: Sequence[int | None]
    ) -> list[tuple[int, TokenLogprobs | None]]:
        """Sample from logits [B, V]; with tops[b] set, also the log-probability and that many alternatives.

        FloatingPointError when a row's logits are not finite: to sample from them would be to make the answer up.
        """
        if not bool(torch.isfinite(logits).all()):
            raise FloatingPointError("the model's logits are not finite")
        chosen = sample(logits, rows)
        tokens: list[int] = chosen.tolist()
        reports: list[TokenLogprobs | None] = [None] * len(tokens)
        asked = [i for i, top in enumerate(tops) if top is not None]
        if asked:
            most = max(top for top in tops if top is not None)
            own, ids, values = (part.tolist() for part in logprobs(logits[asked], chosen[asked], most))
            for at, i in enumerate(asked):
                reports[i] = TokenLogprobs(own[at], ids[at][: tops[i]], values[at][: tops[i]])
        return list(zip(tokens, reports, strict=True))

    def _hidden(
        self, tokens: Sequence[Sequence[int]], slots: Sequence[int], starts: Sequence[int], kv_len: int
    ) -> Tensor:
        tensor = lambda values: torch.tensor(values, device=self.device)  # noqa: E731
        return self.model.hidden_states(
            tensor(tokens), cache=self.cache, slots=tensor(slots), starts=tensor(starts), kv_len=kv_len
        )


def choose_device(name: str) -> torch.device:
    """The device that setting `device` means. ConfigError when it isn't there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "device: there is no CUDA device (or this PyTorch was built without CUDA); choose cpu or auto"
        )
    return torch.device(name)


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The number format that setting `dtype` means: auto is float32 on a CPU, bfloat16 on a GPU."""
    return _DTYPES[("bfloat16" if device.type == "cuda" else "float32") if name == "auto" else name]


def _make_cache(spec: EngineSpec, config: ModelConfig, dtype: torch.dtype, device: torch.device) -> KVCache:
    context = spec.context or config.context_length
    slot_bytes = 2 * config.n_layer * config.n_kv_head * config.head_dim * context * dtype.itemsize
    low, high = _AUTO_SLOTS
    slots = spec.max_slots or min(max(_CACHE_BYTES // slot_bytes, low), high)
    try:
        return KVCache(config, slots, context=context, dtype=dtype, device=device)
    except (MemoryError, RuntimeError) as error:  # torch reports memory that can't be had as a RuntimeError
        raise ConfigError(
            f"max_slots: {slots} slots of {context} tokens need {slots * slot_bytes / 1e9:.1f} GB that {device} doesn't have; "
            f"lower max_slots or context ({str(error).splitlines()[0]})"
        ) from None
