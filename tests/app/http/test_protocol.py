"""The connection itself against slow, endless and rude clients: uvicorn in this process, with limits of a fraction of a second."""

import asyncio
import contextlib
import json
import logging
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import uvicorn

from app.engine.client import EngineClient
from app.engine.messages import EngineSpec
from app.http.body import BodyLimit
from app.http.middleware import RequestContext
from app.http.protocol import Protocol
from app.metrics import Metrics

POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Hasty(Protocol):
    head_seconds = 0.4
    head_bytes = 8192
    linger_seconds = 0.4
    stall_seconds = 0.4


async def echo(scope, receive, send) -> None:
    """Answers with the length of the body."""
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message["body"])
        more = message["more_body"]
    body = b'{"size":%d}' % size
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


class Endless:
    """Streams until its client leaves."""

    def __init__(self, piece: bytes = b"x" * 65536, pause: float = 0.0):
        self.piece, self.pause = piece, pause
        self.running = self.left = 0

    async def __call__(self, scope, receive, send) -> None:
        self.running += 1
        try:
            await receive()
            gone = asyncio.create_task(receive())
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while not gone.done():
                await send({"type": "http.response.body", "body": self.piece, "more_body": True})
                await asyncio.sleep(self.pause)
            assert gone.result()["type"] == "http.disconnect"
            self.left += 1
        finally:
            self.running -= 1


@contextlib.asynccontextmanager
async def serving(app, protocol=Hasty) -> AsyncIterator[Callable[[], Awaitable[Client]]]:
    """`app` behind the middleware that every request passes; gives what makes a connection."""
    metrics = Metrics(EngineClient(EngineSpec(model="none")), {})
    guarded = RequestContext(BodyLimit(app, 100_000, seconds=0.4), metrics, lambda code: 1)
    config = uvicorn.Config(guarded, http=protocol, lifespan="off", log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        writers: list[asyncio.StreamWriter] = []
        task = asyncio.create_task(server._serve([listener]))
        try:
            while not server.started:
                await asyncio.sleep(0.01)

            async def connect(limit: int = 1 << 16) -> Client:
                reader, writer = await asyncio.open_connection(*listener.getsockname(), limit=limit)
                writers.append(writer)
                return reader, writer

            yield connect
        finally:
            for writer in writers:
                writer.close()
            server.should_exit = True
            await task


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(30):
            await scenario()

    asyncio.run(limited())


async def trickle(writer: asyncio.StreamWriter, piece: bytes) -> None:
    """Send `piece` again and again, until the other side has had enough."""
    with contextlib.suppress(OSError):
        while not writer.is_closing():
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.05)


