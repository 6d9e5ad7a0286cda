"""Messages over a stream socket: four bytes of length (little-endian), then msgpack. Both ends of it."""

import asyncio
import contextlib
import logging
import select
import socket
import struct

import msgspec

from app.engine.checks import unreadable
from app.engine.messages import (
    AdapterFailed,
    FromEngine,
    InvalidRequest,
    LoadAdapter,
    LoadFailed,
    Start,
    Submit,
    ToEngine,
    UnloadAdapter,
    Update,
)
from model.errors import SamplingError

_LENGTH = struct.Struct("<I")
_READ_SIZE = 1 << 18

Refusal = Update | AdapterFailed | LoadFailed

logger = logging.getLogger(__name__)


class ClientGone(Exception):
    """The client closed its end, or its process died."""


class EngineEnd:
    """The engine's side: blocking, for a loop that owns its thread. `send` and `receive` raise ClientGone."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        sock.setblocking(True)
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._bell, self._rope = socket.socketpair()  # a byte in here ends a wait
        self._bell.setblocking(False)
        self._rope.setblocking(False)
        self._poll.register(self._bell, select.POLLIN)
        self._buffer = bytearray()
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[ToEngine] = msgspec.msgpack.Decoder(ToEngine)
        self._refused: list[Refusal] = []

    def send(self, message: FromEngine) -> None:
        """Send, waiting while the client's buffer is full: a client that lags must not make memory grow here."""
        data = _frame(self._encoder.encode(message))
        try:
            self._sock.sendall(data)
        except OSError as error:
            raise ClientGone from error

    def receive(self, timeout: float) -> list[ToEngine]:
        """All messages that have arrived; waits up to `timeout` seconds for the first bytes, 0 = don't wait. `wake` ends it.

        One that can't be read is left out: it is logged, and `refused` has the answer to it."""
        wait_ms = round(timeout * 1000)
        while ready := self._poll.poll(wait_ms):
            wait_ms = 0
            for descriptor, _ in ready:
                if descriptor == self._bell.fileno():
                    self._bell.recv(_READ_SIZE)
                    continue
                try:
                    data = self._sock.recv(_READ_SIZE)
                except OSError as error:
                    raise ClientGone from error
                if not data:
                    raise ClientGone
                self._buffer += data
        return self._take() if self._buffer else []

    def refused(self) -> list[Refusal]:
        """The answers to messages that could not be read, since the last call."""
        refused, self._refused = self._refused, []
        return refused

    def wake(self) -> None:
        """End a `receive` that waits, or the next one; from any thread, also when the end has been closed."""
        with contextlib.suppress(OSError):  # closed, or full of calls not yet heard
            self._rope.send(b"!")

    def close(self) -> None:
        """Free what waits for `wake`; the socket is the caller's."""
        self._bell.close()
        self._rope.close()

    def _take(self) -> list[ToEngine]:
        messages: list[ToEngine] = []
        start = 0
        while len(self._buffer) - start >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._buffer, start)
            end = start + _LENGTH.size + size
            if len(self._buffer) < end:
                break
            body = self._buffer[start + _LENGTH.size : end]
            start = end
            try:
                messages.append(self._decoder.decode(body))
            except Exception as error:  # one client's mistake must not end what the others wait for
                logger.error("a message can't be read, so it is refused: %s", error)
                self._refused += _refusal(body, error)
        del self._buffer[:start]
        return messages


class ClientEnd:
    """The client's side, on an event loop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[FromEngine] = msgspec.msgpack.Decoder(FromEngine)
        self._check: msgspec.msgpack.Decoder[ToEngine] = msgspec.msgpack.Decoder(ToEngine)  # what the engine reads with

    @classmethod
    async def connect(cls, sock: socket.socket) -> "ClientEnd":
        """Take over a connected socket."""
        return cls(*await asyncio.open_unix_connection(sock=sock))

    def send(self, message: ToEngine) -> None:
        """Queue a message; requests are small and few, so nothing waits here. InvalidRequest, naming the field, for one that
        the engine could not read: nothing is sent then."""
        try:
            body = self._encoder.encode(message)
            self._check.decode(body)
        except Exception as error:
            raise unreadable(message, error) from error
        if not self._writer.is_closing():  # else nobody reads it any more
            self._writer.write(_frame(body))

    async def receive(self) -> FromEngine:
        """The next message. Raises EOFError (as asyncio.IncompleteReadError) or OSError when the engine is gone."""
        (size,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
        return self._decoder.decode(await self._reader.readexactly(size))

    def close(self) -> None:
        """Hang up: the engine ends by itself."""
        self._writer.close()


def _frame(body: bytes) -> bytes:
    return _LENGTH.pack(len(body)) + body


def _refusal(body: bytes | bytearray, error: Exception) -> list[Refusal]:
    """The answer to a message that can't be read, as far as it says whose it is."""
    try:
        tag, key = msgspec.msgpack.decode(body)[:2]
    except (ValueError, TypeError):
        return []
    if tag == Start.__struct_config__.tag:
        return [LoadFailed(str(error))]
    if tag == Submit.__struct_config__.tag and isinstance(key, int):
        if isinstance(error, InvalidRequest | SamplingError):
            return [Update(key, [], error=error.param, message=str(error))]
        return [Update(key, [], error="fault")]
    if tag in (LoadAdapter.__struct_config__.tag, UnloadAdapter.__struct_config__.tag) and isinstance(key, str):
        return [AdapterFailed(key, f"adapter: the request can't be read ({error})")]
    return []
