"""What a client can ask beyond a text: embeddings, labels, scores, adapters, grammars; and a process that is killed."""

import asyncio
import math
import os
import signal

import pytest
from oracle import Oracle, make_adapters

from app.engine.client import EngineClient
from app.engine.local import WorkerThread, local_engine
from app.engine.messages import (
    AdapterError,
    EngineFailed,
    EngineLimits,
    EngineSpec,
    EngineUnavailable,
    Grammar,
    GrammarError,
    InvalidRequest,
    QueueFull,
    RequestTimeout,
)
from app.engine.process import WorkerProcess
from model.checkpoint import load_model, save_model
from model.classifier import as_classifier, label_scores
from model.errors import ContextLengthError, SamplingError
from model.native import library
from model.sampling_params import SamplingParams
from model.tokenizer import Tokenizer

needs_native = pytest.mark.skipif(not library.available(), reason="the native kernels were not built")
PROMPT = list(b"What is it, and where does it go from here?")
GREEDY = SamplingParams(temperature=0.0, ignore_eos=True)


@pytest.fixture(scope="module")
def paths(model_dir, tmp_path_factory):
    return make_adapters(model_dir, tmp_path_factory.mktemp("adapters"))


@pytest.fixture(scope="module")
def oracle(model_dir, paths):
    return Oracle(model_dir, paths)


@pytest.fixture(scope="module")
def client(make_engine, paths):
    return make_engine(adapters={"one": str(paths["one"]), "mood": str(paths["mood"])})


async def ids(client, prompt=PROMPT, max_tokens=8, **fields):
    delta = await client.generate(prompt, GREEDY, max_tokens, **fields).collect()
    return [token.id for token in delta.tokens]


def test_an_embedding_has_length_one_and_the_means_direction(loop, client, oracle):
    embedding = loop.run(client.embed(PROMPT))
    expected = oracle.embedding(PROMPT, None)
    assert math.fsum(value * value for value in embedding) == pytest.approx(1.0)
    assert embedding == pytest.approx((expected / expected.norm()).tolist(), abs=1e-5)
    assert loop.run(client.embed(PROMPT, adapter="one")) != pytest.approx(embedding, abs=1e-3)


def test_scores_of_the_adapters_labels(loop, client, oracle):
    assert client.adapters == {"one": [], "mood": ["good", "bad", "odd"]}
    scores = loop.run(client.classify(PROMPT, adapter="mood"))
    assert scores == pytest.approx(oracle.scores(PROMPT, "mood").tolist(), abs=1e-4)


@pytest.mark.parametrize("backend", ["torch", pytest.param("native", marks=needs_native)])
def test_a_classifier_is_served_too(loop, make_engine, model_dir, tmp_path, backend):
    model = as_classifier(load_model(model_dir), ["yes", "no"])
    save_model(model, tmp_path)
    Tokenizer.from_directory(model_dir).save(tmp_path)
    engine = make_engine(model=str(tmp_path), backend=backend, prefill_chunk=16, dtype="float32")
    assert engine.info.labels == ["yes", "no"]
    scores = loop.run(engine.classify(PROMPT))
    assert scores == pytest.approx(label_scores(model, [PROMPT])[0].tolist(), abs=1e-4)
    assert len(loop.run(engine.embed(PROMPT))) == model.config.d_model
    with pytest.raises(InvalidRequest, match="classifier"):
        engine.generate(PROMPT, GREEDY, 1)


def test_the_prompts_logprobs_come_with_the_first_delta(loop, client, oracle):
    async def scenario():
        stream = client.generate(PROMPT, GREEDY, 5, prompt_logprobs=2)
        return [delta async for delta in stream]

    deltas = loop.run(scenario())
    first = deltas[0].prompt_logprobs
    assert all(delta.prompt_logprobs is None for delta in deltas[1:])
    assert first[0] is None
    assert [each.logprob for each in first[1:]] == pytest.approx(oracle.logprobs(PROMPT, None), abs=1e-4)
    assert all(len(each.top_ids) == 2 for each in first[1:])
    alone = loop.run(client.generate(PROMPT, GREEDY, 0, prompt_logprobs=0, score_from=10).collect())
    assert [e.logprob for e in alone.prompt_logprobs] == pytest.approx([e.logprob for e in first[10:]], abs=1e-5)
    assert (alone.text, alone.finish.reason) == ("", "length")
    assert loop.run(client.generate(PROMPT, GREEDY, 5).collect()).prompt_logprobs is None


