"""Limits, leaving, faults: what happens to one request is its own affair."""

import asyncio
import socket
import threading
import time

import pytest

from app.engine.client import EngineClient
from app.engine.local import WorkerThread
from app.engine.messages import (
    EngineFailed,
    EngineSpec,
    EngineUnavailable,
    Loaded,
    QueueFull,
    RequestCancelled,
    RequestFault,
    RequestTimeout,
)
from app.engine.stream import GenerationStream
from app.engine.transport import EngineEnd
from model.errors import ContextLengthError, SamplingError
from model.sampling_params import SamplingParams
from model.torch_backend import TorchBackend

ENDLESS = SamplingParams(ignore_eos=True, seed=1)
PROMPT = list(b"hello")


async def settle(engine, **expected):
    """Wait until the engine's counts are these."""
    end = time.monotonic() + 5
    while any(getattr(engine.status, name) != value for name, value in expected.items()):
        assert time.monotonic() < end, engine.status
        await asyncio.sleep(0.005)


def test_leaving_frees_the_slot(loop, engine):
    async def scenario():
        async with engine.generate(PROMPT, ENDLESS, 1000) as stream:
            await anext(stream)
            assert engine.status.in_flight == 1
        await settle(engine, running=0, waiting=0, in_flight=0)

    loop.run(scenario())


def test_leaving_the_queue_keeps_the_others_place(loop, engine):
    async def scenario():
        running = [engine.generate(PROMPT, ENDLESS, 1000) for _ in range(4)]
        for stream in running:
            await anext(stream)
        gone, stays = engine.generate(PROMPT, ENDLESS, 3), engine.generate(PROMPT, ENDLESS, 3)
        await settle(engine, running=4, waiting=2)
        gone.cancel()
        await settle(engine, waiting=1)
        running[0].cancel()
        assert (await stays.collect()).finish.completion_tokens == 3
        for stream in running:
            await stream.aclose()
        await settle(engine, running=0)

    loop.run(scenario())


def test_a_reader_cancelled_from_elsewhere_is_told(loop, engine):
    async def scenario():
        stream = engine.generate(PROMPT, ENDLESS, 1000)
        asyncio.get_running_loop().call_later(0.05, stream.cancel)
        with pytest.raises(RequestCancelled):
            await stream.collect()

    loop.run(scenario())


def test_a_cancelled_wait_loses_nothing(loop, engine):
    async def scenario():
        whole = await engine.generate(PROMPT, ENDLESS, 40).collect()
        stream, text = engine.generate(PROMPT, ENDLESS, 40), ""
        while True:
            try:
                async with asyncio.timeout(0.0005):
                    delta = await anext(stream)
            except TimeoutError:
                continue
            except StopAsyncIteration:
                break
            text += delta.text
        assert text == whole.text

    loop.run(scenario())


def test_a_slow_reader_gets_merged_deltas_and_the_same_text(loop, engine):
    async def scenario():
        whole = await engine.generate(PROMPT, ENDLESS, 60).collect()
        stream = engine.generate(PROMPT, ENDLESS, 60)
        await settle(engine, running=1)
        await settle(engine, running=0)  # it is done before anybody reads
        deltas = [delta async for delta in stream]
        assert len(deltas) == 1
        assert (deltas[0].text, deltas[0].tokens) == (whole.text, whole.tokens)

    loop.run(scenario())


def test_a_stop_string_ends_the_generation_in_the_engine_too(loop, engine):
    async def scenario():
        whole = (await engine.generate(PROMPT, ENDLESS, 50).collect()).text
        stop = whole[20:22]
        delta = await engine.generate(PROMPT, ENDLESS, 1000, stop=[stop]).collect()
        assert delta.text == whole[: whole.index(stop)]
        assert (delta.finish.reason, delta.finish.stop_reason) == ("stop", stop)
        await settle(engine, running=0, in_flight=0)

    loop.run(scenario())


def test_a_stop_token_is_named_and_an_end_token_is_not(loop, engine):
    async def scenario():
        first = (await engine.generate(PROMPT, ENDLESS, 10).collect()).tokens[4].id
        delta = await engine.generate(PROMPT, SamplingParams(seed=1, stop_token_ids=(first,)), 10).collect()
        assert (delta.finish.reason, delta.finish.stop_reason) == ("stop", first)
        forced = SamplingParams(logit_bias={256: 100.0}, min_tokens=3)
        delta = await engine.generate(PROMPT, forced, 10).collect()
        assert (delta.finish.reason, delta.finish.stop_reason, delta.finish.completion_tokens) == ("stop", None, 3)

    loop.run(scenario())


