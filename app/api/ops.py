"""Operations: is it up, would it answer, what is it."""

import platform
from importlib.metadata import PackageNotFoundError, version

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, exposition
from prometheus_client.openmetrics import exposition as openmetrics
from starlette.responses import Response

from app.api.routing import ERRORS, get_service
from app.engine.client import HEARTBEAT_LIMIT
from app.http.errors import ApiError, unavailable
from app.schemas.models import Health, Ready, Version
from app.service import Service

router = APIRouter(tags=["operations"])

try:
    VERSION = version("homegrown")
except PackageNotFoundError:  # run from a checkout that was not installed
    VERSION = "0+unknown"


@router.get("/health", responses={503: ERRORS[503]})
async def health(request: Request) -> Health:
    """200 while the process is up and its engine loads or lives: for a supervisor that restarts what fails this."""
    status = get_service(request).engine.status
    if status.state not in ("loading", "ready") or (status.state == "ready" and status.heartbeat_age > HEARTBEAT_LIMIT):
        raise unavailable("shutting_down" if status.state == "closed" else "engine_dead")
    state = "ok" if status.state == "ready" else "loading"
    return Health(status=state, running=status.running, waiting=status.waiting, slots=status.slots)


@router.get("/ready", responses={503: ERRORS[503]})
async def ready(request: Request) -> Ready:
    """200 when a request would be taken now: for a load balancer."""
    service = get_service(request)
    if service.gate.draining:
        raise unavailable("shutting_down")
    status = service.engine.status
    if status.state == "ready" and status.in_flight >= status.slots + service.settings.max_queue:
        raise ApiError(503, "The queue is full.", kind="server_error", code="queue_full")
    service.engine.check_available()
    return Ready()


@router.get("/version", responses={401: ERRORS[401], 503: ERRORS[503]})
async def show_version(request: Request) -> Version:
    """What runs here."""
    return facts_of(get_service(request))


def facts_of(service: Service) -> Version:
    """The same; the engine's own facts only while it is ready."""
    facts = Version(
        version=VERSION,
        python=platform.python_version(),
        model=service.model_name,
        architecture=service.config.architecture,
        context=service.context,
    )
    if service.engine.status.state == "ready":
        info = service.engine.info
        facts.device, facts.dtype, facts.threads = info.device, info.dtype, info.threads
        facts.quantize, facts.kernels = info.quantize, info.kernels
        facts.slots, facts.torch = info.slots, info.torch_version
    return facts


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {
            "description": "All counts, gauges and histograms.",
            "content": {"text/plain": {}, "application/openmetrics-text": {}},
        },
        401: ERRORS[401],
    },
)
async def metrics(request: Request) -> Response:
    """What Prometheus scrapes: its text format, or OpenMetrics where the Accept header asks for that."""
    # (The library's own choice fails on a version that is no number, and repeats what the client wrote in its answer.)
    accepted = {kind.partition(";")[0].strip().lower() for kind in request.headers.get("accept", "").split(",")}
    registry = get_service(request).metrics.registry
    if "application/openmetrics-text" in accepted:
        content, media_type = openmetrics.generate_latest(registry, version="1.0.0"), openmetrics.CONTENT_TYPE_LATEST
    else:
        content, media_type = exposition.generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4
    return Response(content, headers={"Content-Type": media_type})