def test_cached_tokens_are_told(loop, client):
    prompt = [9, 8, *PROMPT]
    cached = [loop.run(client.generate(prompt, GREEDY, 1).collect()).finish.timings.cached for _ in range(2)]
    assert cached == [0, len(prompt) - 1]


def test_what_does_not_fit_the_model_is_refused_before_it_is_sent(loop, client):
    async def scenario():
        for ask, error in (
            (lambda: client.generate(PROMPT, GREEDY, 1, adapter="nobody"), AdapterError),
            (lambda: client.generate(PROMPT, GREEDY, 1, adapter="mood"), InvalidRequest),
            (lambda: client.generate([], GREEDY, 1), ContextLengthError),
            (lambda: client.generate([257], GREEDY, 1), SamplingError),
            (lambda: client.generate(PROMPT, GREEDY, 1, prompt_logprobs=0, score_from=99), InvalidRequest),
            (lambda: client.generate(PROMPT, GREEDY, 1, prompt_logprobs=-1), InvalidRequest),
            (lambda: client.generate(PROMPT, GREEDY, 1, logprobs=258), InvalidRequest),
        ):
            with pytest.raises(error):
                ask()
        for wait, error in (
            (client.classify(PROMPT), InvalidRequest),
            (client.classify(PROMPT, adapter="one"), InvalidRequest),
            (client.embed(PROMPT, adapter="nobody"), AdapterError),
            (client.embed([1] * 1025), ContextLengthError),
            (client.load_adapter("one", "/nowhere"), AdapterError),
            (client.load_adapter("", "/nowhere"), AdapterError),
            (client.load_adapter("new", "/nowhere"), AdapterError),
            (client.unload_adapter("nobody"), AdapterError),
        ):
            with pytest.raises(error):
                await wait
        assert client.status.in_flight == 0
        assert set(client.adapters) == {"one", "mood"}

    loop.run(scenario())


def test_an_adapter_comes_and_goes_while_requests_run(loop, client, oracle, paths):
    async def scenario():
        assert await client.load_adapter("two", str(paths["two"])) == []
        running = asyncio.ensure_future(ids(client, max_tokens=200, adapter="two"))
        beside = asyncio.ensure_future(ids(client, max_tokens=20))
        await asyncio.sleep(0.01)
        gone = asyncio.ensure_future(client.unload_adapter("two"))
        await asyncio.sleep(0)
        with pytest.raises(AdapterError):
            client.generate(PROMPT, GREEDY, 1, adapter="two")
        with pytest.raises(AdapterError):
            await client.load_adapter("two", str(paths["two"]))  # not before it has gone
        await gone
        assert running.done()
        assert oracle.explains(await running, PROMPT, GREEDY, 200, "two")
        assert oracle.explains(await beside, PROMPT, GREEDY, 20, None)
        await client.load_adapter("two", str(paths["one"]))
        assert oracle.explains(await ids(client, adapter="two"), PROMPT, GREEDY, 8, "one")
        await client.unload_adapter("two")

    loop.run(scenario())


def test_a_grammar_that_cannot_be_used_fails_its_request(loop, client):
    pytest.importorskip("llguidance")

    async def scenario():
        good = client.generate(PROMPT, GREEDY, 40, grammar=Grammar("regex", "[a-c]{7}"))
        bad = client.generate(PROMPT, GREEDY, 9, grammar=Grammar("regex", "("))
        with pytest.raises(GrammarError):
            await bad.collect()
        delta = await good.collect()
        assert len(delta.text) == 7
        assert set(delta.text) <= set("abc")
        assert (delta.finish.reason, delta.finish.stop_reason) == ("stop", None)

    loop.run(scenario())


