"""The inspector's process: what it sees is right, it comes and goes, and whatever happens to it ends nobody else's work."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import msgspec
import pytest
import torch
from oracle import make_adapters
from transformers import AutoModelForCausalLM

from app.engine import inspecting
from app.engine.inspector import MAX_WAITING, Inspected, InspectFailed, InspectJob, Inspector, InspectorUnavailable
from app.engine.messages import EngineSpec, EngineUnavailable, QueueFull, RequestFault, RequestTimeout
from model.adapters import load_with_adapter
from model.gpt import GPT
from model.inspection import inspect_text

TOKENS = [84, 104, 101, 32, 115, 101, 97]
# Answers as the real one does, but for what the prompt's only token says: wait so many hundredths of a second, or 0: end.
STAND_IN = """
import sys, time
import msgspec
from app.engine.inspector import LENGTH, Inspected
while head := sys.stdin.buffer.read(LENGTH.size):
    job = msgspec.msgpack.decode(sys.stdin.buffer.read(LENGTH.unpack(head)[0]))
    (number,) = job[1]
    if number == 0:
        sys.exit(3)
    time.sleep(number / 100)
    body = b"no message" if number == 7 else msgspec.msgpack.encode(Inspected(number, 1, b"[]", []))
    sys.stdout.buffer.write(LENGTH.pack(len(body)) + body)
    sys.stdout.buffer.flush()
