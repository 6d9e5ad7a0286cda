"""Several processes on one run (`torchrun`): who they are, how a batch is shared, how gradients and sums meet.

Each process computes its share of every batch's rows. With DDP each holds the whole model; with FSDP2 (`fully_shard`) parameters,
gradients and optimiser state are parted among them. Saved states hold whole tensors, so a run may go on with another number.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from model.errors import ConfigError
from training.objectives import Objective


@dataclass(frozen=True)
class World:
    """The processes of a run, and this one's place and device among them."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes the log, the states and the result."""
        return self.rank == 0

    def share(self, cursor: int, rows: int) -> tuple[int, int]:
        """This process's part of samples `cursor` to `cursor` + `rows` - 1: first sample, number of rows."""
        mine = rows // self.size
        return cursor + self.rank * mine, mine

    def sum(self, *values: float) -> list[float]:
        """The sums of `values` over all processes, in float64; the same on each."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return total.tolist()

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def join(device: str) -> Iterator[World]:
    """This process's World: alone, or one of those that torchrun started; entered again within, the same. `device`: cpu, cuda,
    cuda:1, or auto (a GPU when there is one). ConfigError when the device isn't there."""
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if kind.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"run.device is {device}, but PyTorch sees no GPU here; use auto or cpu")
    try:
        torch.empty(1, device=kind)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"run.device is {device}, which can't be used ({reason}); use auto, cpu or cuda") from None
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(0, 1, torch.device(kind))
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    place = torch.device(f"cuda:{local}" if kind.startswith("cuda") else kind)
    if dist.is_initialized():
        yield World(dist.get_rank(), size, place)
        return
    if place.type == "cuda":
        torch.cuda.set_device(place)
    # The others wait while the first process prepares the data or writes the result, however long that takes.
    dist.init_process_group("nccl" if place.type == "cuda" else "gloo", timeout=timedelta(days=2))
    try:
        yield World(dist.get_rank(), size, place)
    finally:
        dist.destroy_process_group()


def wrap(objective: Objective, world: World, how: Literal["ddp", "fsdp"]) -> nn.Module:
    """The module whose forward the loop calls. FSDP parts the objective's parameters in place, for good: make optimisers after
    this, and give it an objective that nobody else uses."""
    if world.size == 1:
        return objective
    if how == "ddp":
        return DistributedDataParallel(objective, broadcast_buffers=False)  # the rope tables follow from the config
    trunk: Any = getattr(objective.model, "trunk", objective.model)
    for block in trunk.blocks:
        fully_shard(block)
    fully_shard(objective)
    return objective


@contextmanager
def gradient_sync(module: nn.Module, wanted: bool) -> Iterator[None]:
    """Leave the exchange of gradients to the last micro-batch's backward pass."""
    if isinstance(module, DistributedDataParallel) and not wanted:
        with module.no_sync():
            yield
        return
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(wanted)
    yield


def gather(parted: nn.Module, plain: nn.Module) -> None:
    """Give `plain`, a model of the same shape, the weights of one whose parameters are parted. To be called by all."""
    mine = dict(plain.named_parameters())
    with torch.no_grad():
        for name, parameter in parted.named_parameters():
            mine[name].copy_(whole(parameter.detach()))


def whole(tensor: Tensor) -> Tensor:
    """The whole of a tensor that may be parted among the processes. To be called by all."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def parted_like(tensor: Tensor, model: Tensor) -> Tensor:
    """`tensor`, whole, parted as `model` is (or as it is, when that is whole)."""
    if isinstance(model, DTensor) and tensor.shape == model.shape:
        return distribute_tensor(tensor.to(model.device), model.device_mesh, model.placements)
    return tensor


def each_alike(values: Mapping[str, Any], world: World) -> None:
    """ConfigError when the processes' `values` differ: they were started with different settings or data."""
    if world.size == 1:
        return
    gathered: list[Any] = [None] * world.size
    dist.all_gather_object(gathered, dict(values))
    if any(other != gathered[0] for other in gathered):
        raise ConfigError("the processes of this run have different settings or data; start them all alike")
