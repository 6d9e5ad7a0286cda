"""Fine-tuning by two processes (gloo on the CPU): the same losses, weights and figures as by one."""

import json
from pathlib import Path
from typing import Any

import pytest
from runs import start, wait
from safetensors.torch import load_file
from tiny import random_model, tiny_config

from model.checkpoint import save_model
from model.tokenizer import Tokenizer
from training.classify import classify
from training.classify_recipe import ClassifySettings
from training.instruct import instruct
from training.instruct_recipe import InstructSettings, PreferSettings
from training.prefer import prefer

TOKENIZER = Path(__file__).parents[2] / "checkpoints" / "homegrown-base"
TASKS = {
    "classify": (classify, ClassifySettings, {"text_field": "instruction"}, {}),
    "instruct": (instruct, InstructSettings, {}, {"answers": {"measured": 3, "max_tokens": 4}}),
    "prefer": (prefer, PreferSettings, {}, {"answers": {"measured": 3, "max_tokens": 4}}),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny model with a real vocabulary, and rows that every task can read."""
    directory = tmp_path_factory.mktemp("inputs")
    tokenizer = Tokenizer.from_directory(TOKENIZER)
    config = tiny_config("llama", vocab_size=tokenizer.vocab_size, bos_token_id=0, eos_token_ids=(0,))
    save_model(random_model(config), directory / "base")
    tokenizer.save(directory / "base")
    rows = [
        {"instruction": f"Say {n}{' again' * (n % 4)}.", "output": f"It is {n}.", "label": "odd" if n % 2 else "even"}
        for n in range(60)
    ]
    rows = [{**row, "chosen": row["output"], "rejected": f"No {row['output']}"} for row in rows]
    (directory / "rows.json").write_text(json.dumps(rows))
    return directory / "base", directory / "rows.json"


def finetune(task: str, base: Path, data: Path, out: Path, parallel: str) -> None:
    """A short run, in this process."""
    run, settings, fields, more = TASKS[task]
    sections: dict[str, Any] = {
        "model": str(base),
        "data": {"validation_fraction": 0.2, **fields},
        "optim": {"lr": 1e-3, "batch_rows": 4, "warmup_steps": 1},
        "run": {"steps": 6, "bf16": False, "threads": 1, "device": "cpu", "tensorboard": False, "log_every": 1,
                "eval_every": 2, "save_every": 3, "parallel": parallel},
        **more,
    }  # fmt: skip
    run(settings.from_toml(None, sections), [data], out)  # pyright: ignore[reportArgumentType]


def lines(run: Path, key: str) -> list[float]:
    return [line[key] for line in map(json.loads, (run / "log.jsonl").read_text().splitlines()) if key in line]


def figures(run: Path) -> list[float]:
    found = json.loads((run / "evaluation.json").read_text())
    return [figure["value"] for figure in found.get("model") or found["results"][0]["figures"]]


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize("task", list(TASKS))
def test_two_processes_do_what_one_does(inputs: tuple[Path, Path], tmp_path: Path, task: str, parallel: str) -> None:
    alone, both = tmp_path / "alone", tmp_path / "both"
    for out, processes in ((alone, 1), (both, 2)):
        wait(start(finetune, task, *inputs, out, parallel, processes=processes))
    for key in ("loss", "grad_norm", "validation_loss"):
        assert lines(both, key) == pytest.approx(lines(alone, key), rel=1e-4)
    assert len(lines(both, "loss")) == 6
    assert figures(both) == pytest.approx(figures(alone), rel=1e-3, abs=1e-6)
    mine, theirs = (load_file(run / "model" / "model.safetensors") for run in (alone, both))
    assert mine.keys() == theirs.keys()
    for name in mine:
        assert (mine[name] - theirs[name]).norm() <= 1e-3 * mine[name].norm()
