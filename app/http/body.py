"""What a request's body may be: how large, and how slow."""

import asyncio
from collections.abc import Awaitable, Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.errors import CLIENT_GONE, ApiError

BODY_SECONDS = 20.0
SLOWEST = 4096  # bytes a second: a large body may take longer


class BodyLimit:
    """Refuses a body over the limit: by its announced length before any of it is read, else as soon as it has come. One that
    takes longer than `seconds`, and more for what has come of it, is refused too: slots are not for clients that dawdle."""

    def __init__(self, app: ASGIApp, limit: int, seconds: float = BODY_SECONDS) -> None:
        self._app, self._limit, self._seconds = app, limit, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdecimal() and (len(announced) > 18 or int(announced) > self._limit):
            await self._too_large().response()(scope, receive, send)
            return
        await self._app(scope, self._watched(receive), send)

    def _watched(self, receive: Receive) -> Callable[[], Awaitable[Message]]:
        seen, whole = 0, False
        deadline = asyncio.get_running_loop().time() + self._seconds

        async def watched() -> Message:
            nonlocal seen, whole
            if whole:  # what comes now is the client's leaving, however late
                return await receive()
            try:
                async with asyncio.timeout_at(deadline + seen / SLOWEST):
                    message = await receive()
            except TimeoutError:
                raise self._too_slow() from None
            if message["type"] == "http.disconnect":
                raise ApiError(CLIENT_GONE, "The client left before its request was complete.")
            seen += len(message.get("body", b""))
            if seen > self._limit:
                raise self._too_large()
            whole = not message.get("more_body", False)
            return message

        return watched

    def _too_large(self) -> ApiError:
        return ApiError(413, f"The body is over the limit of {self._limit} bytes.", code="request_too_large")

    def _too_slow(self) -> ApiError:
        text = f"The body did not come within {self._seconds:g} seconds and one more for each {SLOWEST} bytes of it."
        return ApiError(408, text, code="request_timeout", headers={"Connection": "close"})
