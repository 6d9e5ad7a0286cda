"""The two commands as they are called."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, env=os.environ, check=False)


def test_unknown_settings_and_missing_peers_are_one_message(tmp_path: Path) -> None:
    done = run("engine.py", "--ours", "int3", "--work", str(tmp_path))
    assert done.returncode == 1
    assert "there is no setting ours:int3" in done.stderr
    done = run("engine.py", "--peers", "--work", str(tmp_path))
    assert done.returncode == 1
    assert "pip install openvino" in done.stderr
    assert "Traceback" not in done.stderr
    done = run("server.py", "--serve", "threads", "--shape", "tiny", "--work", str(tmp_path))
    assert "NAME=VALUE" in done.stderr


@pytest.mark.slow
def test_engine_benchmark(tmp_path: Path) -> None:
    done = run(
        "engine.py", "--shape", "tiny", "--ours", "float32", "int8", "--bare", "--rounds", "2", "--repeats", "1",
        "--streams", "1", "2", "--new-tokens", "8", "--threads", "1", "--foreign", "99", "--mixed", "--work", str(tmp_path),
        "--json", str(tmp_path / "figures.json"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert set(figures["samples"]) == {"ours:float32", "ours:int8", "bare:float32", "bare:int8"}
    assert figures["agreement"]["bare:float32"] == 1.0
    assert "mixed" in done.stdout
    assert "GB/s" in done.stdout


@pytest.mark.slow
def test_server_benchmark(tmp_path: Path) -> None:
    done = run(
        "server.py", "--shape", "tiny", "--streams", "2", "--rate", "8", "--requests", "6", "--prompts", "8-16", "--answers", "4-8",
        "--rounds", "1", "--compare", "threads=1", "threads=1,max_slots=1", "--foreign", "99", "--work", str(tmp_path),
        "--json", str(tmp_path / "figures.json"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "figures.json").read_text())["results"]
    assert {row["load"] for row in results} == {"2 streams", "2 streams, no HTTP", "8 a second"}
    assert all(row["failed"] == 0 for row in results)
    assert all(row["http_share"] > 0 for row in results if row["load"] == "2 streams")
    assert all(row["prompt_tokens"] >= 6 * 8 for row in results)


def test_a_server_that_cannot_start_says_why(tiny_gpt2_dir: Path) -> None:
    done = run("server.py", "--model", str(tiny_gpt2_dir), "--serve", "threads=0", "--rounds", "1")
    assert done.returncode == 1
    assert "did not come up" in done.stderr
    assert "threads" in done.stderr
