"""What crosses the border of the engine's process, and the errors its client raises. Free of torch and of HTTP.

To the engine: `Start` once, then `Submit`, `Cancel`, `LoadAdapter` and `UnloadAdapter`. From it: `Loaded` or `LoadFailed`
once, then one `Step` per step that has something to tell (and at least one a second: one without updates is the heartbeat) and
the answers about adapters. Structs travel as msgpack arrays; times are in seconds.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from model.errors import ConfigError, HomegrownError
from model.sampling_params import SamplingParams


class EngineSpec(msgspec.Struct, frozen=True, kw_only=True):
    """How to run a model: the settings that the engine's side needs. ConfigError for a number that can be none."""

    model: str  # directory in the Hugging Face layout
    dtype: str = "auto"  # auto, float32, bfloat16
    quantize: str = "auto"  # auto, none, int8, int4
    device: str = "auto"  # auto, cpu, cuda
    backend: str = "auto"  # auto, native, torch
    threads: int | None = None  # None: all processors, or one less (see model.backend.BackendSpec.spare)
    max_slots: int | None = None  # None: what fits into a gigabyte of KV cache
    context: int | None = None  # None: the model's own
    prefill_chunk: int = 512  # most prompt tokens in one step
    deterministic: bool = False  # the same bits in any company, also where the back end doesn't give that
    speculate: bool = True  # draft tokens by prompt look-up where that pays; never changes an answer
    adapters: dict[str, str] = {}  # name -> PEFT directory, loaded at the start
    log_level: str = "info"
    log_format: str = "text"

    def __post_init__(self) -> None:
        for name in ("threads", "max_slots", "context", "prefill_chunk"):
            value = getattr(self, name)
            automatic = value is None and name != "prefill_chunk"
            if not automatic and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ConfigError(f"{name} must be a whole number of at least 1, not {value!r}")


class Start(msgspec.Struct, array_like=True, tag=1):
    """Load this."""

    spec: EngineSpec


class Grammar(msgspec.Struct, array_like=True, frozen=True):
    """What a generated text must match. `value`: a JSON schema, a regular expression, or a JSON array of strings to choose
    from; unused for "json_object"."""

    kind: Literal["json_object", "json_schema", "regex", "choice"]
    value: str


Task = Literal["generate", "embed", "classify"]


class Submit(msgspec.Struct, array_like=True, tag=2):
    """Generate, embed or classify. `seed` is always set: the sender draws one when the request has none.

    The choices of one prompt (n > 1) are as many Submits: its common part is computed once, as it is for any prompts.
    """

    id: int
    prompt: list[int]
    max_tokens: int
    params: SamplingParams
    seed: int
    logprobs: int | None = None  # how many alternatives to report; None: no log-probabilities at all
    queue_limit: float = 60.0  # longest wait for a slot
    run_limit: float = 600.0  # longest life, the wait included
    task: Task = "generate"
    adapter: str | None = None  # None: the base model
    prompt_logprobs: int | None = None  # score the prompt's own tokens, with so many alternatives
    score_from: int = 0  # the first prompt token to be scored
    grammar: Grammar | None = None
    speculate: bool = True
    sent: float | None = (
        None  # when, on the monotonic clock that all of a machine's processes share; None: when it arrives
    )


class Cancel(msgspec.Struct, array_like=True, tag=3):
    """Nobody waits for this request any more."""

    id: int


class LoadAdapter(msgspec.Struct, array_like=True, tag=7):
    """Load the adapter in directory `path` and call it `name`."""

    name: str
    path: str


class UnloadAdapter(msgspec.Struct, array_like=True, tag=8):
    """Take no more requests for this adapter, and let go of it when the last one that uses it has ended."""

    name: str


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
    quantize: str = "none"
    kernels: str = "torch"
    invariant: bool = False  # answers are the same bit for bit in any company
    labels: list[str] = []  # of a classifier; a language model has none
    adapters: dict[str, list[str]] = {}  # name -> its labels, empty unless it classifies


