"""Clients of the command line: curl, and `llm`."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conformance import KEY, MODEL

PROMPT = "Once upon a time"


def run(*command: str, env: dict[str, str] | None = None, stdin: str = "") -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **(env or {})}, input=stdin, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def curl(api):
    if shutil.which("curl") is None:
        pytest.skip("curl isn't installed")

    def ask(path: str, *options: str) -> str:
        return run("curl", "-sS", "-H", f"Authorization: Bearer {KEY}", *options, f"{api.root}{path}")

    return ask


def test_curl(curl, api):
    body = json.dumps({"prompt": PROMPT, "max_tokens": 8, "temperature": 0})
    answer = json.loads(curl("/v1/completions", "--json", body))
    assert answer["choices"] == api.complete(PROMPT, max_tokens=8, temperature=0)["choices"]


def test_curl_streams(curl, api):
    body = json.dumps(
        {
            "model": MODEL, "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 8, "temperature": 0,
            "stream": True,
        }
    )  # fmt: skip
    lines = [line for line in curl("/v1/chat/completions", "-N", "--json", body).split("\n\n") if line]
    assert lines.pop() == "data: [DONE]"
    parts = [json.loads(line.removeprefix("data: "))["choices"][0]["delta"].get("content", "") for line in lines]
    whole = api.ask("chat", PROMPT, max_tokens=8, temperature=0)
    assert "".join(parts) == whole["choices"][0]["message"]["content"]


def test_curl_waits_for_100_continue(curl, tmp_path: Path):
    """A body beyond 1 MiB is announced and never sent: curl asks first, and is told 413."""
    large = tmp_path / "large.json"
    large.write_text(json.dumps({"prompt": "a" * 2_000_000}))
    out = curl(
        "/v1/completions", "--json", f"@{large}", "-H", "Expect: 100-continue", "-w", "\n%{http_code} %{size_upload}"
    )
    answer, _, written = out.rpartition("\n")
    assert json.loads(answer)["error"]["code"] == "request_too_large"
    assert written.split() == ["413", "0"]


def test_curl_without_json(curl):
    assert json.loads(curl("/v1/completions", "-d", '{"prompt": "a"}'))["error"]["code"] == "unsupported_media_type"


@pytest.fixture
def llm(base_url, tmp_path: Path):
    pytest.importorskip("llm", reason="the command line client llm isn't installed")
    common = f"model_name: {MODEL}\n  api_base: {base_url}\n  api_key_name: homegrown"
    models = (
        f"- model_id: chat\n  {common}\n  supports_schema: true\n- model_id: plain\n  {common}\n  completion: true\n"
    )
    (tmp_path / "extra-openai-models.yaml").write_text(models)
    (tmp_path / "keys.json").write_text(json.dumps({"homegrown": KEY}))

    def ask(*arguments: str, stdin: str = "") -> str:
        command = [sys.executable, "-m", "llm", *arguments]
        return run(*command, env={"LLM_USER_PATH": str(tmp_path)}, stdin=stdin)

    return ask


@pytest.mark.slow
def test_llm(llm, api):
    expected = api.ask("chat", PROMPT, max_tokens=12, temperature=0)["choices"][0]["message"]["content"]
    options = ("-o", "temperature", "0", "-o", "max_tokens", "12")
    assert llm("-m", "chat", *options, PROMPT).strip() == expected.strip()  # streamed
    assert llm("-m", "chat", "--no-stream", *options, PROMPT).strip() == expected.strip()
    assert llm("-m", "chat", *options, "-c", "And then?") != ""  # goes on with the conversation


@pytest.mark.slow
def test_llm_completes(llm, api):
    expected = api.complete(PROMPT, max_tokens=12, temperature=0)["choices"][0]["text"]
    options = ("-o", "temperature", "0", "-o", "max_tokens", "12")
    assert llm("-m", "plain", *options, PROMPT).strip() == expected.strip()


@pytest.mark.slow
def test_llm_with_a_schema(llm):
    ages = {"type": "integer", "minimum": 0, "maximum": 30}
    schema = {"type": "object", "properties": {"age": ages, "tame": {"type": "boolean"}}, "required": ["age", "tame"]}
    schema["additionalProperties"] = False
    answer = json.loads(llm("-m", "chat", "-o", "seed", "1", "--schema", json.dumps(schema), "Describe a cat."))
    assert set(answer) == {"age", "tame"}
    assert isinstance(answer["tame"], bool)
