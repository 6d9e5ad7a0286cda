"""GET /status: the service's state now and in the last minutes, for people."""

from typing import Literal

from pydantic import BaseModel, Field

from app.schemas.models import ModelCard, Version

State = Literal["loading", "ready", "draining", "restarting", "failed", "closed"]


class Rate(BaseModel):
    """Tokens a second, the mean over some seconds."""

    prompt: float = Field(description="Prompt tokens of requests that got their first result.")
    generated: float = Field(description="Tokens generated.")


class Rates(BaseModel):
    """Tokens a second, lately."""

    last_10_s: Rate = Field(description="The mean over the last 10 seconds.")
    last_60_s: Rate = Field(description="The mean over the last 60 seconds.")


class RateHistory(BaseModel):
    """Tokens in each of the last 60 whole seconds, the oldest first."""

    prompt: list[int] = Field(description="Prompt tokens of requests that got their first result.")
    generated: list[int] = Field(description="Tokens generated.")


class Percentiles(BaseModel):
    """How long something took, in seconds, within 2 %. Null while nothing was measured."""

    count: int = Field(description="Times that it was measured.")
    p50: float | None = Field(description="Half took no longer.")
    p95: float | None = Field(description="95 of 100 took no longer.")
    p99: float | None = Field(description="99 of 100 took no longer.")


class Latency(BaseModel):
    """Waits of the last minutes."""

    window_seconds: int = Field(description="How far back it goes, at most.")
    time_to_first_token: Percentiles = Field(description="From a request's arrival to its first token.")
    inter_token: Percentiles = Field(description="Between tokens of an answer.")
    end_to_end: Percentiles = Field(description="From a request's arrival to its end, of those that finished.")


class Totals(BaseModel):
    """Since the server's start. Each prompt and each choice of an HTTP request counts as a request."""

    finished: int = Field(description="Requests that were answered.")
    aborted: int = Field(description="Requests that ended without their whole answer.")
    rejected: int = Field(description="HTTP requests refused before any work.")
    prompt_tokens: int = Field(description="Prompt tokens of requests that got their first result.")
    generation_tokens: int = Field(description="Tokens generated.")
    cached_tokens: int = Field(description="Of the prompt tokens: found in a slot, and not computed again.")


class Memory(BaseModel):
    """Resident memory in bytes; null where there is no such process, or the system doesn't tell."""

    server: int | None = Field(description="Of the process that answers HTTP.")
    engine: int | None = Field(description="Of the engine's process.")
    inspector: int | None = Field(description="Of the process behind /inspect, which runs while it is used.")


class Status(BaseModel):
    """The service now, and in the last minutes."""

    state: State = Field(
        description="ready: requests are taken. draining: the server stops when those that run have ended. restarting: the engine "
        "has died and is started again."
    )
    uptime_seconds: float = Field(description="Since the server's start.")
    running: int = Field(description="Requests in a slot.")
    waiting: int = Field(description="Requests in the queue.")
    slots: int = Field(description="Requests that can run at once; 0 while loading.")
    max_queue: int = Field(description="Requests that may wait.")
    tokens_per_second: Rates = Field(description="Speed.")
    history: RateHistory = Field(description="Speed, second by second.")
    latency: Latency = Field(description="Waits.")
    totals: Totals = Field(description="Counts.")
    memory: Memory = Field(description="Memory.")
    engine_restarts: int = Field(description="Starts of the engine after it had died.")
    models: list[ModelCard] = Field(description="The models that requests can name: the base first, adapters, aliases.")
    engine: Version = Field(description="What runs here, as /version has it.")
