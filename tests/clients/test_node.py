"""The npm packages openai and @ai-sdk/openai-compatible, in a folder of their own that outlives a run of the tests."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conformance import KEY, MODEL

HERE = Path(__file__).parent / "node"
OLDEST_NODE = 20

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def packages(pytestconfig: pytest.Config) -> Path:
    """A folder with the scripts and the packages of package.json; skips where they can't be had."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm aren't installed")
    version = subprocess.run([node, "--version"], capture_output=True, text=True).stdout.strip()
    if int(version.lstrip("v").split(".")[0]) < OLDEST_NODE:
        pytest.skip(f"node is {version}; the packages need {OLDEST_NODE} or newer")
    assert pytestconfig.cache is not None
    folder = pytestconfig.cache.mkdir("clients-node")
    wanted = (HERE / "package.json").read_text()
    for script in HERE.glob("*.mjs"):
        shutil.copy(script, folder)
    installed = folder / "package.json"
    if not installed.exists() or installed.read_text() != wanted:
        (folder / "package.json").unlink(missing_ok=True)
        (folder / "wanted").mkdir(exist_ok=True)
        (folder / "wanted" / "package.json").write_text(wanted)
        command = [
            npm,
            "install",
            "--no-package-lock",
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
            "--loglevel=error",
        ]
        done = subprocess.run(command, cwd=folder / "wanted", capture_output=True, text=True, timeout=240)
        if done.returncode:
            pytest.skip(f"npm can't install the packages: {done.stderr.strip()[-300:]}")
        shutil.rmtree(folder / "node_modules", ignore_errors=True)
        (folder / "wanted" / "node_modules").rename(folder / "node_modules")
        installed.write_text(wanted)  # last: only a whole installation has it
    return folder


def run(packages: Path, script: str, base_url: str) -> dict[str, Any]:
    done = subprocess.run(
        ["node", script, base_url, KEY, MODEL], cwd=packages, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def is_animal(value: dict[str, Any]) -> bool:
    return set(value) == {"name", "legs"} and isinstance(value["name"], str) and 0 <= value["legs"] <= 8


def test_openai(packages, base_url, api):
    found = run(packages, "openai.mjs", base_url)
    answer = api.ask("chat", "Who lives by the sea?", max_tokens=24, temperature=0)
    text = answer["choices"][0]["message"]["content"]
    assert found["models"] == [MODEL]
    assert found["chat"] == found["streamed"] == found["accumulated"] == text
    assert found["usage"]["completion_tokens"] == answer["usage"]["completion_tokens"]
    completed = api.complete(["Once upon a time", "The old man"], max_tokens=8, temperature=0)["choices"]
    assert found["completions"] == found["completionsStreamed"] == [choice["text"] for choice in completed]
    assert found["embedding"] == pytest.approx(found["embeddingPlain"], abs=1e-6)
    assert is_animal(found["animal"])
    assert found["errors"] == [
        ["BadRequestError", 400, "temperature", "invalid_value"],
        ["NotFoundError", 404, "model", "model_not_found"],
        ["AuthenticationError", 401, None, "invalid_api_key"],
    ]


def test_ai_sdk(packages, base_url, api):
    found = run(packages, "ai_sdk.mjs", base_url)
    answer = api.ask("chat", "Who lives by the sea?", max_tokens=24, temperature=0)
    assert found["chat"] == found["streamed"] == answer["choices"][0]["message"]["content"]
    assert found["usage"] == found["streamedUsage"] == answer["usage"]["completion_tokens"]
    assert found["finish"] == answer["choices"][0]["finish_reason"]
    assert found["completion"] == found["completionStreamed"] != ""
    assert is_animal(found["animal"])
    embedded = api.ask_at("/v1/embeddings", {"input": ["The old man", "The sea"]})["data"]
    for vector, entry in zip(found["embeddings"], embedded, strict=True):
        assert vector == pytest.approx(entry["embedding"], abs=1e-5)
    assert found["error"][0] == 400
    assert "temperature" in found["error"][1]
