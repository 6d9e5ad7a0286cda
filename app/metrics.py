"""What the service counts, for Prometheus. The engine's client and the outermost middleware report; routes do nothing for it.

Counting is a few list and dict operations, for it happens with every token; names, labels and text are made at a scrape.
"""

import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, MutableMapping
from contextvars import ContextVar
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from app.engine.client import EngineClient
from app.engine.messages import (
    EngineUnavailable,
    Finish,
    Loaded,
    RequestCancelled,
    RequestFault,
    RequestTimeout,
    Started,
    Step,
    Submit,
)
from app.engine.observer import Observer
from app.recent import Recent

PREFIX = "homegrown_"

# Seconds. Close together from 1 to 50 ms, where a token's time lies; below for tiny models, above for prompts and queues.
TIMES = (
    0.0002, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.0125, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05,
    0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0, 600.0,
)  # fmt: skip
LENGTHS = tuple(float(2**i) for i in range(18))  # 1 to 131,072 tokens
BATCHES = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0, 128.0, 256.0, 1024.0, 4096.0)

# Labels can only have these values, whatever clients send.
FINISHED = ("stop", "length", "done")  # done: an embedding or a classification
ABORTED = ("client_gone", "queue_timeout", "run_timeout", "engine_dead", "shutting_down", "refused", "fault")
REJECTED = (
    "invalid_request", "invalid_value", "unsupported_parameter", "context_length_exceeded", "invalid_api_key", "not_found",
    "model_not_found", "method_not_allowed", "request_too_large", "request_timeout", "unsupported_media_type", "queue_full",
    "model_loading", "shutting_down", "engine_dead", "other",
)  # fmt: skip

_SMOOTHING = 0.1  # the newest request's share in the mean time that a slot is held

# The state of the HTTP request whose handler is running. A request that has reached the engine ends there, in one of its ways;
# one that has not was rejected.
_http_state: ContextVar[MutableMapping[str, Any] | None] = ContextVar("http_state", default=None)


