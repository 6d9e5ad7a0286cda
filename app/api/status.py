"""GET /status: what the page's Status tab shows."""

import os
import time
from typing import cast

from fastapi import APIRouter, Request

from app.api.openai import model_card
from app.api.ops import facts_of
from app.api.routing import ERRORS, get_service
from app.engine.messages import EngineStatus
from app.metrics import Metrics
from app.processes import resident_bytes
from app.recent import WINDOW, RecentTimes
from app.schemas.status import Latency, Memory, Percentiles, Rate, RateHistory, Rates, State, Status, Totals
from app.service import Service

router = APIRouter(tags=["operations"])

_SHARES = (0.5, 0.95, 0.99)


@router.get("/status", responses={401: ERRORS[401]})
async def status(request: Request) -> Status:
    """The service's state, speed and waits now and in the last minutes: also while it loads, drains or has lost its engine."""
    service = get_service(request)
    engine, metrics, now = service.engine.status, service.metrics, time.monotonic()
    prompt, generated = metrics.recent.prompt_tokens.history(now), metrics.recent.generation_tokens.history(now)
    return Status(
        state=_state(service, engine),
        uptime_seconds=round(service.uptime, 3),
        running=engine.running,
        waiting=engine.waiting,
        slots=engine.slots,
        max_queue=service.settings.max_queue,
        tokens_per_second=Rates(last_10_s=_rate(prompt, generated, 10), last_60_s=_rate(prompt, generated, 60)),
        history=RateHistory(prompt=prompt, generated=generated),
        latency=_latency(metrics, now),
        totals=_totals(metrics),
        memory=_memory(service),
        engine_restarts=metrics.restarts,
        models=[model_card(service, target) for target in service.targets.values()],
        engine=facts_of(service),
    )


def _state(service: Service, engine: EngineStatus) -> State:
    return "draining" if service.gate.draining and engine.state == "ready" else cast(State, engine.state)


def _rate(prompt: list[int], generated: list[int], seconds: int) -> Rate:
    return Rate(
        prompt=round(sum(prompt[-seconds:]) / seconds, 2), generated=round(sum(generated[-seconds:]) / seconds, 2)
    )


def _latency(metrics: Metrics, now: float) -> Latency:
    recent = metrics.recent
    return Latency(
        window_seconds=WINDOW,
        time_to_first_token=_percentiles(recent.first_token, now),
        inter_token=_percentiles(recent.inter_token, now),
        end_to_end=_percentiles(recent.whole, now),
    )


def _percentiles(times: RecentTimes, now: float) -> Percentiles:
    summary = times.summary(now, _SHARES)
    p50, p95, p99 = (None if value is None else round(value, 6) for value in summary.percentiles)
    return Percentiles(count=summary.count, p50=p50, p95=p95, p99=p99)


def _totals(metrics: Metrics) -> Totals:
    return Totals(
        finished=sum(metrics.finished.values()),
        aborted=sum(metrics.aborted.values()),
        rejected=sum(metrics.rejected.values()),
        prompt_tokens=metrics.prompt_tokens,
        generation_tokens=metrics.generation_tokens,
        cached_tokens=metrics.cached_tokens,
    )


def _memory(service: Service) -> Memory:
    return Memory(
        server=resident_bytes(os.getpid()),
        engine=resident_bytes(service.engine.pid),
        inspector=resident_bytes(service.engine.inspector.pid),
    )
