"""Messages over a stream socket: four bytes of length (little-endian), then msgpack. Both ends of it."""

import asyncio
import contextlib
import select
import socket
import struct

import msgspec

from app.engine.messages import FromEngine, ToEngine

_LENGTH = struct.Struct("<I")
_READ_SIZE = 1 << 18


def frame(message: ToEngine | FromEngine, encoder: msgspec.msgpack.Encoder) -> bytes:
    """The bytes of one message."""
    body = encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


class EngineEnd:
    """The engine's side: blocking, for a loop that owns its thread. EOFError or OSError means that the client is gone."""

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

    def send(self, message: FromEngine) -> None:
        """Send, waiting while the client's buffer is full: a client that lags must not make memory grow here."""
        self._sock.sendall(frame(message, self._encoder))

    def receive(self, timeout: float) -> list[ToEngine]:
        """All messages that have arrived; waits up to `timeout` seconds for the first bytes, 0 = don't wait. `wake` ends it."""
        wait_ms = round(timeout * 1000)
        while ready := self._poll.poll(wait_ms):
            wait_ms = 0
            for descriptor, _ in ready:
                if descriptor == self._bell.fileno():
                    self._bell.recv(_READ_SIZE)
                    continue
                data = self._sock.recv(_READ_SIZE)
                if not data:
                    raise EOFError("the client closed the connection")
                self._buffer += data
        return self._take() if self._buffer else []

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
            messages.append(self._decoder.decode(self._buffer[start + _LENGTH.size : end]))
            start = end
        del self._buffer[:start]
        return messages


class ClientEnd:
    """The client's side, on an event loop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[FromEngine] = msgspec.msgpack.Decoder(FromEngine)

    @classmethod
    async def connect(cls, sock: socket.socket) -> "ClientEnd":
        """Take over a connected socket."""
        return cls(*await asyncio.open_unix_connection(sock=sock))

    def send(self, message: ToEngine) -> None:
        """Queue a message; requests are small and few, so nothing waits here."""
        self._writer.write(frame(message, self._encoder))

    async def receive(self) -> FromEngine:
        """The next message. Raises EOFError (as asyncio.IncompleteReadError) or OSError when the engine is gone."""
        (size,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
        return self._decoder.decode(await self._reader.readexactly(size))

    def close(self) -> None:
        """Hang up: the engine ends by itself."""
        self._writer.close()
