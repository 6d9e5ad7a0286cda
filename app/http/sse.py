"""Server-sent events, as bytes of our own: nothing stands between the engine's deltas and the socket."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.engine.messages import RequestCancelled
from app.http.disconnect import ClientWatch
from app.http.errors import to_api_error

PING_SECONDS = 10.0
DONE = b"data: [DONE]\n\n"
_PING = b": ping\n\n"

Event = TypeVar("Event")


def frame(payload: bytes) -> bytes:
    """One event around a payload without line ends, such as JSON."""
    return b"data: " + payload + b"\n\n"


class EventStream(Response, Generic[Event]):
    """Sends `encode(event)` for each event of `source`, then [DONE].

    A comment keeps the connection open when nothing else was sent for ten seconds. An error midway becomes an error frame,
    then [DONE]. `watch` cancels the source when the client leaves. Waiting for `source`'s next event must lose nothing when
    it is cancelled.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        first: Event,
        source: AsyncIterator[Event],
        encode: Callable[[Event], bytes],
        *,
        watch: ClientWatch,
        request_id: str,
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers({"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        self._first, self._source, self._encode = first, source, encode
        self._watch, self._request_id = watch, request_id

    @classmethod
    async def start(
        cls,
        request: Request,
        source: AsyncIterator[Event],
        encode: Callable[[Event], bytes],
        cancel: Callable[[], None],
    ) -> "EventStream[Event]":
        """Wait for the first event, so that a request that fails before it gets its real status. `cancel` ends the source."""
        watch = ClientWatch(request.receive, cancel)
        try:
            first = await anext(source)
        except BaseException:
            watch.stop()
            raise
        return cls(first, source, encode, watch=watch, request_id=request.state.request_id)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send the whole stream. (`receive` is `watch`'s.)"""

        async def put(data: bytes, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": more})

        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            end = await self._send_events(put)
            await put(end, False)
        except RequestCancelled:
            pass  # the client has left
        finally:
            self._watch.stop()

    async def _send_events(self, put: Callable[[bytes], Awaitable[None]]) -> bytes:
        """Send the events; the bytes that end the stream."""
        event: Event | None = self._first
        try:
            while event is not None:
                await put(self._encode(event))
                event = await self._next(put)
        except RequestCancelled:
            raise
        except Exception as error:
            return frame(to_api_error(error, self._request_id).encode()) + DONE
        return DONE

    async def _next(self, put: Callable[[bytes], Awaitable[None]]) -> Event | None:
        while True:
            with contextlib.suppress(TimeoutError, StopAsyncIteration):
                async with asyncio.timeout(PING_SECONDS) as timer:
                    return await anext(self._source)
            if not timer.expired():
                return None
            await put(_PING)
