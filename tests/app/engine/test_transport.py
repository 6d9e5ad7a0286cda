import asyncio
import contextlib
import socket
import struct
import threading

import msgspec
import pytest

from app.engine import worker
from app.engine.messages import (
    AdapterFailed,
    Cancel,
    EngineSpec,
    Grammar,
    InvalidRequest,
    LoadAdapter,
    LoadFailed,
    Start,
    Step,
    Submit,
    Update,
)
from app.engine.transport import ClientEnd, ClientGone, EngineEnd
from model.sampling_params import SamplingParams


@pytest.mark.parametrize("size", [1, 5000, 400_000])
def test_messages_survive_the_socket_whole_and_in_order(loop, size):
    async def scenario():
        ours, theirs = socket.socketpair()
        client, engine = await ClientEnd.connect(ours), EngineEnd(theirs)
        params = SamplingParams(logit_bias={3: 1.5}, stop_token_ids=(1, 2), seed=-5)
        sent = [Submit(1, list(range(size)), 5, params, 9, 3), Cancel(1)]
        for message in sent:
            client.send(message)
        got = []
        while len(got) < 2:
            got += await asyncio.to_thread(engine.receive, 5.0)
        assert got == sent
        step = Step([Update(1, [4, 5], finish="stop")], 1, 0)
        await asyncio.to_thread(engine.send, step)
        assert await client.receive() == step
        client.close()
        with theirs, contextlib.closing(engine), pytest.raises(ClientGone):
            await asyncio.to_thread(engine.receive, 5.0)

    loop.run(scenario())


def test_the_engine_does_not_wait_when_told_not_to():
    ours, theirs = socket.socketpair()
    with ours, theirs, contextlib.closing(EngineEnd(theirs)) as engine:
        assert engine.receive(0) == []


def test_a_wait_ends_when_it_is_woken_from_another_thread():
    ours, theirs = socket.socketpair()
    with ours, theirs, contextlib.closing(EngineEnd(theirs)) as engine:
        timer = threading.Timer(0.05, engine.wake)
        timer.start()
        assert engine.receive(60.0) == []  # within the test's time
        timer.join()
        for _ in range(100_000):  # more than anybody hears
            engine.wake()
        assert engine.receive(60.0) == []
    engine.wake()  # also when it is over


def test_the_client_notices_the_end(loop):
    async def scenario():
        ours, theirs = socket.socketpair()
        client = await ClientEnd.connect(ours)
        theirs.close()
        with pytest.raises((EOFError, OSError)):
            await client.receive()
        client.close()
        await asyncio.sleep(0)

    loop.run(scenario())


@contextlib.contextmanager
def engine_hearing(*messages):
    """An engine's end to which these were sent: whatever msgpack can hold, or bytes that it can't."""
    ours, theirs = socket.socketpair()
    with ours, theirs, contextlib.closing(EngineEnd(theirs)) as engine:
        for message in messages:
            body = message if isinstance(message, bytes) else msgspec.msgpack.encode(message)
            ours.sendall(struct.pack("<I", len(body)) + body)
        yield engine


@pytest.mark.parametrize(("bad", "answers"), [
    (Submit(7, [1], 5.0, SamplingParams(), 0), [Update(7, [], error="fault")]),
    ([2, 7, [1], 5, {"top_p": 2.0}, 0], [Update(7, [], error="top_p", message="top_p must be over 0 and at most 1, not 2.0")]),
    (LoadAdapter("one", 5), [AdapterFailed("one", "adapter: the request can't be read (Expected `str`, got `int` - at `$[2]`)")]),
    (Start("no settings"), [LoadFailed("Expected `object`, got `str` - at `$[1]`")]),
    (Cancel("7"), []), ([2], []), (b"\xc1", []), (b"", []), (5, []),
])  # fmt: skip
def test_a_message_that_cannot_be_read_is_refused_and_the_others_are_not(bad, answers, caplog):
    with engine_hearing(Cancel(1), bad, Cancel(2)) as engine:
        assert engine.receive(5.0) == [Cancel(1), Cancel(2)]
        assert engine.refused() == answers
        assert engine.refused() == []
    assert "can't be read" in caplog.text


@pytest.mark.parametrize(("message", "field"), [
    (Submit(1, [1], 5.0, SamplingParams(), 0), "max_tokens"),
    (Submit(1, [1, "2"], 5, SamplingParams(), 0), "prompt"),
    (Submit(1, [1, 2**70], 5, SamplingParams(), 0), "prompt"),
    (Submit(1, [1], 5, SamplingParams(ignore_eos=1), 0), "ignore_eos"),
    (Submit(1, [1], 5, SamplingParams(), 0, speculate="yes"), "speculate"),
    (Submit(1, [1], 5, SamplingParams(), 0, grammar=Grammar("regex", "\ud800")), "grammar"),
    (Submit(1, [1], 5, SamplingParams(), 0, grammar=Grammar("poem", "x")), "grammar"),
    (LoadAdapter("\ud800", "/tmp"), "name"),
    (Start(EngineSpec(model="m", speculate="no")), "speculate"),
])  # fmt: skip
def test_what_the_engine_could_not_read_is_not_sent(loop, message, field):
    async def scenario():
        ours, theirs = socket.socketpair()
        client = await ClientEnd.connect(ours)
        with pytest.raises(InvalidRequest) as caught:
            client.send(message)
        assert caught.value.param == field
        assert str(caught.value).startswith(f"{field} can't be used: ")
        client.send(Cancel(3))
        with theirs, contextlib.closing(EngineEnd(theirs)) as engine:
            assert await asyncio.to_thread(engine.receive, 5.0) == [Cancel(3)]
        client.close()

    loop.run(scenario())


def test_the_engines_own_errors_are_not_taken_for_the_clients_end(monkeypatch):
    def serve(end, spec, when_loaded):
        raise OSError(24, "too many open files")

    monkeypatch.setattr(worker, "_serve", serve)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        body = msgspec.msgpack.encode(Start(EngineSpec(model="m")))
        ours.sendall(struct.pack("<I", len(body)) + body)
        with pytest.raises(OSError, match="open files"):
            worker.run_engine(theirs)
    ours, theirs = socket.socketpair()
    ours.close()
    with theirs:
        worker.run_engine(theirs)  # the client has gone: nothing to tell
        with contextlib.closing(EngineEnd(theirs)) as engine, pytest.raises(ClientGone):
            engine.send(Step([], 0, 0))


def test_an_engine_does_not_wait_for_a_start_that_it_could_not_read():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        body = msgspec.msgpack.encode(Start("no settings"))
        ours.sendall(struct.pack("<I", len(body)) + body)
        with pytest.raises(RuntimeError, match="first message"):
            worker.run_engine(theirs)
