import asyncio
import socket

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
        with theirs, pytest.raises(EOFError):
            await asyncio.to_thread(engine.receive, 5.0)

    loop.run(scenario())


def test_the_engine_does_not_wait_when_told_not_to():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert EngineEnd(theirs).receive(0) == []


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
