"""The event stream by itself: pings, errors midway, a client that leaves."""

import asyncio
import json

import pytest
from starlette.requests import Request

from app.engine.messages import EngineUnavailable, QueueFull, RequestCancelled
from app.http import sse
from app.http.sse import EventStream


class Source:
    """Events, errors and pauses (floats, in seconds), in turn. A cancelled wait loses nothing."""

    def __init__(self, *items):
        self.items = list(items)
        self.cancelled = asyncio.Event()

    def __aiter__(self):
        return self

    async def __anext__(self):
        while self.items and isinstance(self.items[0], float):
            self.items[0] -= await self._pause(self.items[0])
            if self.items[0] <= 0:
                self.items.pop(0)
        if not self.items:
            raise StopAsyncIteration
        item = self.items.pop(0)
        if isinstance(item, Exception):
            raise item
        return item

    async def _pause(self, seconds):
        began = asyncio.get_running_loop().time()
        try:
            await asyncio.wait_for(self.cancelled.wait(), seconds)
        except TimeoutError:
            return seconds
        except asyncio.CancelledError:
            self.items[0] -= asyncio.get_running_loop().time() - began
            raise
        raise RequestCancelled("gone")

    def cancel(self):
        self.cancelled.set()


def serve(source, *, leaves_after=None):
    """What the client gets: status, headers and body, or the error raised before them."""

    async def run():
        sent = []
        gone = asyncio.Event()
        if leaves_after is not None:
            asyncio.get_running_loop().call_later(leaves_after, gone.set)

        async def receive():
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        request = Request({"type": "http", "state": {"request_id": "r1"}, "headers": []}, receive, send)
        stream = await EventStream.start(request, source, lambda event: sse.frame(event.encode()), source.cancel)
        await stream(request.scope, receive, send)
        return sent

    sent = asyncio.run(run())
    body = b"".join(message.get("body", b"") for message in sent[1:]).decode()
    return sent, body


def test_events_then_done():
    sent, body = serve(Source("a", "b"))
    assert sent[0]["status"] == 200
    assert body == "data: a\n\ndata: b\n\ndata: [DONE]\n\n"
    assert sent[-1]["more_body"] is False


def test_a_quiet_stream_is_kept_open_by_comments(monkeypatch):
    monkeypatch.setattr(sse, "PING_SECONDS", 0.05)
    _, body = serve(Source("a", 0.12, "b"))
    assert body == "data: a\n\n: ping\n\n: ping\n\ndata: b\n\ndata: [DONE]\n\n"


def test_no_comment_before_the_first_event(monkeypatch):
    monkeypatch.setattr(sse, "PING_SECONDS", 0.02)
    _, body = serve(Source(0.1, "a"))
    assert body.startswith("data: a")


def test_an_error_midway_is_an_event_of_its_own_then_done():
    _, body = serve(Source("a", EngineUnavailable("engine_dead")))
    first, error, done, end = body.split("\n\n")
    assert (first, done, end) == ("data: a", "data: [DONE]", "")
    assert json.loads(error.removeprefix("data: "))["error"]["code"] == "engine_dead"


def test_an_unexpected_error_midway_tells_nothing_but_the_request_id(caplog):
    _, body = serve(Source("a", ValueError("/secret/path")))
    error = json.loads(body.split("\n\n")[1].removeprefix("data: "))["error"]
    assert error["type"] == "server_error"
    assert "r1" in error["message"]
    assert "secret" not in body
    assert "/secret/path" in caplog.text  # where it belongs


def test_an_error_before_the_first_event_is_raised():
    with pytest.raises(QueueFull):
        serve(Source(QueueFull("full")))


def test_a_client_that_leaves_ends_the_source():
    source = Source("a", 30.0, "b")
    sent, body = serve(source, leaves_after=0.05)
    assert source.cancelled.is_set()
    assert body == "data: a\n\n"
    assert sent[-1].get("more_body") is True  # nobody is there for an end
