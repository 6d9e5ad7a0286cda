"""A back end without a model: what comes next is a function of every token before it and of the adapter, and of nothing else.

So a request that got another's tokens, or lost some, gets another answer. It keeps count of what it is asked to compute.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from model.backend import Segment, check_segments
from model.config import ModelConfig
from model.sampling import SamplingRow, sample
from model.sampling_params import SamplingParams, mix64

VOCAB, WIDTH, END = 64, 4, 63
_ROWS = 1009
_TABLE = torch.randn(_ROWS, VOCAB, generator=torch.Generator().manual_seed(0)) * 3


class FakeBackend:
    """See model.backend.Backend. `before(segments)` is called first in each forward and may raise; `damage(segments, hidden)`
    may change its result."""

    def __init__(self, n_slots: int = 4, context: int = 512, *, invariant: bool = True, labels: int = 0) -> None:
        self.config = ModelConfig(
            architecture="llama", vocab_size=VOCAB, context_length=context, n_layer=1, n_head=1, n_kv_head=1,
            d_model=WIDTH, d_ff=8, head_dim=4, bos_token_id=END, eos_token_ids=(END,),
            labels=tuple(f"L{i}" for i in range(labels)),
        )  # fmt: skip
        self.n_slots, self.context, self.invariant = n_slots, context, invariant
        self.dtype, self.quantize, self.device, self.threads, self.kernels = "float32", "none", "cpu", 1, "fake"
        self.score_head = torch.randn(labels, WIDTH, generator=torch.Generator().manual_seed(1)) if labels else None
        self._states: list[list[int]] = [[] for _ in range(n_slots)]
        self._adapters: dict[int, int] = {}
        self.forwards: list[list[Segment]] = []
        self.copies: list[tuple[int, int, int]] = []
        self.before: Callable[[Sequence[Segment]], None] = lambda segments: None
        self.damage: Callable[[Sequence[Segment], Tensor], None] = lambda segments, hidden: None

    @property
    def n_tokens(self) -> int:
        """Tokens computed so far."""
        return sum(len(segment.tokens) for segments in self.forwards for segment in segments)

    def forward(self, segments: Sequence[Segment]) -> Tensor:
        """See model.backend.Backend."""
        check_segments(segments, self.n_slots, self.context)
        self.before(segments)
        self.forwards.append(list(segments))
        rows: list[int] = []
        for segment in segments:
            states = self._states[segment.slot]
            assert len(states) >= segment.start, f"slot {segment.slot} holds {len(states)} tokens, not {segment.start}"
            del states[segment.start :]
            extend(states, segment.tokens, self._adapters[segment.adapter] if segment.adapter else 0)
            rows += states[len(states) - segment.outputs :] if segment.outputs else []
        hidden = hidden_of(rows)
        self.damage(segments, hidden)
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """See model.backend.Backend."""
        return logits_of(hidden)

    def copy_slot(self, source: int, target: int, length: int) -> None:
        """See model.backend.Backend."""
        assert len(self._states[source]) >= length
        self.copies.append((source, target, length))
        self._states[target] = self._states[source][:length]

    def add_adapter(self, pairs: Sequence[object]) -> int:
        """`pairs` is anything with a length: that is what tells the adapter from others."""
        number = max(self._adapters, default=0) + 1
        self._adapters[number] = len(pairs)
        return number

    def remove_adapter(self, adapter: int) -> None:
        """See model.backend.Backend."""
        del self._adapters[adapter]

    def close(self) -> None:
        """See model.backend.Backend."""


def extend(states: list[int], tokens: Sequence[int], adapter: int) -> None:
    """Append the state after each token: 24 bits, so that a float32 holds it."""
    state = states[-1] if states else 1
    for token in tokens:
        state = mix64((state * 1_000_003 + token) * 31 + adapter) >> 40
        states.append(state)


def hidden_of(states: Sequence[int]) -> Tensor:
    """[R, WIDTH] float32 for R states."""
    column = torch.tensor(states, dtype=torch.float32)[:, None]
    return torch.cat([column, column.sin(), column.cos(), column.sqrt()], 1)


def logits_of(hidden: Tensor) -> Tensor:
    """[R, WIDTH] -> [R, VOCAB]; not a number where the hidden state isn't."""
    rows = _TABLE[hidden[:, 0].nan_to_num().long() % _ROWS]
    return rows + (hidden[:, 1:2] * 0)


def reference(prompt: Sequence[int], params: SamplingParams, max_tokens: int, adapter: int = 0) -> list[int]:
    """The tokens that a request gets, computed alone."""
    states: list[int] = []
    extend(states, prompt, adapter)
    ends = frozenset(params.stop_token_ids) | (frozenset() if params.ignore_eos else {END})
    row = SamplingRow(params, params.seed or 0, prompt, end_ids=ends)
    while len(row.output) < max_tokens:
        token = int(sample(logits_of(hidden_of(states[-1:])), [row]))
        if token in ends:
            break
        row.append(token)
        extend(states, [token], adapter)
    return row.output
