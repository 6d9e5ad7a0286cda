"""What crosses the border of the engine's process, and the errors its client raises. Free of torch and of HTTP.

To the engine: `Start` once, then `Submit` and `Cancel`. From it: `Loaded` or `LoadFailed` once, then one `Step` per step
(and at least one a second: a step without updates is the heartbeat). Structs travel as msgpack arrays; times are in seconds.
"""

from collections.abc import Sequence

import msgspec

from model.errors import HomegrownError
from model.sampling_params import SamplingParams


class EngineSpec(msgspec.Struct, frozen=True, kw_only=True):
    """How to run a model: the settings that the engine's side needs."""

    model: str  # directory in the Hugging Face layout
    dtype: str = "auto"  # auto, float32, bfloat16
    device: str = "auto"  # auto, cpu, cuda
    threads: int | None = None  # None: one less than the processors, so that the HTTP process has one
    max_slots: int | None = None  # None: what fits into a gigabyte of KV cache
    context: int | None = None  # None: the model's own
    prefill_chunk: int = 256
    deterministic: bool = False
    log_level: str = "info"
    log_format: str = "text"


class Start(msgspec.Struct, array_like=True, tag=1):
    """Load this."""

    spec: EngineSpec


class Submit(msgspec.Struct, array_like=True, tag=2):
    """Generate. `seed` is always set: the sender draws one when the request has none."""

    id: int
    prompt: list[int]
    max_tokens: int
    params: SamplingParams
    seed: int
    logprobs: int | None = None  # how many alternatives to report; None: no log-probabilities at all
    queue_limit: float = 60.0  # longest wait for a slot
    run_limit: float = 600.0  # longest life, the wait included


class Cancel(msgspec.Struct, array_like=True, tag=3):
    """Nobody waits for this request any more."""

    id: int


class Loaded(msgspec.Struct, array_like=True, tag=4):
    """The engine takes requests from now on."""

    slots: int
    context: int
    vocab_size: int
    dtype: str
    device: str
    threads: int
    torch_version: str
    seconds: float  # from the start of the process's own work to now


class LoadFailed(msgspec.Struct, array_like=True, tag=5):
    """The model can't be loaded, for a reason that a person can mend."""

    message: str


class TokenLogprobs(msgspec.Struct, array_like=True):
    """A token's log-probability under the model's own distribution, and the likeliest alternatives, best first."""

    logprob: float
    top_ids: list[int]
    top_logprobs: list[float]


class Started(msgspec.Struct, array_like=True):
    """Sent with a request's first update: how long it waited for a slot, and how long its prompt took."""

    queue: float
    prefill: float


class Update(msgspec.Struct, array_like=True):
    """What one step did for one request. With `finish` or `error` set it is the last one."""

    id: int
    tokens: list[int]
    logprobs: list[TokenLogprobs] | None = None  # one per token, for requests that asked
    started: Started | None = None
    finish: str | None = None  # "stop" or "length"
    stop_token: int | None = None  # which of stop_token_ids ended it
    error: str | None = None  # "queue_timeout", "run_timeout", "fault"


class Step(msgspec.Struct, array_like=True, tag=6):
    """All updates of one step, and the engine's state after it."""

    updates: list[Update]
    running: int
    waiting: int


ToEngine = Start | Submit | Cancel
FromEngine = Loaded | LoadFailed | Step


class EngineLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What may wait, and for how long (seconds)."""

    max_queue: int = 128
    max_queue_wait: float = 60.0
    request_timeout: float = 600.0


class EngineStatus(msgspec.Struct, frozen=True):
    """`state`: loading, ready, restarting, failed or closed. `running`, `waiting`: the engine's own count after its last step;
    `in_flight`: requests that still have a consumer."""

    state: str
    running: int
    waiting: int
    in_flight: int
    slots: int
    heartbeat_age: float


class EngineError(Exception):
    """Base of what an engine client raises to the one who asked for something."""


class QueueFull(EngineError):
    """As many requests wait as may wait."""


class EngineUnavailable(EngineError):
    """No engine to ask: `reason` is "model_loading", "engine_dead" or "shutting_down"."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class RequestTimeout(EngineError):
    """The request waited for a slot, or lived, longer than it may; the text says which."""


class RequestFault(EngineError):
    """This request failed inside; others are unharmed."""


class RequestCancelled(EngineError):
    """The consumer cancelled while somebody was still reading."""


class EngineFailed(HomegrownError):
    """The engine can't be started and a restart would not help: one line for a person."""


class Token(msgspec.Struct):
    """A generated token of the answer. `text_offset` counts the characters of the answer before its first byte."""

    id: int
    text_offset: int
    logprobs: TokenLogprobs | None = None


class Timings(msgspec.Struct):
    """Where a request's time went, in seconds."""

    queue: float
    prefill: float
    decode: float


class Finish(msgspec.Struct):
    """How a generation ended. `stop_reason`: the stop string or stop token id that ended it; None for end of text or length."""

    reason: str  # "stop" or "length"
    stop_reason: str | int | None
    prompt_tokens: int
    completion_tokens: int
    timings: Timings


class Delta(msgspec.Struct):
    """A piece of an answer: text that may be shown, the tokens that begin in it, and on the last one the finish."""

    text: str
    tokens: Sequence[Token]
    finish: Finish | None = None
