"""A step of one token a row in shapes that repeat, so that a GPU can replay it as one graph instead of some hundred launches.

The number of rows and the positions read are rounded up to buckets. Each pair of buckets is captured when it first occurs. The
step itself is plain tensor code on static tensors and runs on a processor too, which is how the tests compare it with the flat
path; the capture runs on CUDA alone, and this project's tests have no such device: it has not been run there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.backend import Segment
from model.gpt import GPT
from model.kv_cache import KVCache
from model.slot_rows import StepRows

_LEAST_LENGTH = 64
_WARM_UPS = 2  # passes before a capture: lazy set-up may not happen within one


def bucket(n: int, least: int, most: int) -> int:
    """The smallest power of two that is at least `n` and `least`, but no more than `most`."""
    return min(most, max(least, 1 << (n - 1).bit_length()))


@dataclass
class _Shape:
    """One pair of buckets: the tensors that a step of this shape reads and writes."""

    given: Tensor  # [3, B] int64: tokens, slots, starts
    length: int
    hidden: Tensor | None = None  # [B, D], written by the graph
    graph: "torch.cuda.CUDAGraph | None" = None


class BucketedStep:
    """Steps over a cache whose last slot belongs to padding. Not for two threads at once."""

    def __init__(self, model: GPT, cache: KVCache) -> None:
        self._model, self._cache = model, cache
        self._shapes: dict[tuple[int, int], _Shape] = {}
        self._device = cache.keys.device
        self._pool = torch.cuda.graph_pool_handle() if self._device.type == "cuda" else None

    def run(self, segments: Sequence[Segment]) -> Tensor:
        """Append one token to each slot; the final norm's output [n, D] float32. Nothing waits for the device."""
        n_slots = self._cache.n_slots - 1
        n_rows = bucket(len(segments), 1, n_slots)
        length = bucket(
            max(s.start for s in segments) + 1, min(_LEAST_LENGTH, self._cache.context), self._cache.context
        )
        shape = self._shapes.get((n_rows, length))
        if shape is None:
            given = torch.zeros(3, n_rows, dtype=torch.long, device=self._device)
            given[1] = n_slots
            shape = self._shapes[n_rows, length] = _Shape(given, length)
        rows = [(s.tokens[0], s.slot, s.start) for s in segments]
        rows += [(0, n_slots, 0)] * (n_rows - len(rows))
        values = torch.tensor(list(zip(*rows, strict=True)))
        if self._device.type != "cuda":
            shape.given.copy_(values)
            return self._step(shape)[: len(segments)].float()
        shape.given.copy_(values.pin_memory(), non_blocking=True)
        if shape.graph is None:
            self._capture(shape)
        assert shape.graph is not None
        assert shape.hidden is not None
        shape.graph.replay()
        return shape.hidden[: len(segments)].to(torch.float32, copy=True)  # the next replay overwrites it

    def _step(self, shape: _Shape) -> Tensor:
        tokens, slots, starts = shape.given
        rows = StepRows.locate(self._cache, slots, starts, shape.length)
        return self._model.hidden_rows(tokens[:, None], rows)[:, 0]

    def _capture(self, shape: _Shape) -> None:
        """Repeated passes over the same rows write the same keys and values, so warming up changes nothing."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                self._step(shape)
        torch.cuda.current_stream().wait_stream(stream)
        shape.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(shape.graph, pool=self._pool):
            shape.hidden = self._step(shape)
