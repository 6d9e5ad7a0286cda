import asyncio
import contextlib
import socket
import threading

import pytest

from app.engine.messages import Cancel, Step, Submit, Update
from app.engine.transport import ClientEnd, EngineEnd
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
        with theirs, contextlib.closing(engine), pytest.raises(EOFError):
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
