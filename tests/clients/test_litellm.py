"""LiteLLM, in an environment of its own: it wants an older huggingface_hub than the newest that we run with."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from conformance import KEY, MODEL, text_of

VERSION = "1.106.2"  # pinned: a later one, 1.107.0, had been tampered with and was taken back
SCRIPT = Path(__file__).with_name("ask_litellm.py")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def python(pytestconfig: pytest.Config) -> Path:
    """The interpreter of an environment that has LiteLLM; skips where it can't be had. It outlives a run of the tests."""
    assert pytestconfig.cache is not None
    folder = pytestconfig.cache.mkdir(f"clients-litellm-{VERSION}-{sys.version_info.major}.{sys.version_info.minor}")
    done, interpreter = folder / "done", folder / "bin" / "python"
    if not done.exists():
        venv.create(folder, with_pip=True, clear=True)
        command = [interpreter, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", f"litellm=={VERSION}"]
        installed = subprocess.run(command, capture_output=True, text=True, timeout=280)
        if installed.returncode:
            pytest.skip(f"pip can't install litellm: {installed.stderr.strip()[-300:]}")
        done.touch()
    return interpreter


def test_litellm(python, base_url, api):
    # It would ask a server on the net for prices.
    env = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    command = [python, SCRIPT, base_url, KEY, MODEL]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=env)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    question = "Who lives by the sea?"
    answer = api.ask("chat", question, max_tokens=24, temperature=0)
    text = text_of(answer["choices"][0])
    assert found["chat"] == found["streamed"] == found["rebuilt"] == found["logprobs"] == text
    assert found["usage"] == found["streamed_usage"] == answer["usage"]["completion_tokens"]
    seeded = [text_of(api.ask("chat", question, max_tokens=24, seed=seed)["choices"][0]) for seed in range(4)]
    assert found["async"] == [*seeded, text]
    completed = api.complete("Once upon a time", max_tokens=24, temperature=0)["choices"][0]["text"]
    assert found["completion"] == found["completion_streamed"] == completed
    embedded = api.ask_at("/v1/embeddings", {"input": ["The old man", "The sea"]})["data"]
    for vector, entry in zip(found["embeddings"], embedded, strict=True):
        assert vector == pytest.approx(entry["embedding"], abs=1e-5)
    assert found["errors"] == {
        "temperature": ["BadRequestError", 400],
        "model": ["NotFoundError", 404],
        "key": ["AuthenticationError", 401],
        "long": ["ContextWindowExceededError", 400],
    }
