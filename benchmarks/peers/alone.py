"""The engine without a server, on the requests that a server got: `python -m benchmarks.peers.alone` reads a job from its input."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.http import Outcome
from benchmarks.peers.machine import Watch, memory
from benchmarks.peers.traffic import Ask, closed_loop, figures

ROOT = Path(__file__).parents[2]


def alone(model: Path | None, case: Mapping[str, str], asks: Sequence[Ask], streams: int) -> dict[str, Any]:
    """The engine's figures in a process with nothing else. `case`: the server's settings."""
    job = {
        "model": str(model),
        "case": dict(case),
        "streams": streams,
        "asks": [[a.prompt, a.max_tokens] for a in asks],
    }
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.peers.alone"], input=json.dumps(job), stdout=subprocess.PIPE, text=True,
        process_group=0, check=False, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"bench"')]
    if not lines:
        return {"requests": len(asks), "failed": len(asks), "errors": {"engine": len(asks)}, "foreign": 0.0}
    return json.loads(lines[-1])["bench"]


def run(job: dict[str, Any]) -> dict[str, Any]:
    """What the worker does: texts are tokens already, and answers are counted, not written."""
    from app.engine.client import EngineClient
    from app.engine.local import WorkerThread
    from app.engine.messages import EngineLimits, EngineSpec
    from app.settings import load_settings
    from model.sampling_params import SamplingParams
    from model.tokenizer import Tokenizer

    settings = load_settings({"model": job["model"]} | {name: value(text) for name, text in job["case"].items()})
    shared = [name for name in EngineSpec.__struct_fields__ if name in type(settings).model_fields]
    spec = EngineSpec(**{name: getattr(settings, name) for name in shared})
    tokenizer = Tokenizer.from_directory(job["model"])
    asks = [Ask(prompt, n) for prompt, n in job["asks"]]
    prompts = {one.prompt: tokenizer.encode(one.prompt) for one in asks}
    client = EngineClient(spec, EngineLimits(max_queue=1 << 20), launch=WorkerThread)

    async def send(one: Ask) -> Outcome:
        ids = prompts[one.prompt]
        outcome = Outcome(time.perf_counter(), status="200", prompt_tokens=len(ids))
        async for delta in client.generate(ids, SamplingParams(temperature=0.0, ignore_eos=True), one.max_tokens):
            outcome.ended = time.perf_counter()
            outcome.new_tokens += len(delta.tokens)
            outcome.events.append(outcome.ended)
        return outcome

    async def serve() -> dict[str, Any]:
        await client.start()
        await client.wait_ready()
        first = next(iter(prompts.values()))
        await client.generate(first[::-1], SamplingParams(temperature=0.0, ignore_eos=True), 4).collect()
        watch = Watch()
        outcomes = await closed_loop(send, asks, job["streams"])
        foreign = watch.read().foreign
        await client.close()
        return figures(outcomes) | {"foreign": foreign, "server_peak_mb": memory()["peak"]}

    return asyncio.run(serve())


def value(text: str) -> Any:
    """A setting's value: a number or a truth value where it reads as one."""
    try:
        return json.loads(text.lower())
    except ValueError:
        return text


if __name__ == "__main__":
    print(json.dumps({"bench": run(json.load(sys.stdin))}), flush=True)
    os._exit(0)
