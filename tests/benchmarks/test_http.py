import asyncio
import json
from collections.abc import Sequence

import pytest

from benchmarks.peers.http import Api, Outcome, ask

EVENTS = [b'data: {"text":"a"}\n\n', b": ping\n\n", b'data: {"text":"b\\n"}\n\n']
LAST = b'data: {"id":"x","text":"","usage":{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}}\n\n'
DONE = b"data: [DONE]\n\n"


def chunked(*pieces: bytes) -> list[bytes]:
    return [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces] + [b"0\r\n\r\n"]


def exchange(status: str, headers: str, pieces: Sequence[bytes], api: Api | None = None) -> tuple[Outcome, bytes]:
    """A server that answers one request with these bytes, and what it was sent."""
    received = b""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        received = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1]) for line in received.split(b"\r\n") if line.startswith(b"Content-Length")
        )
        received += await reader.readexactly(length)
        writer.write(f"HTTP/1.1 {status}\r\n{headers}\r\n".encode())
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()

    async def run() -> Outcome:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            return await ask("127.0.0.1", server.sockets[0].getsockname()[1], api or Api("generate"), "hello", 7)

    return asyncio.run(run()), received


def test_events_are_counted_however_they_are_cut() -> None:
    whole = b"".join([*EVENTS, LAST, DONE])
    pieces = [whole[i : i + 7] for i in range(0, len(whole), 7)]
    outcome, sent = exchange("200 OK", "Transfer-Encoding: chunked\r\n", chunked(*pieces))
    assert outcome.complete
    assert len(outcome.events) == 2
    assert (outcome.prompt_tokens, outcome.new_tokens) == (5, 7)
    assert outcome.began <= outcome.events[0] <= outcome.events[-1] <= outcome.ended
    body = json.loads(sent.split(b"\r\n\r\n", 1)[1])
    assert body["max_tokens"] == 7
    assert body["stream"] is True
    assert "stream_options" not in body


def test_completions_of_other_servers() -> None:
    events = [
        b'data: {"choices":[{"text":"a"}]}\n\n',
        b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n',
    ]
    api = Api("openai", model="m", key="secret")
    outcome, sent = exchange("200 OK", "", [*events, DONE], api)
    assert outcome.complete
    assert (len(outcome.events), outcome.new_tokens) == (1, 2)
    assert sent.startswith(b"POST /v1/completions ")
    assert b"Authorization: Bearer secret" in sent


@pytest.mark.parametrize(
    ("status", "pieces", "expected"),
    [
        ("429 Too Many Requests", [b"{}"], "429"),
        ("200 OK", [*EVENTS], "cut short"),
        ("200 OK", [EVENTS[0], b'data: {"error":{"message":"gone"}}\n\n', DONE], "error event"),
        ("200 OK", [DONE], "empty"),
    ],
)
def test_what_breaks_is_named(status: str, pieces: list[bytes], expected: str) -> None:
    outcome, _ = exchange(status, "", pieces)
    assert outcome.status == expected
    assert not outcome.complete


def test_nobody_listens() -> None:
    outcome = asyncio.run(ask("127.0.0.1", 1, Api("generate"), "hello", 1))
    assert outcome.status == "ConnectionRefusedError"