class LoadFailed(msgspec.Struct, array_like=True, tag=5):
    """The model can't be loaded, for a reason that a person can mend."""

    message: str


class AdapterLoaded(msgspec.Struct, array_like=True, tag=9):
    """Requests may name it from now on. `labels`: what it tells apart when it classifies, else empty."""

    name: str
    labels: list[str]


class AdapterUnloaded(msgspec.Struct, array_like=True, tag=10):
    """It is gone, and so is every request that used it."""

    name: str


class AdapterFailed(msgspec.Struct, array_like=True, tag=11):
    """It can't be loaded or unloaded, for a reason that a person can mend."""

    name: str
    message: str


class TokenLogprobs(msgspec.Struct, array_like=True):
    """A token's log-probability under the model's own distribution, and the likeliest alternatives, best first."""

    logprob: float
    top_ids: list[int]
    top_logprobs: list[float]


class Started(msgspec.Struct, array_like=True):
    """Sent with a request's first update: how long it waited for a slot, how long its prompt took, and how many of its prompt's
    tokens were in a slot already."""

    queue: float
    prefill: float
    cached: int = 0


class Update(msgspec.Struct, array_like=True):
    """What one step did for one request. With `finish` or `error` set it is the last one."""

    id: int
    tokens: list[int]
    logprobs: list[TokenLogprobs] | None = None  # one per token, for requests that asked
    started: Started | None = None
    finish: str | None = None  # "stop" or "length"; "done" for embed and classify
    stop_token: int | None = None  # which of stop_token_ids ended it
    error: str | None = None  # "queue_timeout", "run_timeout", "fault"; or a parameter's name: `message` is set then
    message: str | None = None  # what is wrong with that parameter, for a person
    prompt_logprobs: list[TokenLogprobs | None] | None = None  # a piece of them, in order; None: the very first token's
    scores: list[float] | None = None  # classify: one raw score per label
    embedding: bytes | None = None  # embed: float32, little-endian; the mean over the prompt's positions, of any length
    decode: float | None = None  # with `finish`, generate: seconds from the first token to the last


class Step(msgspec.Struct, array_like=True, tag=6):
    """All updates of one step, and the engine's state after it. `seconds`: how long it computed; `rows`: for how many requests
    (0: it computed nothing, or failed)."""

    updates: list[Update]
    running: int
    waiting: int
    seconds: float = 0.0
    rows: int = 0


ToEngine = Start | Submit | Cancel | LoadAdapter | UnloadAdapter
FromEngine = Loaded | LoadFailed | Step | AdapterLoaded | AdapterUnloaded | AdapterFailed


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
    """The request waited for a slot, or lived, longer than it may: `limit` is "queue_timeout" or "run_timeout"."""

    def __init__(self, message: str, limit: str = "run_timeout") -> None:
        super().__init__(message)
        self.limit = limit


class RequestFault(EngineError):
    """This request failed inside; others are unharmed."""


class RequestCancelled(EngineError):
    """The consumer cancelled while somebody was still reading."""


class InvalidRequest(HomegrownError):
    """A parameter that the engine can't use; `param` is its name."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


class GrammarError(InvalidRequest):
    """A grammar that can't be used: malformed, too large, or too slow to compile."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "grammar")


class AdapterError(InvalidRequest):
    """An adapter that isn't there, or can't be loaded or used for this."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "adapter")


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
    cached: int = 0  # prompt tokens that needed no computing


class Finish(msgspec.Struct):
    """How a generation ended. `stop_reason`: the stop string or stop token id that ended it; None for end of text or length."""

    reason: str  # "stop" or "length"
    stop_reason: str | int | None
    prompt_tokens: int
    completion_tokens: int
    timings: Timings


class Delta(msgspec.Struct):
    """A piece of an answer: text that may be shown, the tokens that begin in it, on the last one the finish."""

    text: str
    tokens: Sequence[Token]
    finish: Finish | None = None
    prompt_logprobs: Sequence[TokenLogprobs | None] | None = None  # on the first one, for requests that asked
