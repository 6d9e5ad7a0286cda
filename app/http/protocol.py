"""HTTP/1.1 on a socket, for clients that mean no good too: limits on a request's head, on silence, and on unread answers.

What is refused here gets the same error shape as everything else.
"""

import asyncio
import logging
import re
import uuid
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.http.errors import ApiError

_FIELD_OVERHEAD = 32  # what a header counts beside its bytes, as in HTTP/2: so their number is limited too
_MOST_PIPELINED = 16
_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)
_MARKS = (b"\r\nupgrade:", b"\r\n\r\n")  # an offer of another protocol, and the end of a head

logger = logging.getLogger(__name__)


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol, made safe against slow, endless and rude clients. Times are in seconds.

    A head that doesn't come in time is refused with status 408, one that is too large with 431. (How large and how slow a body
    may be is BodyLimit's matter.) A client that takes no more bytes of its answer is given up.
    """

    head_seconds = 20.0  # for a request's line and headers
    head_bytes = 1 << 16
    linger_seconds = 5.0  # to read on after a refusal, so that a client that is still sending gets to see it
    stall_seconds = 120.0  # without a byte taken from an answer that waits

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._part = "idle"  # where the parser is: idle (between requests), head or body
        self._head_size = 0
        self._unseen = 0  # bytes that the parser took in since it last told anything
        self._held = b""  # the end of what has come, when only what follows tells what it is
        self._refusal: ApiError | None = None
        self._deaf = False  # refused: what still comes is thrown away
        self._cycles: list[Any] = []  # requests whose answers are not complete, in order
        self._head_timer: asyncio.TimerHandle | None = None
        self._linger_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None

    # -- the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The first request is awaited from now on."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell every request that its client has left: uvicorn tells only the last of several sent at once."""
        for timer in (self._head_timer, self._linger_timer, self._stall_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)
        self._leave()

    def data_received(self, data: bytes) -> None:
        """Parse what has come, as far as the limits allow."""
        if self._deaf:
            return
        if self._part != "body":
            data, self._held = _without_upgrade(self._held + data)
            if not data:
                return
        self._unseen += len(data)
        super().data_received(data)
        if self._deaf or self.transport.is_closing():
            return
        if self._unseen > self.head_bytes:  # one endless header, trailer or chunk extension
            self._refuse(self._head_too_large())
        elif self._head_timer is None and (self._part == "head" or (self._part == "idle" and self._unseen)):
            self._await_head()

    # -- the parser's calls

    def on_message_begin(self) -> None:
        """A request's first byte."""
        self._part, self._head_size, self._unseen = "head", 0, 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A piece of the address."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer behind the body."""
        self._count(len(name) + len(value) + _FIELD_OVERHEAD)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is there: the request begins, or waits for those before it."""
        self._part, self._unseen = "body", 0
        self._head_timer = _cancelled(self._head_timer)
        super().on_headers_complete()
        self.cycle.transport = _SoftlyClosed(self.transport, self._close_softly)  # type: ignore[assignment]
        self._cycles.append(self.cycle)
        if 0 < len(self.pipeline) <= _MOST_PIPELINED:
            self.flow.resume_reading()  # whoever doesn't read can't notice that the client leaves

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._unseen = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request's last byte."""
        self._part, self._unseen = "idle", 0
        self._linger_timer = _cancelled(self._linger_timer)
        super().on_message_complete()

    def _count(self, size: int) -> None:
        self._unseen = 0
        self._head_size += size
        if self._head_size > self.head_bytes:
            self._refusal = self._head_too_large()
            raise ValueError("head too large")  # ends the parsing; `send_400_response` is called

    # -- answers

    def on_response_complete(self) -> None:
        """An answer has been written, perhaps before its request had come in whole, or before the client read it."""
        super().on_response_complete()
        self._cycles = [cycle for cycle in self._cycles if not cycle.response_complete]
        self._stall_timer = _cancelled(self._stall_timer)
        if self.transport.get_write_buffer_size():
            self._watch_reader()
        if self._part == "body" and not self._cycles and not self._deaf and not self.transport.is_closing():
            self._linger_timer = self.loop.call_later(self.linger_seconds, self._hang_up)

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that could not be parsed, and hang up."""
        self._refuse(self._refusal or ApiError(400, msg))

    def pause_writing(self) -> None:
        """Answers wait for a client that doesn't take them."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """It has taken most of what was there."""
        super().resume_writing()
        self._stall_timer = _cancelled(self._stall_timer)

    def _refuse(self, error: ApiError) -> None:
        """Answer instead of the app, unless it has begun to; then read no more, and hang up when the client has seen it."""
        logger.info("a connection is refused: %s", error.body["message"])
        self._deaf = True
        begun = any(cycle.response_started for cycle in self._cycles)
        self._leave()
        if begun:
            self.transport.close()
            return
        body = error.encode()
        head = (
            f"HTTP/1.1 {error.status_code} {_PHRASES[error.status_code]}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nX-Request-Id: {uuid.uuid4().hex}\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode("ascii") + body)
        self._hear_no_more()

    def _close_softly(self) -> None:
        """Hang up after an answer; when its request is still coming, not before the client has seen the answer: a connection that
        is closed with bytes unread is reset, and the client may lose what was sent."""
        if self._part == "body" and not self._deaf and not self.transport.is_closing():
            self._hear_no_more()
        elif not self._deaf:
            self.transport.close()

    def _hear_no_more(self) -> None:
        """All is said: end the answer, throw away what still comes, and hang up before long."""
        self._deaf = True
        self.flow.resume_reading()
        self.transport.write_eof()
        self._linger_timer = _cancelled(self._linger_timer)
        self._linger_timer = self.loop.call_later(self.linger_seconds, self.transport.abort)

    def _leave(self) -> None:
        """As far as the app is concerned, the client has left."""
        for cycle in self._cycles:
            if not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()

    def _head_too_large(self) -> ApiError:
        return ApiError(
            431, f"The request's head is over the limit of {self.head_bytes} bytes.", code="headers_too_large"
        )

    # -- timers

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self.head_seconds, self._head_is_late)

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._deaf or self.transport.is_closing():
            return
        if self._cycles:  # an answer to an earlier request is under way
            self._await_head()
        elif self._part == "idle":  # nothing was asked
            self.transport.close()
        else:
            late = f"The request's head did not come within {self.head_seconds:g} seconds."
            self._refuse(ApiError(408, late, code="request_timeout"))

    def _hang_up(self) -> None:
        if self._part == "body":
            self.transport.abort()

    def _watch_reader(self) -> None:
        if self._stall_timer is None:
            unsent = self.transport.get_write_buffer_size()
            self._stall_timer = self.loop.call_later(self.stall_seconds, self._check_reader, unsent)

    def _check_reader(self, before: int) -> None:
        self._stall_timer = None
        unsent = self.transport.get_write_buffer_size()
        if unsent >= before:
            logger.info("a connection is given up: its client took nothing for %g s", self.stall_seconds)
            self.transport.abort()
        elif unsent:
            self._watch_reader()


class _SoftlyClosed:
    """A connection's transport as a request's answer sees it: the protocol decides how it is closed."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self._transport, self.close = transport, close

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


_PHRASES = {400: "Bad Request", 408: "Request Timeout", 431: "Request Header Fields Too Large"}


def _cancelled(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


def _without_upgrade(data: bytes) -> tuple[bytes, bytes]:
    """A head without its offer to change the protocol: the parser would leave out the body of a request that offers it (as
    Java's client does with every one) and wait for what nobody here speaks. The second part may be the begin of an offer whose
    rest is still on its way: it belongs in front of what comes next."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        cut = len(data) - _begun_mark(data[-_LONGEST_MARK:].lower())
        return _UPGRADE.sub(b"\r\nx-upgrade:", data[:cut]), data[cut:]
    return _UPGRADE.sub(b"\r\nx-upgrade:", data[:end]) + data[end:], b""


_LONGEST_MARK = max(map(len, _MARKS)) - 1


def _begun_mark(tail: bytes) -> int:
    """With how many of these bytes, the last ones, a mark may begin."""
    for size in range(len(tail), 0, -1):
        if any(mark.startswith(tail[-size:]) for mark in _MARKS):
            return size
    return 0