"""


def inspector(model: Path | str = "nowhere", **options: float) -> Inspector:
    return Inspector(EngineSpec(model=str(model)), **options)


@pytest.fixture
def stand_in(monkeypatch):
    """Processes that need no torch: started in a blink. Counts them."""
    started: list[int] = []
    plain = asyncio.create_subprocess_exec

    async def start(*command, **options):
        process = await plain(sys.executable, "-c", STAND_IN, **options)
        started.append(process.pid)
        return process

    monkeypatch.setattr("app.engine.inspector.asyncio.create_subprocess_exec", start)
    return started


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def settle(check) -> None:
    end = time.monotonic() + 10
    while not check():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


# -- what it sees


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_attention_and_lens_equal_those_of_transformers(loop, tiny_gpt2_dir, tiny_llama_dir, architecture):
    directory = tiny_gpt2_dir if architecture == "gpt2" else tiny_llama_dir

    async def scenario() -> Inspected:
        looker = inspector(directory)
        try:
            return await looker.inspect(InspectJob(TOKENS))
        finally:
            await looker.close()

    seen = loop.run(scenario())
    theirs = AutoModelForCausalLM.from_pretrained(directory, attn_implementation="eager").eval()
    with torch.no_grad():
        answer = theirs(torch.tensor([TOKENS]), output_attentions=True)
    ours = torch.tensor(msgspec.json.decode(seen.attention))
    expected = torch.stack([layer[0] for layer in answer.attentions])
    assert (seen.layers, seen.heads) == expected.shape[:2]
    assert (ours - expected).abs().max() <= 1e-4
    probabilities = answer.logits[0].softmax(-1)
    assert len(seen.lens) == seen.layers + 1
    for best, row in zip(seen.lens[-1], probabilities, strict=True):
        assert len(best) == 5
        assert [share for _, share in best] == pytest.approx(row.topk(5).values.tolist(), abs=1e-4)
        assert all(row[token] == pytest.approx(share, abs=1e-4) for token, share in best)


@pytest.mark.slow
def test_adapters_are_merged_and_the_base_stays_as_it_is(loop, model_dir, tmp_path):
    path = make_adapters(model_dir, tmp_path)["one"]
    before = {file: file.read_bytes() for file in model_dir.iterdir()}
    merged = load_with_adapter(path, str(model_dir))[0]
    assert isinstance(merged, GPT)
    expected = inspect_text(merged, TOKENS)

    async def scenario() -> list[Inspected]:
        looker = inspector(model_dir)
        try:
            asked = [InspectJob(TOKENS, None, [1]), InspectJob(TOKENS, str(path), [1]), InspectJob(TOKENS, None, [1])]
            seen = [await looker.inspect(job) for job in asked]
            with pytest.raises(RequestFault, match=r"adapter_config\.json"):
                await looker.inspect(InspectJob(TOKENS, str(tmp_path / "nothing")))
            return [*seen, await looker.inspect(asked[0])]  # its mistake was its own
        finally:
            await looker.close()

    base, adapted, again, last = loop.run(scenario())
    assert base == again == last
    assert base.attention != adapted.attention
    attention = torch.tensor(msgspec.json.decode(adapted.attention))
    assert attention.shape == (1, 4, len(TOKENS), len(TOKENS))
    assert (attention[0] - expected.attention[1]).abs().max() <= 1e-4
    shares = torch.tensor([[[share for _, share in best] for best in layer] for layer in adapted.lens])
    assert (shares - expected.top_probabilities).abs().max() <= 1e-5
    assert {file: file.read_bytes() for file in model_dir.iterdir()} == before


def test_a_model_that_memory_has_no_room_for_is_not_loaded(model_dir, tmp_path, monkeypatch):
    memory = tmp_path / "meminfo"
    memory.write_text("MemTotal: 1000 kB\nMemAvailable:      10 kB\n")
    monkeypatch.setattr(inspecting, "_MEMORY", memory)
    reply = inspecting._Desk(model_dir).answer(InspectJob(TOKENS))
    assert isinstance(reply, InspectFailed)
    assert reply.memory
    assert "memory" in reply.message
    for content in ("MemAvailable: 99999999 kB\n", "MemTotal: 1000 kB\n", "what?"):  # enough, or nobody knows
        memory.write_text(content)
        assert isinstance(inspecting._Desk(model_dir).answer(InspectJob(TOKENS)), Inspected)


# -- how it lives


def test_one_process_answers_one_after_the_other_and_ends_when_nobody_asks(loop, stand_in):
    async def scenario():
        looker = inspector(idle=0.5)
        assert looker.pid is None
        answers = await asyncio.gather(*(looker.inspect(InspectJob([number])) for number in (3, 1, 2)))
        assert [answer.layers for answer in answers] == [3, 1, 2]
        assert len(stand_in) == 1
        await settle(lambda: looker.pid is None and not alive(stand_in[0]))
        assert (await looker.inspect(InspectJob([4]))).layers == 4
        assert len(stand_in) == 2
        await looker.close()
        assert not alive(stand_in[1])

    loop.run(scenario())


def test_more_than_may_wait_are_refused(loop, stand_in):
    async def scenario():
        looker = inspector()
        asked = [asyncio.create_task(looker.inspect(InspectJob([50])))]
        await settle(lambda: looker.pid is not None)
        asked += [asyncio.create_task(looker.inspect(InspectJob([1]))) for _ in range(MAX_WAITING)]
        await settle(lambda: len(looker._jobs) == MAX_WAITING)
        with pytest.raises(QueueFull):
            await looker.inspect(InspectJob([1]))
        asked.pop().cancel()  # whoever leaves makes room at once
        asked.append(asyncio.create_task(looker.inspect(InspectJob([1]))))
        assert [answer.layers for answer in await asyncio.gather(*asked)] == [50] + [1] * MAX_WAITING
        await looker.close()

    loop.run(scenario())


def test_who_leaves_is_forgotten_and_the_next_is_answered(loop, stand_in):
    async def scenario():
        looker = inspector()
        running, queued, stays = (asyncio.create_task(looker.inspect(InspectJob([n]))) for n in (30, 5000, 2))
        await settle(lambda: looker.pid is not None)
        running.cancel()
        queued.cancel()
        assert (await stays).layers == 2  # and not the answer that the first did not wait for
        assert len(stand_in) == 1
        await looker.close()

    loop.run(scenario())


def test_a_question_at_the_moment_of_the_end_is_answered(loop, stand_in):
    async def scenario():
        looker = inspector(idle=0, limit=20)
        for number in (1, 2):  # the second comes while the first one's wait for more is running out
            assert (await looker.inspect(InspectJob([number]))).layers == number
        await looker.close()

    loop.run(scenario())


def test_a_process_that_ends_or_talks_nonsense_is_started_again(loop, stand_in):
    async def scenario():
        looker = inspector()
        with pytest.raises(InspectorUnavailable, match="try again"):
            await looker.inspect(InspectJob([0]))
        assert (await looker.inspect(InspectJob([1]))).layers == 1
        os.kill(stand_in[-1], signal.SIGKILL)  # while it is idle: nobody need be told
        await settle(lambda: looker.pid is None)
        assert (await looker.inspect(InspectJob([1]))).layers == 1
        with pytest.raises(RequestFault):
            await looker.inspect(InspectJob([7]))
        assert (await looker.inspect(InspectJob([1]))).layers == 1
        assert not any(map(alive, stand_in[:-1]))
        await looker.close()

    loop.run(scenario())


@pytest.mark.slow
def test_what_takes_too_long_is_given_up(loop, stand_in):
    async def scenario():
        looker = inspector(limit=1.5)
        with pytest.raises(RequestTimeout, match=r"longer than 1\.5 s"):
            await looker.inspect(InspectJob([60_000]))
        await settle(lambda: not alive(stand_in[0]))
        assert (await looker.inspect(InspectJob([1]))).layers == 1
        await looker.close()

    loop.run(scenario())


def test_closing_tells_all_who_wait(loop, stand_in):
    async def scenario():
        looker = inspector()
        asked = [asyncio.create_task(looker.inspect(InspectJob([60_000]))) for _ in range(3)]
        await settle(lambda: looker.pid is not None)
        await looker.close()
        for answer in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(answer, EngineUnavailable)
            assert answer.reason == "shutting_down"
        assert not alive(stand_in[0])
        with pytest.raises(EngineUnavailable):
            await looker.inspect(InspectJob([1]))

    loop.run(scenario())
