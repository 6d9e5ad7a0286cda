"""A whole run by its command: from a text file to a model directory that other tools load; killed, and resumed."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model.checkpoint import load_model
from model.errors import ConfigError
from model.tokenizer import Tokenizer
from training.recipe import PretrainSettings

RECIPE = """
name = "tiny"
[data]
vocab_size = 300
validation_fraction = 0.2
about = "Made-up sentences."
[model]
preset = "homegrown-4m"
changes = { n_layer = 2, d_model = 64, n_head = 2, n_kv_head = 2, head_dim = 32, d_ff = 96, context_length = 32 }
[optim]
batch_tokens = 256
warmup_steps = 2
[run]
steps = 30
micro_batch = 4
compile = false
threads = 1
log_every = 1
eval_every = 10
eval_tokens = 500
save_every = 2
"""


def sentence(rng: random.Random) -> str:
    who, what = rng.choice(["The fox", "A girl", "My uncle", "The king"]), rng.choice(["saw", "ate", "lost", "sold"])
    return f"{who} {what} {rng.choice(['the', 'a'])} {rng.choice(['red', 'big', 'new'])} {rng.choice(['hat', 'cake', 'boat'])}."


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    directory, rng = tmp_path_factory.mktemp("inputs"), random.Random(0)
    documents = [" ".join(sentence(rng) for _ in range(12)) for _ in range(120)]
    (directory / "corpus.txt").write_text("\n<|endoftext|>\n".join(documents))
    (directory / "recipe.toml").write_text(RECIPE)
    return directory / "recipe.toml", directory / "corpus.txt"


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
    assert [step for step, _ in log] == list(range(1, 31))
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
        "30 updates",
    ):
        assert expected in card


def test_killed_at_any_moment_it_resumes_to_the_same_bits(
    inputs: tuple[Path, Path], straight: Path, tmp_path: Path
) -> None:
    out, rng = tmp_path / "run", random.Random(1)
    kills = 0
    for attempt in range(4):
        process = start(inputs, out, *(["--resume"] if attempt else []))
        target = 2 + 7 * attempt  # wait until this step is logged, then a moment that falls anywhere, saves included
        deadline = time.monotonic() + 100
        while process.poll() is None and time.monotonic() < deadline:
            if (out / "log.jsonl").is_file() and max(losses_so_far(out), default=0) >= target:
                time.sleep(rng.random() * 0.05)
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.005)
        process.communicate()
    assert kills >= 3
    finish(start(inputs, out, "--resume"))
    mine, theirs = (load_file(run / "states" / "step-00000030" / "weights.safetensors") for run in (out, straight))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert losses(out) == losses(straight)
    assert sorted(p.name for p in (out / "states").iterdir()) == ["step-00000028", "step-00000030"]


def losses_so_far(run: Path) -> list[int]:
    lines = (run / "log.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines if line.endswith("}")]


def test_a_second_run_in_the_same_directory_is_refused(inputs: tuple[Path, Path], straight: Path) -> None:
    process = start(inputs, straight)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 1
    assert "add --resume" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(("text", "said"), [
    ("[run]\nsteps = 0", "run.steps"),
    ("[run]\n", "give minutes or steps"),
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
