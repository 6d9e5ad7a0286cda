"""One streamed request over HTTP/1.1, with as little processor time as possible: the client shares the server's cores."""

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

_SILENCE = 120.0  # seconds without a byte after which a request counts as failed


@dataclass
class Outcome:
    """How one request went; times on the performance counter. `status`: the HTTP status, or a word for what broke."""

    began: float
    status: str = ""
    events: list[float] = field(default_factory=list)  # when each piece of text arrived
    ended: float = 0.0
    prompt_tokens: int = 0
    new_tokens: int = 0

    @property
    def complete(self) -> bool:
        """Whether the whole answer came."""
        return self.status == "200" and bool(self.events) and self.ended > 0


@dataclass(frozen=True)
class Api:
    """How a server is asked: "generate" is this project's own route, "openai" the completions route that others have too."""

    kind: str
    model: str | None = None
    key: str | None = None

    @property
    def path(self) -> str:
        """The route."""
        return "/generate" if self.kind == "generate" else "/v1/completions"

    def body(self, prompt: str, max_tokens: int) -> bytes:
        """A greedy request for exactly so many tokens."""
        fields: dict[str, Any] = {
            "prompt": prompt, "max_tokens": max_tokens, "temperature": 0.0, "ignore_eos": True, "stream": True
        }  # fmt: skip
        if self.model is not None:
            fields["model"] = self.model
        if self.kind == "openai":
            fields["stream_options"] = {"include_usage": True}
        return json.dumps(fields).encode()


async def ask(host: str, port: int, api: Api, prompt: str, max_tokens: int) -> Outcome:
    """Send a request on a connection of its own and read its events to the end. Never raises for what the server does."""
    outcome = Outcome(time.perf_counter())
    try:
        async with asyncio.timeout(_SILENCE) as silence:
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(request_bytes(host, api, api.body(prompt, max_tokens)))
                await _read(reader, outcome, silence)
            finally:
                writer.close()
    except TimeoutError:
        outcome.status = "silence"
    except (OSError, EOFError, ValueError) as error:
        outcome.status = type(error).__name__
    return outcome


def request_bytes(host: str, api: Api, body: bytes) -> bytes:
    """A POST with that body, on a connection of its own."""
    head = [
        f"POST {api.path} HTTP/1.1", f"Host: {host}", "Content-Type: application/json", f"Content-Length: {len(body)}",
        "Connection: close",
    ]  # fmt: skip
    if api.key is not None:
        head.append(f"Authorization: Bearer {api.key}")
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


async def _read(reader: asyncio.StreamReader, outcome: Outcome, silence: asyncio.Timeout) -> None:
    """Status, headers, then events until "[DONE]" or the end."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    status = head[0].split(" ")[1]
    chunked = any(line.lower().replace(" ", "") == "transfer-encoding:chunked" for line in head)
    if status != "200":
        outcome.status, outcome.ended = status, time.perf_counter()
        return
    rest = b""
    while True:
        piece = await (_chunk(reader) if chunked else reader.read(1 << 16))
        now = time.perf_counter()
        silence.reschedule(asyncio.get_running_loop().time() + _SILENCE)
        *events, rest = (rest + piece).split(b"\n\n")
        for event in events:
            if event.startswith(b"data: "):
                _take(event[6:], now, outcome)
        if not piece or outcome.status:
            outcome.status = outcome.status or "cut short"
            return


async def _chunk(reader: asyncio.StreamReader) -> bytes:
    """The next chunk of a chunked body; empty at its end."""
    size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
    return (await reader.readexactly(size + 2))[:-2]


def _take(data: bytes, now: float, outcome: Outcome) -> None:
    """Count an event. Only the few that tell more than text are parsed."""
    if data == b"[DONE]":
        outcome.status, outcome.ended = "200" if outcome.new_tokens or outcome.events else "empty", now
    elif b'"error"' in data[:12]:
        outcome.status = "error event"
    elif b'"usage":{' in data.replace(b" ", b""):
        event = json.loads(data)
        usage = event.get("usage") or {}
        outcome.prompt_tokens = usage.get("prompt_tokens", 0)
        outcome.new_tokens = usage.get("completion_tokens", 0)
        texts = [event.get("text"), *(choice.get("text") for choice in event.get("choices", []))]
        if any(texts):
            outcome.events.append(now)
    else:
        outcome.events.append(now)
