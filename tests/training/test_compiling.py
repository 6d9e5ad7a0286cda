"""Compiled steps, and machines that can't compile."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from training.compiling import can_compile

PROBE = """
import sys
sys.path.insert(0, "tests/support")
import torch
from tiny import random_model, tiny_config
from training.compiling import compile_in_place
from training.objectives import LanguageModelLoss

config = tiny_config("llama", vocab_size=64, context_length=16, bos_token_id=0, eos_token_ids=(0,), n_layer=1)
model = random_model(config).requires_grad_(True)
objective = LanguageModelLoss(model, bf16=False)
tokens = torch.randint(0, 64, (2, 16))
batch = {"tokens": tokens, "targets": tokens.roll(-1, 1), "documents": (tokens < 8).cumsum(1)}
def both():
    model.zero_grad()
    loss = objective(**batch)
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in model.parameters()])
plain = both()
compiled = compile_in_place(objective, torch.device("cpu"))
now = both()
assert abs(now[0] - plain[0]) < 1e-3 * plain[0], (now[0], plain[0])
assert (now[1] - plain[1]).norm() < 1e-3 * plain[1].norm()
print("compiled", compiled)
"""


def probe(**environment: str) -> str:
    import os

    result = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONPATH": "."} | environment, timeout=280, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    return result.stdout.strip()


def test_a_broken_compiler_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "false")
    assert not can_compile(torch.device("cpu"))
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert not can_compile(torch.device("cpu"))
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", "")
    assert not can_compile(torch.device("cpu"))


@pytest.mark.slow
def test_a_compiler_that_fails_halfway_is_done_without(tmp_path: Path) -> None:
    """It says its version, but compiles nothing: the step runs as it is, and nobody is shown a traceback."""
    script = tmp_path / "c++"
    script.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "g++ 12.2.0" && exit 0\nexit 1\n')
    script.chmod(0o755)
    assert probe(CXX=str(script), TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "cache")) == "compiled True"


@pytest.mark.slow
@pytest.mark.skipif(not can_compile(torch.device("cpu")), reason="there is no C++ compiler")
def test_a_compiled_step_is_the_same_step(tmp_path: Path) -> None:
    assert probe(TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "cache")) == "compiled True"
