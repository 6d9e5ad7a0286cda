"""Several low-rank adapters on one model, each for some rows of a batch: y += scaling * B A x, in float32, after a layer."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.errors import ConfigError
from model.gpt import GPT
from model.lora import LowRank, Projection


@dataclass(frozen=True)
class _Pair:
    """One projection's pair, on outputs [begin, end) of its layer."""

    a: Tensor  # [rank, n_in] float32
    b: Tensor  # [n_out, rank] float32, the scaling in it
    begin: int
    end: int


class AdapterLinear(nn.Module):
    """A layer of the base and what each adapter adds to it. `active`: (adapter, its rows [n] int64) of the present pass, shared
    by all layers."""

    def __init__(self, base: nn.Module, active: list[tuple[int, Tensor]]) -> None:
        super().__init__()
        self.base, self.active = base, active
        self.pairs: dict[int, list[_Pair]] = {}

    def forward(self, x: Tensor) -> Tensor:
        """[1, N, n_in] -> [1, N, n_out]."""
        y = self.base(x)
        with torch.autocast(x.device.type, enabled=False):
            for adapter, rows in self.active:
                if adapter in self.pairs:
                    inputs = x[0, rows].float()
                    for pair in self.pairs[adapter]:
                        part = y[0, :, pair.begin : pair.end]
                        part[rows] = (part[rows].float() + inputs @ pair.a.T @ pair.b.T).to(y.dtype)
        return y


class AdapterSet:
    """The adapters that a model carries, by number from 1. Layers of the model are wrapped, in place, as adapters need them."""

    def __init__(self, model: GPT) -> None:
        self._model = model
        self._active: list[tuple[int, Tensor]] = []
        self._numbers: set[int] = set()
        self._last = 0

    def add(self, pairs: Sequence[tuple[Projection, LowRank]]) -> int:
        """As Backend.add_adapter."""
        if not pairs:
            raise ConfigError("the adapter holds no low-rank pair")
        placed = [(_path(projection), self._place(projection, pair)) for projection, pair in pairs]
        self._last += 1
        self._numbers.add(self._last)
        for path, pair in placed:
            layer = self._model.get_submodule(path)
            if not isinstance(layer, AdapterLinear):
                layer = AdapterLinear(layer, self._active)
                self._model.set_submodule(path, layer)
            layer.pairs.setdefault(self._last, []).append(pair)
        return self._last

    def remove(self, adapter: int) -> None:
        """As Backend.remove_adapter. A layer that no adapter changes any more is the base's own again."""
        self._numbers.remove(adapter)
        for path, layer in list(self._model.named_modules()):
            if isinstance(layer, AdapterLinear):
                layer.pairs.pop(adapter, None)
                if not layer.pairs:
                    self._model.set_submodule(path, layer.base)

    def check(self, adapters: set[int]) -> None:
        """KeyError names a number that is no adapter's."""
        if missing := adapters - self._numbers - {0}:
            raise KeyError(f"there is no adapter {min(missing)}")

    @contextmanager
    def on(self, places: Sequence[tuple[int, int, int]]) -> Iterator[None]:
        """Within it, columns [begin, end) of a row of tokens get their adapter: (adapter, begin, end)."""
        rows: dict[int, list[int]] = {}
        for adapter, begin, end in places:
            if adapter:
                rows.setdefault(adapter, []).extend(range(begin, end))
        device = next(self._model.norm.parameters()).device
        self._active[:] = [(adapter, torch.tensor(index, device=device)) for adapter, index in rows.items()]
        try:
            yield
        finally:
            self._active.clear()

    def _place(self, projection: Projection, pair: LowRank) -> _Pair:
        """The pair, where its layer's outputs lie. ConfigError when it fits no layer."""
        layer = dict(self._model.named_modules()).get(_path(projection))
        base = layer.base if isinstance(layer, AdapterLinear) else layer
        n_in, n_out = getattr(base, "in_features", 0), getattr(base, "out_features", 0)
        wanted = (sum(projection.layout.values()), projection.layout[projection.name], n_in)
        if wanted != (n_out, pair.b.shape[0], pair.a.shape[1]):
            raise ConfigError(
                f"the adapter's {projection.path} is {pair.b.shape[0]} x {pair.a.shape[1]}, which fits no projection of "
                "this model; it is of another model"
            )
        names = list(projection.layout)
        begin = sum(projection.layout[name] for name in names[: names.index(projection.name)])
        device = next(self._model.norm.parameters()).device
        a, b = pair.a.detach().to(device, torch.float32), pair.b.detach().to(device, torch.float32) * pair.scaling
        return _Pair(a.clone(), b, begin, begin + pair.b.shape[0])


def _path(projection: Projection) -> str:
    """Where the projection lies in a language model, be the adapter a classifier's."""
    return projection.ours.removeprefix("trunk.")
