"""Pretraining on N nodes: a step's computing and its traffic, the batch, failures, time and cost.

Data parallel alone, as Homegrown has it: every GPU computes its own rows of each batch. A GPU without a row would idle, so the
batch is at least one row a GPU; what a batch beyond the critical one costs in tokens is counted.
"""

import math
from dataclasses import dataclass
from typing import Literal

from benchmarks.scale import constants as c
from benchmarks.scale.reliability import best_interval, between_failures, goodput
from benchmarks.scale.shapes import Shape

Parallel = Literal["ddp", "fsdp"]
ROWS = 8  # rows of a GPU's micro-batch, where the batch has that many: enough to keep its products busy
_GRADIENT = 4  # bytes of a parameter on the way: the loop's gradients and FSDP2's gathered weights are float32
HELD = 18  # bytes a parameter in a GPU: weights, gradients and AdamW in float32, the step's bfloat16 copy


def critical_batch(tokens: float) -> float:
    """Zhang et al.'s critical batch for a run over `tokens` tokens, in tokens."""
    return c.CRITICAL_AT.value * (tokens / c.CRITICAL_DATA.value) ** c.CRITICAL_POWER.value


def extra_tokens(batch: float, tokens: float) -> float:
    """Tokens needed with this batch to reach what small ones reach on `tokens`, as a factor; linear in the batch (McCandlish
    et al., 2018), 1.2 at the critical one by its definition."""
    return 1 + c.CRITICAL_COST.value * batch / critical_batch(tokens)


def choose_batch(shape: Shape, gpus: int, tokens: float) -> int:
    """Tokens of a batch: the usual one, more where GPUs would lack rows (up to the critical one), and at least a row a GPU. A
    multiple of the GPUs' rows, for the loop refuses others."""
    context = shape.config.context_length
    wanted = min(max(shape.usual_batch, ROWS * gpus * context), max(shape.usual_batch, critical_batch(tokens)))
    rows = max(1, round(wanted / context / gpus))
    return rows * gpus * context


def parallel_of(shape: Shape) -> Parallel:
    """DDP where two thirds of a GPU's memory hold all of it; the rest is for activations."""
    return "ddp" if HELD * shape.parameters <= c.GPU_MEMORY.value * 2 / 3 else "fsdp"


def compute_seconds(shape: Shape, batch: float, gpus: float, mfu: float = c.MFU.value) -> float:
    """A step's products."""
    return batch * shape.training_flops / (gpus * c.PEAK.value * mfu)


def traffic(shape: Shape, how: Parallel, micro_batches: int = 1) -> float:
    """Bytes that a collective over a ring moves through each member in a step, but for the factor (n - 1) / n. DDP sends
    gradients around twice. FSDP gathers weights forward and backward in every micro-batch, and scatters gradients once."""
    return shape.parameters * _GRADIENT * (2 if how == "ddp" else 2 * micro_batches + 1)


def network_seconds(
    shape: Shape, how: Parallel, nodes: int, *, link: float = c.RDMA.value, micro_batches: int = 1
) -> float:
    """The traffic of a step: within a node over NVLink, between nodes over `link` bytes a second; they overlap, so the slower
    counts. Each layer's (or bucket's) collective pays the latency."""
    moved, gpus = traffic(shape, how, micro_batches), int(c.GPUS.value)
    inside = moved * (gpus - 1) / gpus / (c.NVLINK.value * c.LINK_SHARE.value)
    if nodes == 1:
        return inside
    between = moved * (nodes - 1) / nodes / (link * c.LINK_SHARE.value)
    collectives = shape.config.n_layer * (2 if how == "ddp" else 2 * micro_batches + 1)
    return max(inside, between) + collectives * math.log2(nodes) * c.HOP.value


def exposed_seconds(compute: float, network: float, how: Parallel, micro_batches: int = 1) -> float:
    """Traffic that computing doesn't hide. DDP's runs beside the last micro-batch's backward pass, two thirds of it; FSDP's
    beside everything."""
    hidden = compute * 2 / 3 / micro_batches if how == "ddp" else compute
    return max(0.0, network - hidden)


@dataclass(frozen=True)
class Run:
    """A pretraining run. `batch` in tokens; `compute`, `network` and `exposed` (what computing doesn't hide of it) in seconds a
    step; `goodput`: the share of the time that counts; `seconds`: of all, the start included."""

    shape: Shape
    nodes: int
    how: Parallel
    batch: int
    steps: float
    compute: float
    network: float
    exposed: float
    goodput: float
    seconds: float
    dollars: float

    @property
    def step(self) -> float:
        """A step's time."""
        return self.compute + self.exposed

    @property
    def tokens_per_second(self) -> float:
        """While it runs."""
        return self.batch / self.step


def state_seconds(shape: Shape) -> float:
    """One saved state as training/state.py writes it: by one process, then read again for its hash."""
    size = shape.parameters * c.STATE_BYTES.value
    return size / c.WRITE.value + size / c.HASH.value


def start_seconds(tokens: float) -> float:
    """Before the first update: one process compares every shard with its hash (training/pretrain.py), the others wait."""
    return 2 * tokens / c.HASH.value


def restart_seconds(shape: Shape, tokens: float) -> float:
    """From a failure to the next update: noticing, starting, the state's hash too."""
    state = shape.parameters * c.STATE_BYTES.value
    return c.RESTART.value + start_seconds(tokens) + state / c.HASH.value


def plan(
    shape: Shape,
    nodes: int,
    *,
    tokens: float = c.TOKENS.value,
    mfu: float = c.MFU.value,
    failures: float = c.FAILURES.value,
    price: float = c.GPU_HOUR.value,
    link: float = c.RDMA.value,
) -> Run:
    """A run of `shape` over `tokens` tokens on `nodes` GPU nodes."""
    gpus, how = nodes * int(c.GPUS.value), parallel_of(shape)
    batch = choose_batch(shape, gpus, tokens)
    micro = math.ceil(batch / shape.config.context_length / gpus / ROWS)
    compute = compute_seconds(shape, batch, gpus, mfu)
    network = network_seconds(shape, how, nodes, link=link, micro_batches=micro)
    exposed = exposed_seconds(compute, network, how, micro)
    steps = tokens * extra_tokens(batch, tokens) / batch
    between = between_failures(nodes, failures)
    state = state_seconds(shape)
    kept = goodput(best_interval(state, between), state, between, restart_seconds(shape, tokens))
    seconds = start_seconds(tokens) + steps * (compute + exposed) / kept
    return Run(
        shape, nodes, how, batch, steps, compute, network, exposed, kept, seconds, seconds / 3600 * nodes * price
    )  # fmt: skip


def shards_needed(shape: Shape, nodes: int, tokens: float = c.TOKENS.value) -> int:
    """GPUs that would have to share a row (tensor, pipeline or context parallel) for the batch to stay at the critical one."""
    gpus = nodes * int(c.GPUS.value)
    return 2 ** max(0, math.ceil(math.log2(gpus * shape.config.context_length / critical_batch(tokens))))
