"""An engine in a long step says that it is alive, unless the step lasts so long that it counts as stuck."""

import asyncio
import contextlib
import socket
import threading

import pytest

from app.engine import worker
from app.engine.messages import Step, Update
from app.engine.transport import ClientEnd, ClientGone, EngineEnd


class OneStep:
    """A core with one step to do, which ends when the test says so."""

    def __init__(self):
        self.busy, self.gate = True, threading.Event()

    def step(self):
        self.gate.wait(30)
        self.busy = False
        return Step([Update(7, [1], finish="length")], 0, 0)

    def replies(self):
        return []

    def check_integrity(self):
        pass


@contextlib.contextmanager
def looping(core):
    ours, theirs = socket.socketpair()
    before = set(threading.enumerate())

    def loop():
        with theirs, contextlib.closing(EngineEnd(theirs)) as end, contextlib.suppress(ClientGone):
            worker._loop(end, core)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield ours
    finally:
        core.gate.set()
        ours.close()
        thread.join(30)
        assert not thread.is_alive()
    for left in set(threading.enumerate()) - before:
        left.join(30)
        assert not left.is_alive()


def test_a_long_step_is_heard_of_and_its_result_too(loop, monkeypatch):
    monkeypatch.setattr(worker, "HEARTBEAT_SECONDS", 0.02)
    core = OneStep()

    async def scenario():
        with looping(core) as ours:
            client = await ClientEnd.connect(ours)
            for _ in range(3):
                assert await asyncio.wait_for(client.receive(), 30) == Step([], 0, 0)
            core.gate.set()
            while not (step := await asyncio.wait_for(client.receive(), 30)).updates:
                pass
            assert step.updates[0].id == 7
            client.close()

    loop.run(scenario())


def test_a_stuck_step_is_not(loop, monkeypatch):
    monkeypatch.setattr(worker, "HEARTBEAT_SECONDS", 0.02)
    monkeypatch.setattr(worker, "LONGEST_STEP", 0.0)

    async def scenario():
        with looping(OneStep()) as ours:
            client = await ClientEnd.connect(ours)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.receive(), 0.3)
            client.close()

    loop.run(scenario())
