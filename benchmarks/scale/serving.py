"""Serving a peak of requests: what a replica bears, how many it takes, what they cost, what a failure loses."""

import math
from dataclasses import dataclass

from benchmarks.scale import constants as c
from benchmarks.scale.queueing import in_system
from benchmarks.scale.reliability import spares
from benchmarks.scale.replica import Speed
from benchmarks.scale.shapes import LARGE, MIDDLE, SMALL, Shape
from benchmarks.scale.workload import Lengths

_AUTO_SLOTS = (4, 32)  # model/backend.py
_MOST_GPU_SLOTS = 256  # more rows hardly help a step that the cache's reading fills


@dataclass(frozen=True)
class Ask:
    """What requests are like: tokens of prompts and answers."""

    name: str
    prompt: Lengths
    answer: Lengths


@dataclass(frozen=True)
class Kind:
    """A replica: the model, what it runs on, its steps, replicas in a node, dollars an hour of the node, seconds to start.
    `measured`: its speed is, and not derived from data sheets."""

    name: str
    shape: Shape
    speed: Speed
    ask: Ask
    per_node: int
    price: float
    start: float
    measured: bool

    @property
    def token_rate(self) -> float:
        """Tokens a second with all slots decoding and nothing to prefill."""
        return self.speed.slots / self.speed.decode[-1]


SHORT = Ask(
    "short",
    Lengths(c.SHORT_PROMPT.value, c.PROMPT_SPREAD.value, 768),
    Lengths(c.SHORT_ANSWER.value, c.ANSWER_SPREAD.value, 256),
)
CHAT = Ask(
    "chat",
    Lengths(c.CHAT_PROMPT.value, c.PROMPT_SPREAD.value, 3072),
    Lengths(c.CHAT_ANSWER.value, c.ANSWER_SPREAD.value, 1024),
)


def cpu_kind() -> Kind:
    """GPT-2's 124 M in int8 on two cores, behind HTTP, from README's table."""
    slots = min(max(int(c.CACHE.value // SMALL.slot_bytes()), _AUTO_SLOTS[0]), _AUTO_SLOTS[1])
    http = c.HTTP_SHARE.value
    known = {rows: rows / rate.value / http for rows, rate in c.DECODE.items()}
    decode = (0.0, *(_between(known, rows) for rows in range(1, slots + 1)))
    speed = Speed(slots, decode, 1 / c.PREFILL.value / http)
    return Kind(
        "124 M int8, two cores", SMALL, speed, SHORT, 1, c.CPU_HOUR.value, c.CPU_START.value, measured=True
    )  # fmt: skip


def _between(known: dict[int, float], rows: int) -> float:
    """A step's seconds, straight between the measured numbers of rows."""
    below, above = max(n for n in known if n <= rows), min(n for n in known if n >= rows)
    if below == above:
        return known[rows]
    return known[below] + (known[above] - known[below]) * (rows - below) / (above - below)


def gpu_kind(shape: Shape, ask: Ask, *, share: float = c.HBM_SHARE.value, own: float = c.STEP_COST.value) -> Kind:
    """bfloat16 on one H100, from its data sheet: a step reads the weights and every row's cache, or computes for as long."""
    weights = 2 * shape.parameters
    room = c.GPU_MEMORY.value * c.MEMORY_SHARE.value - weights
    slots = min(int(room // shape.slot_bytes()), _MOST_GPU_SLOTS)
    held = ask.prompt.mean + ask.answer.mean / 2  # tokens in a running row's cache, in the mean
    bandwidth = c.HBM.value * share

    def step(rows: int) -> float:
        products = 2 * shape.matrices * rows / (c.PEAK.value * c.PREFILL_SHARE.value)
        return own + max(weights / bandwidth, products) + rows * held * shape.token_bytes() / bandwidth

    token = shape.training_flops / 3 / (c.PEAK.value * c.PREFILL_SHARE.value)
    speed = Speed(slots, (0.0, *(step(n) for n in range(1, slots + 1))), token, chunk=2048)
    return Kind(
        f"{shape.name} bf16, one H100", shape, speed, ask, int(c.GPUS.value), c.GPU_HOUR.value, c.GPU_START.value,
        measured=False,
    )  # fmt: skip


def kinds() -> tuple[Kind, ...]:
    """The replicas of the plan."""
    return cpu_kind(), gpu_kind(SMALL, SHORT), gpu_kind(MIDDLE, SHORT), gpu_kind(LARGE, CHAT)


def seconds_each(kind: Kind, rows: int) -> float:
    """Of a replica's time that a request takes with `rows` streams running beside each other."""
    ask = kind.ask
    return ask.prompt.mean * kind.speed.token + (ask.answer.mean - 1) * kind.speed.decode[rows] / rows


def bears(kind: Kind) -> float:
    """Requests a second at which a replica has no time left: its limit. By the engine with all slots in use, or by HTTP."""
    return min(1 / seconds_each(kind, kind.speed.slots), c.HTTP_MOST.value / kind.ask.answer.mean)


def by_number(kind: Kind, rate: float, places: int = 128) -> list[float]:
    """The chance of 0, 1, ... requests in a replica at `rate` requests a second, `places` more than its slots at most."""
    return in_system(rate, [seconds_each(kind, n) for n in range(1, kind.speed.slots + 1)], places)


def requests_in(kind: Kind, rate: float) -> float:
    """Requests in a replica at once, in the mean."""
    return sum(n * chance for n, chance in enumerate(by_number(kind, rate)))


@dataclass(frozen=True)
class Fleet:
    """Replicas for a peak. `needed` at the load they are to have, `spare` beyond; `nodes`, dollars an hour; `lost`: requests in a
    node at once, cut off when it fails; `deaths`: nodes that fail in a month; `stream`: bytes a second."""

    kind: Kind
    needed: int
    spare: int
    nodes: int
    hourly: float
    lost: float
    deaths: float
    stream: float

    @property
    def per_million(self) -> float:
        """Dollars for a million requests at the peak's rate."""
        return self.hourly / (c.REQUESTS.value * 3600) * 1e6


def fleet(kind: Kind, load: float, rate: float = c.REQUESTS.value) -> Fleet:
    """For `rate` requests a second, each replica at `load` of what it bears. Spares are whole nodes, for that is what fails."""
    needed = math.ceil(rate / (bears(kind) * load))
    nodes = math.ceil(needed / kind.per_node)
    extra = spares(nodes, c.FAILURES.value, c.REPAIR.value)
    total = nodes + extra
    return Fleet(
        kind,
        needed,
        extra,
        total,
        total * kind.price,
        requests_in(kind, rate / needed) * min(kind.per_node, needed),
        total * c.FAILURES.value * 30,
        rate * kind.ask.answer.mean * c.FRAME.value,
    )
