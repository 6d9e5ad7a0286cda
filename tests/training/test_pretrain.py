"""A whole run by its command: from a text file to a model directory that other tools load; killed, and resumed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from runs import start_pretrain, write_inputs
from safetensors.torch import load_file

from model.checkpoint import load_model
from model.errors import ConfigError
from model.tokenizer import Tokenizer
from training.pretrain_recipe import PretrainSettings

STEPS = 120


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_inputs(tmp_path_factory.mktemp("inputs"))


def start(inputs: tuple[Path, Path], out: Path, *more: str) -> subprocess.Popen[str]:
    recipe, corpus = inputs
    command = [sys.executable, "-m", "cli", "pretrain", str(recipe), "--corpus", str(corpus), "--out", str(out), *more]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    return out


@pytest.fixture(scope="module")
def straight(inputs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped."""
    out = tmp_path_factory.mktemp("straight") / "run"
    said = finish(start(inputs, out))
    assert f"homegrown serve --model {out / 'model'}" in said
    return out


def losses(run: Path) -> list[tuple[int, float]]:
    """Step and loss of every line of the log: each step once, however often the run was killed."""
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"]) for row in rows if "loss" in row]


def test_it_learned_and_transformers_loads_the_result(straight: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    log = losses(straight)
    assert [step for step, _ in log] == list(range(1, STEPS + 1))
    assert log[-1][1] < 0.6 * log[0][1]
    model, tokenizer = load_model(straight / "model"), Tokenizer.from_directory(straight / "model")
    assert {t.dtype for t in load_file(straight / "model" / "model.safetensors").values()} == {torch.bfloat16}
    text = "The fox saw a red"
    ids = tokenizer.encode(text)
    assert AutoTokenizer.from_pretrained(straight / "model").encode(text) == ids
    theirs = AutoModelForCausalLM.from_pretrained(straight / "model", dtype=torch.float32).eval()
    tokens = torch.tensor([ids])
    with torch.no_grad():
        assert (model(tokens) - theirs(tokens).logits).abs().max() < 1e-4


def test_the_card_carries_the_runs_figures(straight: Path) -> None:
    card = (straight / "model" / "README.md").read_text()
    manifest = json.loads((straight / "data" / "shards" / "manifest.json").read_text())
    for expected in (
        "Made-up sentences.",
        "5-gram",
        "bits a byte",
        f"{manifest['splits']['train']['tokens']:,}",
        f"{STEPS} updates",
    ):
        assert expected in card


@pytest.mark.parametrize("least", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_any_moment_it_resumes_to_the_same_bits(
    inputs: tuple[Path, Path], straight: Path, tmp_path: Path, least: int
) -> None:
    """Five times, or twenty and more, half of them while a state is being written."""
    out, rng = tmp_path / "run", random.Random(1)
    kills = inside = 0
    while True:
        (process,) = start_pretrain(inputs, out, resume=kills > 0)
        if least < 20 and kills == least:
            process.join()
            break
        begun = newest(out)
        while process.is_alive() and newest(out) == begun:  # one more state each time, so that it ends
            time.sleep(0.002)
        if kills % 2:
            time.sleep(rng.random() * 0.03)
        else:  # the moment that a state's staging directory is there
            while process.is_alive() and not list((out / "states").glob(".step-*")):
                pass
            time.sleep(rng.random() * 0.01)
        if not process.is_alive():
            break
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        kills += 1
        inside += bool(list((out / "states").glob(".step-*")))
    assert process.exitcode == 0
    assert kills >= least
    assert inside >= least // 6
    mine, theirs = (load_file(run / "states" / f"step-{STEPS:08d}" / "weights.safetensors") for run in (out, straight))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert losses(out) == losses(straight)
    assert sorted(p.name for p in (out / "states").iterdir()) == sorted(p.name for p in (straight / "states").iterdir())


def newest(run: Path) -> int:
    return max((int(path.name[5:]) for path in (run / "states").glob("step-*")), default=0)


def test_a_second_run_in_the_same_directory_is_refused(inputs: tuple[Path, Path], straight: Path) -> None:
    process = start(inputs, straight)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 1
    assert "add --resume" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(("text", "said"), [
    ("[run]\nsteps = 0", "run.steps"),
    ("[run]\n", "give minutes, steps or epochs"),
    ("[run]\nsteps = 3\nspeed = 2", "run.speed"),
    ("[run]\nsteps = 3\n[optim]\nlr = -1", "optim.lr"),
    ("[run", "not readable as TOML"),
])  # fmt: skip
def test_a_recipes_mistake_names_file_and_field(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"r\.toml") as caught:
        PretrainSettings.from_toml(tmp_path / "r.toml")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
