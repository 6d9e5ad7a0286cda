"""Refusals at the door."""

from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from app.engine.messages import EngineUnavailable, QueueFull
from app.http.errors import to_api_error

ASKING = frozenset(
    {"/generate", "/instruct", "/classify", "/inspect", "/v1/completions", "/v1/chat/completions", "/v1/embeddings"}
)


class Admission:
    """Refuses the requests that the engine could not take whatever they ask, before they are read: under a flood of them, reading
    each first would leave no time for those that are inside."""

    def __init__(self, app: ASGIApp, check: Callable[[], None]) -> None:
        """`check` raises EngineUnavailable or QueueFull while nothing is taken."""
        self._app, self._check = app, check

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in ASKING:
            try:
                self._check()
            except (EngineUnavailable, QueueFull) as error:
                await to_api_error(error, scope["state"]["request_id"]).response()(scope, receive, send)
                return
        await self._app(scope, receive, send)
