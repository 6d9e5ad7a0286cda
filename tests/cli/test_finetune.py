"""`homegrown finetune` and `homegrown merge` as a user types them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cli import commands
from model.errors import HomegrownError

ROOT = Path(__file__).parents[2]
QUICK = ("--set", "run.threads=1", "--set", "run.tensorboard=false", "--set", "optim.warmup_steps=1")


def homegrown(*arguments: str | Path) -> Result:
    return CliRunner().invoke(commands, [str(argument) for argument in arguments])


def refused(*arguments: str | Path) -> str:
    """The text of the error that a command ends with."""
    done = homegrown(*arguments)
    assert isinstance(done.exception, HomegrownError | OSError), done.output
    return str(done.exception)


@pytest.fixture
def class_files(tmp_path: Path) -> tuple[str, ...]:
    for name, word in (("neg", "dull"), ("pos", "fine")):
        (tmp_path / f"{name}.txt").write_text("".join(f"film {i} is {word}\n" for i in range(40)))
    return tuple(text for name in ("neg", "pos") for text in ("--class-file", f"{name}={tmp_path / name}.txt"))


def test_class_files_make_a_classifier_and_an_adapter_merges(
    tiny_llama_dir: Path, class_files: tuple[str, ...], tmp_path: Path
) -> None:
    run, merged = tmp_path / "run", tmp_path / "merged"
    arguments = ("finetune", "classify", *class_files, "--model", tiny_llama_dir, "--out", run, *QUICK)
    done = homegrown(*arguments, "--method", "lora", "--epochs", "1", "--batch-rows", "8", "--set", "lora.rank=2",
                     "--label-name", "neg=negative")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert str(run / "model") in done.output
    assert "accuracy" in done.output
    fields = json.loads((run / "model" / "adapter_config.json").read_text())
    assert (fields["r"], fields["task_type"]) == (2, "SEQ_CLS")
    assert "holds a run already" in refused(*arguments)
    done = homegrown("merge", run / "model", "--out", merged)
    assert done.exit_code == 0, done.output
    assert json.loads((merged / "config.json").read_text())["id2label"] == {"0": "negative", "1": "pos"}
    assert "already there" in refused("merge", run / "model", "--out", merged)
    assert homegrown("merge", run / "model", "--out", merged, "--force", "--model", tiny_llama_dir).exit_code == 0


def test_a_dry_run_writes_nothing(tiny_llama_dir: Path, class_files: tuple[str, ...], tmp_path: Path) -> None:
    done = homegrown(
        "finetune", "classify", *class_files, "--model", tiny_llama_dir, "--out", tmp_path / "run", *QUICK, "--dry-run"
    )
    assert done.exit_code == 0, done.output
    assert "parameters" in done.output
    assert "examples to train on" in done.output
    assert not (tmp_path / "run").exists()


def test_a_recipe_is_read_and_options_win(tiny_llama_dir: Path, class_files: tuple[str, ...], tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        f'name = "tone"\nmodel = "{tiny_llama_dir}"\n[run]\nsteps = 2\ntensorboard = false\n[optim]\nlr = 0.1\n'
    )
    done = homegrown("finetune", "classify", *class_files, "--recipe", recipe, "--out", tmp_path / "run", "--lr", "1e-3",
                     "--seed", "5", "--set", "name=mood")  # fmt: skip
    assert done.exit_code == 0, done.output
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "# mood" in card
    assert "2 updates" in card
    assert "rate 0.001" in card
    assert "seed 5" in card


def test_any_field_can_be_set_whether_it_has_an_option_or_not(tmp_path: Path) -> None:
    seen: list[Any] = []

    def look(settings: Any, *_: Any, **__: Any) -> Path:
        seen.append(settings.data)
        return tmp_path

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.classify.classify", look)
        names = ("--set", 'data.label_names={"0" = "bad"}', "--label-name", "1=good")
        fields = ("--set", "data.text_field=t", "--set", "data.max_length=5", "--set", "data.class_weights=balanced")
        files = ("--set", 'data.columns=["t", "label"]', "--set", 'data.test=["x"]', "--set", "data.label_field=l")
        done = homegrown("finetune", "classify", "--out", tmp_path / "run", *names, *fields, *files)
    assert done.exit_code == 0, done.output
    (data,) = seen
    assert data.label_names == {"0": "bad", "1": "good"}
    assert (data.text_field, data.label_field, data.max_length, data.class_weights) == ("t", "l", 5, "balanced")
    assert (data.columns, data.test) == (("t", "label"), ("x",))


def test_the_recipes_that_come_along_are_valid() -> None:
    from training.classify_recipe import ClassifySettings

    recipes = sorted((ROOT / "training" / "recipes").glob("classify_*.toml"))
    assert recipes
    for path in recipes:
        assert ClassifySettings.from_toml(path).data.about


def test_mistakes_are_named(tiny_llama_dir: Path, class_files: tuple[str, ...], tmp_path: Path) -> None:
    base = ("finetune", "classify", "--model", tiny_llama_dir, "--out", tmp_path / "run")
    (tmp_path / "d.csv").write_text("text,stars\nfine,5\ndull,1\n")
    assert "d.csv, line 2: has no field 'label'" in refused(*base, tmp_path / "d.csv")
    assert "no data given" in refused(*base)
    assert "no/such" in refused("finetune", "classify", *class_files, "--out", tmp_path / "run", "--model", "no/such")
    assert "lora.targets" in refused(*base, *class_files, "--set", "lora.targets=3")
    assert "c_attn, which a llama model hasn't" in refused(
        *base, *class_files, "--method", "lora", "--set", 'lora.targets=["c_attn"]'
    )
    assert "adapter_config.json: no such file" in refused("merge", tmp_path, "--out", tmp_path / "merged")
    for wrong, form in (
        ("--set", "SECTION.FIELD=VALUE"),
        ("--class-file", "LABEL=FILE"),
        ("--label-name", "LABEL=NAME"),
    ):
        done = homegrown(*base, wrong, "=x")
        assert done.exit_code == 2
        assert f"is not {form}" in done.stderr
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "merged").exists()


def test_ctrl_c_before_the_first_saved_state_promises_none(
    tiny_llama_dir: Path, class_files: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("training.fit.run", interrupted)
    done = homegrown("finetune", "classify", *class_files, "--model", tiny_llama_dir, "--out", tmp_path / "run", *QUICK)
    assert "stopped at step 0; no state was saved yet, so the same command begins anew" in done.stderr


def test_ctrl_c_leaves_a_run_to_go_on_with(tiny_llama_dir: Path, class_files: tuple[str, ...], tmp_path: Path) -> None:
    run = tmp_path / "run"
    common = ["finetune", "classify", *class_files, "--model", str(tiny_llama_dir), "--out", str(run), *QUICK,
              "--set", "run.save_every=1", "--batch-rows", "4"]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", *common, "--epochs", "100000"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ),
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(run.glob("states/step-*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "--resume goes on" in errors
    assert not (run / "model").exists()
    step = max(int(path.name.removeprefix("step-")) for path in run.glob("states/step-*"))
    done = homegrown(*common, "--set", f"run.steps={step + 2}", "--resume")
    assert done.exit_code == 0, done.output
    assert (run / "model" / "model.safetensors").is_file()
    assert not list(run.glob(".*"))