def test_nothing_to_generate(loop, engine):
    delta = loop.run(engine.generate(PROMPT, SamplingParams(), 0).collect())
    assert (delta.text, delta.finish.reason, delta.finish.completion_tokens) == ("", "length", 0)


def test_what_does_not_fit_is_refused_before_it_is_sent(loop, engine):
    async def scenario():
        with pytest.raises(ContextLengthError) as caught:
            engine.generate([1] * 1000, SamplingParams(), 25)
        assert (caught.value.n_prompt_tokens, caught.value.n_ctx) == (1000, 1024)
        assert (await engine.generate([1] * 1000, ENDLESS, 24).collect()).finish.completion_tokens == 24
        for bad, param in (
            (SamplingParams(logit_bias={257: 1.0}), "logit_bias"),
            (SamplingParams(stop_token_ids=(-1,)), "stop_token_ids"),
        ):
            with pytest.raises(SamplingError) as caught:
                engine.generate(PROMPT, bad, 5)
            assert caught.value.param == param
        assert engine.status.in_flight == 0

    loop.run(scenario())


def test_the_queue_has_an_end(loop, make_engine):
    engine = make_engine(max_slots=2, max_queue=2)

    async def scenario():
        streams = [engine.generate(PROMPT, ENDLESS, 1000) for _ in range(4)]
        with pytest.raises(QueueFull):
            engine.generate(PROMPT, ENDLESS, 5)
        streams.pop().cancel()
        streams.append(engine.generate(PROMPT, ENDLESS, 5))
        for stream in streams:
            stream.cancel()
        await settle(engine, running=0, waiting=0)

    loop.run(scenario())


def test_waiting_and_running_for_too_long(loop, make_engine, monkeypatch):
    engine = make_engine(max_slots=1, max_queue_wait=0.15, request_timeout=0.5, speculate=False)

    async def scenario():
        first, second = engine.generate(PROMPT, ENDLESS, 1000), engine.generate(PROMPT, ENDLESS, 5)
        with pytest.raises(RequestTimeout, match="slot"):
            await second.collect()
        with pytest.raises(RequestTimeout, match="longer"):
            await first.collect()
        await settle(engine, running=0, waiting=0)

    # 1,000 tokens may be done within the half second on a fast machine: then the steps are made slower.
    original = TorchBackend.forward
    monkeypatch.setattr(
        TorchBackend, "forward", lambda self, segments: (time.sleep(0.002), original(self, segments))[1]
    )
    loop.run(scenario())


def test_the_wait_for_the_step_that_runs_counts(loop, make_engine, monkeypatch):
    engine = make_engine(max_slots=2)
    original, held, go_on = TorchBackend.forward, threading.Event(), threading.Event()

    def forward(self, segments):
        if segments[0].start:
            held.set()
            go_on.wait(30)
        return original(self, segments)

    async def scenario():
        first = engine.generate(PROMPT, ENDLESS, 3)
        await asyncio.to_thread(held.wait, 30)
        second = engine.generate(PROMPT[::-1], ENDLESS, 1)
        await asyncio.sleep(0.1)
        go_on.set()
        await first.collect()
        return (await second.collect()).finish.timings.queue

    monkeypatch.setattr(TorchBackend, "forward", forward)
    assert loop.run(scenario()) >= 0.1


@pytest.fixture
def poison(monkeypatch):
    """Requests whose prompt begins with token 7 are damaged from their first decode on."""
    slots = set()
    forward = TorchBackend.forward

    def install(damage):
        def bad_forward(self, segments):
            for segment in segments:
                if segment.start == 0:
                    (slots.add if segment.tokens[0] == 7 else slots.discard)(segment.slot)
            hidden = forward(self, segments).clone()
            row = 0
            for segment in segments:
                if segment.start and segment.slot in slots:
                    damage(hidden[row : row + segment.outputs])
                row += segment.outputs
            return hidden

        monkeypatch.setattr(TorchBackend, "forward", bad_forward)

    return install


def nan(hidden):
    hidden[:] = float("nan")


def explode(hidden):
    raise RuntimeError("a kernel failed")