async def whole_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body, up to the end of the connection."""
    data = b""
    with contextlib.suppress(ConnectionError):  # what came before a reset counts
        while piece := await reader.read(1 << 16):
            data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    return int(lines[0].split(" ")[1]), headers, body


def refusal(answer: tuple[int, dict[str, str], bytes], status: int, code: str | None) -> None:
    assert answer[0] == status
    assert answer[1]["content-type"] == "application/json"
    assert answer[1]["connection"] == "close"
    assert len(answer[1]["x-request-id"]) == 32
    error = json.loads(answer[2])["error"]
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", code, None)
    assert error["message"]


def refused(begin: bytes, piece: bytes, status: int, code: str | None) -> None:
    """A client that sends `begin`, then `piece` for ever, gets that answer before long."""

    async def scenario() -> None:
        async with serving(echo) as connect:
            reader, writer = await connect()
            writer.write(begin)
            sending = asyncio.create_task(trickle(writer, piece))
            began = time.monotonic()
            answer = await whole_answer(reader)
            assert time.monotonic() - began < 10
            sending.cancel()
            refusal(answer, status, code)
            assert (await one_request(connect))[0] == 200  # the others are served as before

    run(scenario)


async def one_request(connect) -> tuple[int, dict[str, str], bytes]:
    reader, writer = await connect()
    writer.write(POST + b"Connection: close\r\nContent-Length: 2\r\n\r\n{}")
    return await whole_answer(reader)


# -- slow clients


@pytest.mark.parametrize(
    ("begin", "piece"), [(b"G", b""), (b"POST / HT", b""), (b"GET /", b"a"), (POST, b"a"), (POST + b"X-Slow: ", b"a")]
)
def test_a_head_that_comes_too_slowly(begin, piece):
    refused(begin, piece, 408, "request_timeout")


def test_a_body_that_comes_too_slowly():
    refused(POST + b"Content-Length: 5000\r\n\r\n", b" ", 408, "request_timeout")


def test_a_chunked_body_that_comes_too_slowly():
    refused(POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n", 408, "request_timeout")


def test_a_body_that_never_comes_although_it_was_invited():
    async def scenario() -> None:
        async with serving(echo) as connect:
            reader, writer = await connect()
            writer.write(POST + b"Expect: 100-continue\r\nContent-Length: 9\r\n\r\n")
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            refusal(await whole_answer(reader), 408, "request_timeout")

    run(scenario)


@pytest.mark.parametrize("piece", [b"", b"\r\n"])
def test_a_connection_without_a_request_is_closed(piece):
    async def scenario() -> None:
        async with serving(echo) as connect:
            reader, writer = await connect()
            sending = asyncio.create_task(trickle(writer, piece))
            with contextlib.suppress(ConnectionError):
                assert await reader.read(-1) == b""
            sending.cancel()

    run(scenario)


def test_a_head_late_behind_a_request_does_not_spoil_its_answer():
    async def slow(scope, receive, send) -> None:
        await asyncio.sleep(1.0)
        await echo(scope, receive, send)

    async def scenario() -> None:
        async with serving(slow) as connect:
            reader, writer = await connect()
            writer.write(POST + b"Content-Length: 2\r\n\r\n{}" + b"POST / HTTP/1.1\r\nHo")
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            assert await reader.readexactly(10) == b'{"size":2}'
            refusal(await whole_answer(reader), 408, "request_timeout")

    run(scenario)


def test_a_large_body_gets_more_time():
    async def scenario() -> None:
        async with serving(echo) as connect:
            reader, writer = await connect()
            writer.write(POST + b"Connection: close\r\nContent-Length: 64000\r\n\r\n")
            for _ in range(8):  # 0.8 s in all
                writer.write(b" " * 8000)
                await asyncio.sleep(0.1)
            assert (await whole_answer(reader))[2] == b'{"size":64000}'

    run(scenario)


def test_a_client_that_goes_on_sending_after_its_answer_is_hung_up_on():
    async def scenario() -> None:
        async with serving(echo) as connect:
            reader, writer = await connect()
            writer.write(POST + b"Content-Length: 900000\r\n\r\n")
            sending = asyncio.create_task(trickle(writer, b" "))
            status, _, body = await whole_answer(reader)
            sending.cancel()
            assert status == 413
            assert json.loads(body)["error"]["code"] == "request_too_large"

    run(scenario)


# -- endless ones


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (b"GET /", b"a" * 4096),
        (POST + b"X-Long: ", b"a" * 4096),
        (POST + b"X-Long", b"a" * 4096),
        (POST, b"a: b\r\n" * 500),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1;x=", b"a" * 4096),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n \r\n0\r\nX-Trailer: ", b"a" * 4096),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n \r\n0\r\n", b"a: b\r\n" * 500),
    ],
    ids=["address", "value", "name", "headers", "chunk extension", "trailer", "trailers"],
)
def test_what_never_ends_is_refused(begin, piece):
    refused(begin, piece, 431, "headers_too_large")


# -- rude ones


def test_a_reader_that_stops_reading_is_given_up():
    app = Endless()

    async def scenario() -> None:
        async with serving(app) as connect:
            _, writer = await connect(limit=1024)
            writer.write(POST + b"Content-Length: 2\r\n\r\n{}")
            while not app.running:
                await asyncio.sleep(0.01)
            while app.running:  # the test's own limit ends a wait for ever
                await asyncio.sleep(0.02)
            assert app.left == 1

    run(scenario)


def test_a_slow_reader_is_not():
    app = Endless(b"x" * 500_000)

    async def scenario() -> None:
        async with serving(app) as connect:
            reader, writer = await connect()
            writer.write(POST + b"Content-Length: 2\r\n\r\n{}")
            for _ in range(30):
                await reader.readexactly(400_000)
                await asyncio.sleep(0.05)
            assert app.running == 1

    run(scenario)


@pytest.mark.parametrize("leave", ["close", "half", "reset"])
def test_every_request_of_a_connection_learns_that_its_client_left(leave):
    app = Endless(b"x", pause=0.01)

    async def scenario() -> None:
        async with serving(app) as connect:
            reader, writer = await connect()
            for _ in range(3):  # the second and third are sent while the first one is answered
                writer.write(POST + b"Content-Length: 2\r\n\r\n{}")
                await reader.read(100)
            sock = writer.get_extra_info("socket")
            if leave == "half":
                writer.write_eof()
            else:
                if leave == "reset":
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                writer.transport.abort()
            while app.running:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            assert (app.running, app.left) == (0, 1)  # and the others were never begun

    run(scenario)


def test_garbage_behind_a_request_ends_its_stream_without_an_answer_in_the_middle():
    app = Endless(b"x", pause=0.01)

    async def scenario() -> None:
        async with serving(app) as connect:
            reader, writer = await connect()
            writer.write(POST + b"Content-Length: 2\r\n\r\n{}")
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"\x00\x01 this is not HTTP\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                assert b"HTTP" not in await reader.read(-1)
            while app.running:
                await asyncio.sleep(0.01)
            assert app.left == 1

    run(scenario)


def test_several_requests_at_once_are_answered_in_order():
    async def scenario() -> None:
        async with serving(echo) as connect:
            reader, writer = await connect()
            requests = [POST + b"Content-Length: %d\r\n\r\n" % n + b" " * n for n in range(1, 41)]
            writer.write(b"".join(requests[:-1]) + requests[-1].replace(b"Host", b"Connection: close\r\nHost"))
            data = await reader.read(-1)
            assert data.count(b"HTTP/1.1 200 OK") == 40
            sizes = [data.index(b'{"size":%d}' % n) for n in range(1, 41)]
            assert sizes == sorted(sizes)

    run(scenario)


def test_an_offer_to_change_the_protocol_is_declined_and_its_body_read():
    async def scenario() -> None:
        offer = b"Connection: Upgrade, HTTP2-Settings, close\r\nupgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
        async with serving(echo) as connect:
            reader, writer = await connect()
            writer.write(POST + offer + b"Content-Length: 14\r\n\r\n\r\nupgrade: x\r\n")
            status, _, body = await whole_answer(reader)
            assert (status, body) == (200, b'{"size":14}')

    run(scenario)


@pytest.mark.parametrize("line_end", [b"\r\n", b"\r\nUpgraded: no\r\n"])
@pytest.mark.parametrize("name", [b"Upgrade", b"upgrade", b"UPGRADE", b"uPgRaDe"])
def test_an_offer_that_comes_in_pieces_is_declined_too(name, line_end):
    async def scenario() -> None:
        head = POST + b"Connection: Upgrade, close\r\n" + name + b": h2c\r\nContent-Length: 5" + line_end + b"\r\n"
        async with serving(echo) as connect:
            for cut in range(len(POST), len(head)):
                reader, writer = await connect()
                writer.write(head[:cut])
                await asyncio.sleep(0.002)
                writer.write(head[cut:] + b"12345")
                assert (await whole_answer(reader))[2] == b'{"size":5}', cut
                writer.close()

    run(scenario)


def test_an_offer_that_comes_byte_by_byte():
    async def scenario() -> None:
        async with serving(echo) as connect:
            reader, writer = await connect()
            for byte in POST + b"Connection: Upgrade, close\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\n\r\nu":
                writer.write(bytes([byte]))
                await asyncio.sleep(0.001)
            assert (await whole_answer(reader))[2] == b'{"size":3}'
            writer.close()

    run(scenario)


def test_nothing_of_this_is_an_error_in_the_log(caplog):
    async def scenario() -> None:
        async with serving(echo) as connect:
            for begin in (b"\x00", POST + b"Content-Length: 5\r\n\r\n", POST + b"Content-Length: 500000\r\n\r\n"):
                _, writer = await connect()
                writer.write(begin)
                await asyncio.sleep(0.05)
                writer.transport.abort()
            await asyncio.sleep(0.2)

    with caplog.at_level(logging.DEBUG):
        run(scenario)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert {record.status for record in caplog.records if record.name == "app.access"} == {413, 499}