class Histogram:
    """Counts per bucket, like prometheus_client's but without its locks: all of it happens on one event loop."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds, self.counts, self.total = bounds, [0] * (len(bounds) + 1), 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count `value`, `times` times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def family(self, name: str, text: str) -> HistogramMetricFamily:
        """What a scrape shows."""
        so_far, buckets = 0, []
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            so_far += count
            buckets.append((floatToGoString(bound), so_far))
        return HistogramMetricFamily(PREFIX + name, text, buckets=buckets, sum_value=self.total)


class _Request:
    """What is remembered of a request in the engine; times are of the monotonic clock."""

    __slots__ = ("generates", "last", "prompt_tokens", "queued", "sent")

    def __init__(self, submit: Submit) -> None:
        self.sent = time.monotonic() if submit.sent is None else submit.sent
        self.prompt_tokens = len(submit.prompt)
        self.generates = submit.task == "generate"
        self.queued = 0.0  # seconds
        self.last = 0.0  # when its newest token came; 0: none has


class Metrics(Observer, Collector):
    """One per app, with a registry of its own."""

    def __init__(self, engine: EngineClient, info: dict[str, str]) -> None:
        """`info`: labels of model_info that are known before the engine has loaded."""
        self._engine, self._info = engine, info
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)  # memory and processor time of the HTTP process
        self._requests: dict[int, _Request] = {}
        self.finished: dict[str, int] = dict.fromkeys(FINISHED, 0)
        self.aborted: dict[str, int] = dict.fromkeys(ABORTED, 0)
        self.rejected: dict[str, int] = dict.fromkeys(REJECTED, 0)
        self.responses: dict[int, int] = {}  # by status
        self.prompt_tokens = self.generation_tokens = self.cached_tokens = 0
        self.restarts, self.startup_seconds = 0, 0.0
        self.recent = Recent()  # for /status; what Prometheus scrapes goes back to the start
        self.slot_seconds = 0.0  # about how long a request holds its slot, lately; 0: none has ended yet
        self.first_token, self.inter_token = Histogram(TIMES), Histogram(TIMES)
        self.queue, self.prefill, self.decode, self.whole = (Histogram(TIMES) for _ in range(4))
        self.prompt_length, self.output_length = Histogram(LENGTHS), Histogram(LENGTHS)
        self.step, self.batch = Histogram(TIMES), Histogram(BATCHES)

    def on_ready(self, info: Loaded, *, again: bool) -> None:
        self.startup_seconds = info.seconds
        self.restarts += again
        self._info = {
            **self._info,
            **{name: str(getattr(info, name)) for name in ("device", "dtype", "quantize", "kernels", "context")},
        }

    def on_submit(self, submit: Submit) -> None:
        self._requests[submit.id] = _Request(submit)
        state = _http_state.get()
        if state is not None:
            state["submitted"] = True

    def on_step(self, step: Step) -> None:
        if step.rows:
            self.step.observe(step.seconds)
            self.batch.observe(step.rows)
        now, requests = time.monotonic(), self._requests
        for update in step.updates:
            request = requests.get(update.id)
            if request is None:  # its consumer has left
                continue
            if update.started is not None:
                self._on_started(request, update.started, now)
            count = len(update.tokens)
            if not count:
                continue
            self.generation_tokens += count
            self.recent.generation_tokens.add(count, now)
            if request.last:
                seconds = (now - request.last) / count
                self.inter_token.observe(seconds, count)
                self.recent.inter_token.observe(seconds, now, count)
            else:
                self.first_token.observe(now - request.sent)
                self.recent.first_token.observe(now - request.sent, now)
            request.last = now

    def on_end(self, request_id: int, outcome: Finish | BaseException | None) -> None:
        request = self._requests.pop(request_id, None)
        if request is None:  # sent before anybody counted
            return
        if isinstance(outcome, BaseException):
            self.aborted[_abort_reason(outcome)] += 1
            return
        if isinstance(outcome, Finish):
            self.finished[outcome.reason] += 1
            self.output_length.observe(outcome.completion_tokens)
            if outcome.completion_tokens:
                self.decode.observe(outcome.timings.decode)
        else:
            self.finished["done"] += 1
        now = time.monotonic()
        seconds = now - request.sent
        self.whole.observe(seconds)
        self.recent.whole.observe(seconds, now)
        held = max(seconds - request.queued, 0.0)
        self.slot_seconds += (held - self.slot_seconds) * (_SMOOTHING if self.slot_seconds else 1.0)

    def on_request(self, state: MutableMapping[str, Any]) -> None:
        """A handler begins for the HTTP request with this `scope["state"]`."""
        _http_state.set(state)

    def on_response(self, status: int, state: MutableMapping[str, Any]) -> None:
        """The HTTP request has been answered (499: its client had left). `state["error"]`: the error's code, where it has one."""
        self.responses[status] = self.responses.get(status, 0) + 1
        refused = 400 <= status < 499 or status == 503
        if refused and (status == 429 or "submitted" not in state):
            reason = state.get("error") or "invalid_request"
            self.rejected[reason if reason in self.rejected else "other"] += 1

    def collect(self) -> Iterable[Metric]:
        """All of it, when a scrape asks."""
        yield from self._gauges()
        yield from self._counters()
        for name, text, histogram in (
            ("time_to_first_token_seconds", "From a request's arrival to its first token.", self.first_token),
            ("inter_token_latency_seconds", "Between tokens; several of one step share its time.", self.inter_token),
            ("queue_time_seconds", "Wait for a slot, of requests that got one.", self.queue),
            ("prefill_time_seconds", "From the slot to the first result.", self.prefill),
            ("decode_time_seconds", "From the first token to the last.", self.decode),
            ("request_time_seconds", "End to end, of requests that finished.", self.whole),
            ("prompt_length_tokens", "Length of prompts.", self.prompt_length),
            ("output_length_tokens", "Length of answers.", self.output_length),
            ("step_time_seconds", "Length of the engine's steps.", self.step),
            ("step_batch_size", "Requests computed together in a step.", self.batch),
        ):
            yield histogram.family(name, text)

    def _on_started(self, request: _Request, started: Started, now: float) -> None:
        request.queued = started.queue
        self.queue.observe(started.queue)
        self.prefill.observe(started.prefill)
        self.prompt_tokens += request.prompt_tokens
        self.recent.prompt_tokens.add(request.prompt_tokens, now)
        self.cached_tokens += started.cached
        self.prompt_length.observe(request.prompt_tokens)

    def _gauges(self) -> Iterator[Metric]:
        status = self._engine.status
        for name, text, value in (
            ("requests_running", "Requests that hold a slot.", status.running),
            ("requests_waiting", "Requests that wait for a slot.", status.waiting),
            ("slots", "Requests that can run at once.", status.slots),
            ("slots_in_use", "Slots held by requests.", status.running),
            ("engine_up", "1 while the engine takes requests.", int(status.state == "ready")),
            ("engine_startup_seconds", "How long the engine's last start took.", self.startup_seconds),
        ):
            yield GaugeMetricFamily(PREFIX + name, text, value=value)
        yield InfoMetricFamily(PREFIX + "model", "What is served, and how.", value=self._info)

    def _counters(self) -> Iterator[Metric]:
        each = "Each prompt and each choice of an HTTP request counts."
        for name, text, value in (
            ("prompt_tokens", "Prompt tokens of requests that got their first result.", self.prompt_tokens),
            ("generation_tokens", "Tokens generated.", self.generation_tokens),
            ("prefix_cache_queried_tokens", "Prompt tokens looked for in the slots.", self.prompt_tokens),
            ("prefix_cache_hit_tokens", "Prompt tokens found there: not computed again.", self.cached_tokens),
            ("engine_restarts", "Starts of the engine after it had died.", self.restarts),
        ):
            yield CounterMetricFamily(PREFIX + name, text, value=value)
        for name, text, label, values in (
            ("requests_finished", f"Requests that were answered. {each}", "reason", self.finished),
            ("requests_aborted", f"Requests that ended without their whole answer. {each}", "reason", self.aborted),
            ("requests_rejected", "HTTP requests refused before any work.", "reason", self.rejected),
            ("http_responses", "HTTP answers; 499: the client had left.", "status", self.responses),
        ):
            family = CounterMetricFamily(PREFIX + name, text, labels=[label])
            for value, count in values.items():
                family.add_metric([str(value)], count)
            yield family


def _abort_reason(error: BaseException) -> str:
    match error:
        case RequestCancelled():
            return "client_gone"
        case RequestTimeout():
            return error.limit
        case EngineUnavailable():
            return error.reason if error.reason in ABORTED else "engine_dead"
        case RequestFault():
            return "fault"
        case (
            _
        ):  # found out late: a grammar or an adapter that can't be used; or another choice of the request was refused
            return "refused"


__all__ = ["ABORTED", "FINISHED", "PREFIX", "REJECTED", "Histogram", "Metrics"]
