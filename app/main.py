"""Wiring: settings + engine -> app, and the server's life from its socket to its last request."""

import asyncio
import contextlib
import errno
import logging
import resource
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.middleware import Middleware

from app.adapters import adapters_folder, adapters_to_load
from app.api import (
    adapters,
    chat,
    classify,
    completions,
    docs,
    embeddings,
    generate,
    inspect,
    instruct,
    openai,
    ops,
    page,
    status,
    tokens,
)
from app.engine.client import EngineClient
from app.engine.messages import EngineFailed, EngineLimits, EngineSpec
from app.http.admission import Admission
from app.http.body import BodyLimit
from app.http.cors import Cors
from app.http.errors import install_handlers
from app.http.middleware import OPEN_PATHS, ApiKey, Draining, RequestContext
from app.http.protocol import Protocol
from app.logs import configure_logging
from app.service import Service
from app.settings import Settings
from model.errors import ConfigError
from model.hub import resolve_model

_BACKLOG = 2048
_KEEP_ALIVE_SECONDS = 65  # longer than the 60 s after which common load balancers drop an idle connection
_HANG_UP_SECONDS = 2
_MOST_FILES = 1 << 16
_ROUTES = (
    adapters, chat, classify, completions, docs, embeddings, generate, inspect, instruct, openai, ops, page, status,
    tokens,
)  # fmt: skip

logger = logging.getLogger("app")


def create_app(settings: Settings, engine: EngineClient) -> FastAPI:
    """The ASGI app around an engine that has not been started: its lifespan starts and closes it.

    Raises CheckpointError when the engine's model directory has no usable config.json.
    """
    service = Service(settings, engine)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await engine.start()
        yield
        await engine.close()

    app = _App(
        title="Homegrown",
        version=ops.VERSION,
        lifespan=lifespan,
        middleware=list(_middleware(settings, service)),
        docs_url=None,  # FastAPI's own would load from another site; see app/api/docs.py
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = service
    install_handlers(app)
    for module in _ROUTES:
        app.include_router(module.router)
    return app


class _App(FastAPI):
    """FastAPI, whose OpenAPI page would promise a status 422 that no route gives: a bad field is a 400 here."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document; with the keys' scheme where they are needed."""
        document = super().openapi()
        for operation in (operation for path in document["paths"].values() for operation in path.values()):
            operation["responses"].pop("422", None)
        for name in ("HTTPValidationError", "ValidationError"):
            document["components"]["schemas"].pop(name, None)
        if self.state.service.keys is not None:
            document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            document["security"] = [{"key": []}]
            for path in OPEN_PATHS:
                document["paths"][path]["get"]["security"] = []
        return document


def _middleware(settings: Settings, service: Service) -> Iterator[Middleware]:
    """Outermost first."""
    yield Middleware(RequestContext, metrics=service.metrics, retry_after=service.retry_after)
    if settings.cors_origins:
        yield Middleware(
            Cors,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=["X-Request-Id", "Retry-After"],
        )
    yield Middleware(Draining, gate=service.gate)
    if service.keys is not None:
        yield Middleware(ApiKey, keys=service.keys)
    yield Middleware(Admission, check=service.engine.check_available)
    yield Middleware(BodyLimit, limit=settings.body_limit)


def serve(settings: Settings) -> int:
    """Run the server until it is told to stop; the exit code.

    Raises HomegrownError, one line for a person: no such model, port in use, a model that can't be loaded.
    """
    configure_logging(settings.log_level, settings.log_format)
    raise_file_limit()
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    engine = EngineClient(engine_spec(settings), _engine_limits(settings))
    app = create_app(settings, engine)
    listener = _listen(settings.host, settings.port)
    config = uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_HANG_UP_SECONDS,
    )
    server = _Server(config, engine, app.state.service)
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        return runner.run(server.run_until_stopped(listener))


class _Server(uvicorn.Server):
    """uvicorn's server with a drain before its end: it goes on listening, to refuse, while the last requests finish."""

    def __init__(self, config: uvicorn.Config, engine: EngineClient, service: Service) -> None:
        super().__init__(config)
        self._engine, self._service = engine, service
        self._drain_task: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn's own handlers would stop listening at once, and raise the signal again at the end."""
        yield

    async def run_until_stopped(self, listener: socket.socket) -> int:
        """Serve; 0 after a drain, 1 when a second signal cut it short. Raises EngineFailed."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        if hasattr(signal, "SIGHUP"):
            loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        address = listener.getsockname()
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        logger.info("serving %s on http://%s:%d", self._service.model_name, host, address[1])
        adapters = self._engine.spec.adapters
        if adapters:
            logger.info("with the adapters %s of %s", ", ".join(sorted(adapters)), self._service.adapters_folder)
        watch = asyncio.create_task(self._watch_engine())
        await self.serve(sockets=[listener])
        if self.force_exit:
            watch.cancel()
            logging.getLogger("uvicorn.error").disabled = True  # it would report the lifespan's end as an error
            return 1
        await watch
        return 0

    async def _watch_engine(self) -> None:
        try:
            await self._engine.supervise()
        except EngineFailed:
            self.should_exit = True
            raise

    def _on_signal(self) -> None:
        if self._drain_task is None:
            self._service.gate.draining = True
            self._drain_task = asyncio.create_task(self._drain())
            return
        logger.warning("second signal: ending now")
        self._engine.kill()
        self.force_exit = self.should_exit = True

    def _on_hangup(self) -> None:
        if self._service.keys is None:
            logger.info("SIGHUP: there is no api_keys_file to read again")
        else:
            self._service.keys.reload()

    async def _drain(self) -> None:
        gate, patience = self._service.gate, self._service.settings.drain_timeout
        logger.info("shutting down; %d requests may run for up to %g s more", gate.inside, patience)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while gate.inside:
                    await asyncio.sleep(0.02)
        if gate.inside:
            logger.warning("%d requests did not finish in time", gate.inside)
            await self._engine.close()  # gives each of them an error to send
        self.should_exit = True


def engine_spec(settings: Settings) -> EngineSpec:
    """What the engine is to load. CheckpointError when there is no such model, ConfigError when there is no such folder of
    adapters."""
    names = set(EngineSpec.__struct_fields__) & set(Settings.model_fields)
    values = {name: getattr(settings, name) for name in names}
    directory = resolve_model(settings.model)
    folder = adapters_folder(settings.adapters_dir, directory)
    values |= {"model": str(directory), "adapters": adapters_to_load(folder)}
    return EngineSpec(**values)


def _engine_limits(settings: Settings) -> EngineLimits:
    return EngineLimits(**{name: getattr(settings, name) for name in EngineLimits.__struct_fields__})


def raise_file_limit() -> None:
    """Let this process open as many files as it may, up to 65,536: each connection is one, and many systems begin with 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket. ConfigError when the address can't be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror:
        raise ConfigError(f"host: {host} is no address of this machine") from None
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"port: {port} on {host} is in use; stop what uses it or choose another port") from None
        raise ConfigError(f"host: can't listen on {host} port {port}: {error.strerror}") from None
    listener.setblocking(False)
    return listener