@pytest.mark.parametrize("damage", [nan, explode])
@pytest.mark.parametrize("deterministic", [False, True])
def test_a_fault_in_one_row_fails_that_request_alone(loop, make_engine, poison, damage, deterministic):
    engine = make_engine(deterministic=deterministic)

    async def scenario():
        expected = [(await engine.generate([i], ENDLESS, 12).collect()).text for i in range(3)]
        poison(damage)
        good = [engine.generate([i], ENDLESS, 12).collect() for i in range(3)]
        results = await asyncio.gather(*good, engine.generate([7, 7], ENDLESS, 12).collect(), return_exceptions=True)
        assert [r.text for r in results[:3]] == expected
        assert isinstance(results[3], RequestFault)
        await settle(engine, running=0, in_flight=0)
        assert engine.status.state == "ready"

    loop.run(scenario())


def test_a_fault_in_post_processing_fails_that_request_alone(loop, engine, monkeypatch):
    original = GenerationStream._absorb
    broken = []

    def absorb(self, update):
        if self in broken and update.tokens:
            raise ValueError("boom")
        original(self, update)

    monkeypatch.setattr(GenerationStream, "_absorb", absorb)

    async def scenario():
        bad, good = engine.generate(PROMPT, ENDLESS, 1000), engine.generate(PROMPT, ENDLESS, 20)
        broken.append(bad)
        results = await asyncio.gather(bad.collect(), good.collect(), return_exceptions=True)
        assert isinstance(results[0], RequestFault)
        assert results[1].finish.completion_tokens == 20
        await settle(engine, running=0, in_flight=0)

    loop.run(scenario())


def test_a_model_that_is_not_there(loop, tmp_path):
    async def scenario():
        engine = EngineClient(EngineSpec(model=str(tmp_path)))
        with pytest.raises(EngineUnavailable):
            engine.generate(PROMPT, ENDLESS, 1)
        await engine.start()
        with pytest.raises(EngineFailed, match=str(tmp_path)):
            await engine.supervise()
        with pytest.raises(EngineFailed):
            await engine.wait_ready()
        assert engine.status.state == "failed"
        await engine.close()

    loop.run(scenario())


def test_after_closing_nothing_is_taken(loop, make_engine):
    engine = make_engine()

    async def scenario():
        stream = engine.generate(PROMPT, ENDLESS, 1000)
        await anext(stream)
        await engine.close()
        with pytest.raises(EngineUnavailable, match="shutting_down"):
            await stream.collect()
        with pytest.raises(EngineUnavailable, match="shutting_down"):
            engine.generate(PROMPT, ENDLESS, 1)

    loop.run(scenario())


class DeadWorker:
    """A worker that is gone as soon as it is started."""

    def __init__(self, spec):
        self.sock, theirs = socket.socketpair()
        theirs.close()

    def kill(self):
        pass

    def wait(self, timeout):
        return "signal SIGKILL"


def test_an_engine_that_never_comes_up_is_not_tried_for_ever(loop, model_dir):
    async def scenario():
        engine = EngineClient(EngineSpec(model=str(model_dir)), launch=DeadWorker)
        await engine.start()
        with pytest.raises(EngineFailed, match="SIGKILL"):
            await engine.supervise()
        await engine.close()

    loop.run(scenario())


class HangingWorker:
    """A worker that says it has loaded, and then nothing more."""

    def __init__(self, spec):
        self.sock, self._theirs = socket.socketpair()
        end = EngineEnd(self._theirs)
        end.send(Loaded(2, 1024, 257, "float32", "cpu", 1, "", 0.0))
        end.close()

    def kill(self):
        self._theirs.close()

    def wait(self, timeout):
        return "killed"


def test_a_hanging_engine_is_replaced(loop, model_dir, monkeypatch):
    workers = [HangingWorker, WorkerThread]
    # Only the wait for a message that is going on now is to be short: a busy machine may delay a real heartbeat.
    monkeypatch.setattr("app.engine.supervisor.HEARTBEAT_LIMIT", 0.2)

    async def scenario():
        engine = EngineClient(EngineSpec(model=str(model_dir)), launch=lambda spec: workers.pop(0)(spec))
        await engine.start()
        await engine.wait_ready()
        stuck = engine.generate(PROMPT, ENDLESS, 1000)
        with pytest.raises(EngineUnavailable, match="engine_dead"):
            await stuck.collect()
        monkeypatch.undo()
        assert engine.status.state == "restarting"
        await engine.wait_ready()
        assert (await engine.generate(PROMPT, ENDLESS, 5).collect()).finish.completion_tokens == 5
        await engine.close()

    loop.run(scenario())