def test_whoever_stops_waiting_frees_the_slot(loop, make_engine):
    engine = make_engine(max_slots=1, max_queue=1)

    async def scenario():
        blocker = engine.generate(PROMPT, GREEDY, 900)
        await anext(blocker)
        waiting = asyncio.ensure_future(engine.embed(PROMPT))
        await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            await engine.embed(PROMPT)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert engine.status.in_flight == 1
        blocker.cancel()
        await engine.embed(PROMPT)
        assert engine.status.in_flight == 0

    loop.run(scenario())


def test_an_embedding_can_wait_too_long(loop, make_engine):
    engine = make_engine(max_slots=1, max_queue_wait=0.1)

    async def scenario():
        async with engine.generate(PROMPT, GREEDY, 900, speculate=False) as blocker:
            await anext(blocker)
            with pytest.raises(RequestTimeout):
                await engine.embed(PROMPT)

    loop.run(scenario())


def test_an_adapter_of_the_settings_that_is_not_there_ends_the_start(loop, model_dir, tmp_path):
    async def scenario():
        engine = local_engine(EngineSpec(model=str(model_dir), threads=1, adapters={"x": str(tmp_path)}))
        await engine.start()
        with pytest.raises(EngineFailed, match=r"adapter_config\.json"):
            await engine.wait_ready()
        await engine.close()

    loop.run(scenario())


def test_a_killed_engine_is_ready_again_with_its_adapters(loop, model_dir, paths, oracle):
    """kill -9 on the real process."""
    workers = []

    def launch(spec):
        workers.append(WorkerProcess(spec))
        return workers[-1]

    async def scenario():
        adapters = {"one": str(paths["one"])}
        spec = EngineSpec(model=str(model_dir), threads=1, max_slots=4, backend="torch", adapters=adapters)
        engine = EngineClient(spec, EngineLimits(), launch=launch)
        await engine.start()
        try:
            await engine.wait_ready()
            await engine.load_adapter("two", str(paths["two"]))
            stream = engine.generate(PROMPT, GREEDY, 900, adapter="two")
            await anext(stream)
            under_way = [stream.collect(), engine.embed(PROMPT * 20), engine.unload_adapter("one")]
            under_way = [asyncio.ensure_future(each) for each in under_way]
            await asyncio.sleep(0)
            os.kill(workers[0].pid, signal.SIGKILL)
            results = await asyncio.gather(*under_way, return_exceptions=True)
            assert isinstance(results[0], EngineUnavailable)
            with pytest.raises(EngineUnavailable, match="engine_dead"):
                engine.generate(PROMPT, GREEDY, 1)
            with pytest.raises(EngineUnavailable, match="engine_dead"):
                await engine.load_adapter("new", str(paths["one"]))
            assert engine.status.in_flight == 0
            await engine.wait_ready()
            # At once, before the adapter can have been read: the request waits for it. The one unloaded stays away.
            assert set(engine.adapters) == {"two"}
            assert oracle.explains(await ids(engine, adapter="two"), PROMPT, GREEDY, 8, "two")
            assert len(workers) == 2
        finally:
            await engine.close()

    loop.run(scenario())


def test_an_adapter_that_is_gone_does_not_keep_the_engine_from_starting_again(
    loop, model_dir, paths, oracle, tmp_path, caplog
):
    workers = []

    def launch(spec):
        workers.append(WorkerThread(spec))
        return workers[-1]

    async def scenario():
        moved = tmp_path / "moved"
        paths["two"].rename(moved)
        engine = EngineClient(EngineSpec(model=str(model_dir), threads=1, adapters={"two": str(moved)}), launch=launch)
        await engine.start()
        await engine.wait_ready()
        moved.rename(paths["two"])
        workers[0].kill()
        while engine.status.state == "ready":
            await asyncio.sleep(0.01)
        await engine.wait_ready()
        with pytest.raises(AdapterError, match=r"adapter two: adapter_config\.json: no such file"):
            await ids(engine, adapter="two")
        while engine.adapters:  # told right after the request
            await asyncio.sleep(0.01)
        assert "no longer there" in caplog.text
        assert oracle.explains(await ids(engine), PROMPT, GREEDY, 8, None)
        await engine.close()

    loop.run(scenario())
