"""Pure-ASGI middleware, outermost first: request id and access log, draining, API key. (Then the body limit: body.py.)

(Starlette's BaseHTTPMiddleware hides from a route that its client has left, so none of it is here.)
"""

import logging
import re
import time
import uuid
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.engine.messages import RequestCancelled
from app.http.errors import CLIENT_GONE, ApiError, to_api_error, unavailable
from app.http.keys import ApiKeys
from app.metrics import Metrics

OPEN_PATHS = frozenset({"/health", "/ready"})
_PAGE = "/page/"  # and all below; the page itself is at /
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_WATCHING = OPEN_PATHS | {"/metrics", "/status"}  # who only looks on may do so to the end
_ASK_AGAIN = frozenset({429, 503})

access_log = logging.getLogger("app.access")


def is_open(path: str) -> bool:
    """Whether everybody may ask for it: the probes, and the page's files, which hold nothing but the page."""
    return path in OPEN_PATHS or path == "/" or path.startswith(_PAGE)


class RequestContext:
    """Gives each request its id (the client's own X-Request-Id when well formed), logs and counts it, says when to ask again,
    and answers what nobody caught."""

    def __init__(self, app: ASGIApp, metrics: Metrics, retry_after: Callable[[str | None], int]) -> None:
        """`retry_after(code)`: seconds until it is worth while to ask again after an error with this code."""
        self._app, self._metrics, self._retry_after = app, metrics, retry_after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        self._metrics.on_request(state)
        began, status = time.perf_counter(), 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                if status in _ASK_AGAIN:
                    headers["Retry-After"] = str(self._retry_after(state.get("error")))
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except RequestCancelled:
            status = CLIENT_GONE  # its client has left: there is nobody to answer
        except Exception as error:
            answer = to_api_error(error, request_id)
            if status:
                raise ConnectionAbortedError("failed after the response had begun") from None
            await answer.response()(scope, receive, send_with_id)
        finally:
            if scope["path"] not in OPEN_PATHS:  # a probe's 503 refuses nobody
                self._metrics.on_response(status or CLIENT_GONE, state)
            self._log(scope, request_id, status, time.perf_counter() - began)

    def _log(self, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        path = scope["path"]
        # Often and no news: probes, the page's files, and what its Status tab asks each second.
        routine = path in OPEN_PATHS or (status < 400 and (path == "/status" or path.startswith(_PAGE)))
        level = logging.DEBUG if routine else logging.INFO
        fields = {"request_id": request_id, "status": status or CLIENT_GONE, "ms": round(seconds * 1000, 1)}
        client = scope.get("client")
        if client:
            fields["client"] = client[0]
        # %r keeps control characters of a hostile path out of the log. Query strings and bodies are never logged.
        access_log.log(level, "%s %r", scope["method"], path[:200], extra=fields)


class Draining:
    """Counts the requests inside, and takes no new ones once the server is to stop."""

    def __init__(self, app: ASGIApp, gate: "Gate") -> None:
        self._app, self._gate = app, gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _WATCHING:
            await self._app(scope, receive, send)
            return
        if self._gate.draining:
            await unavailable("shutting_down").response()(scope, receive, send)
            return
        self._gate.inside += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._gate.inside -= 1


class Gate:
    """Whether new requests are let in, and how many are inside."""

    def __init__(self) -> None:
        self.draining = False
        self.inside = 0


class ApiKey:
    """Refuses requests without a key, except to what is open."""

    def __init__(self, app: ASGIApp, keys: ApiKeys) -> None:
        self._app, self._keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or is_open(scope["path"]) or self._allows(scope):
            await self._app(scope, receive, send)
            return
        refusal = ApiError(
            401,
            "Send the API key as 'Authorization: Bearer KEY'; it is missing or wrong.",
            kind="authentication_error",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )
        await refusal.response()(scope, receive, send)

    def _allows(self, scope: Scope) -> bool:
        scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and self._keys.allow(key.strip())
