"""What all commands share: help with examples, exit codes, JSON for scripts."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from cli import COMMANDS, EXIT_CODES, commands

ROOT = Path(__file__).parents[2]


def every_command() -> Iterator[tuple[str, click.Command]]:
    """All of them, those below groups too, with the words that call them."""
    context = click.Context(commands)
    for name in COMMANDS:
        command = commands.get_command(context, name)
        assert command is not None
        yield name, command
        if isinstance(command, click.Group):
            yield from ((f"{name} {below}", each) for below, each in command.commands.items())


@pytest.mark.parametrize(("name", "command"), list(every_command()))
def test_help_has_an_example_that_is_right(name: str, command: click.Command) -> None:
    """Each line that begins with the command names options that there are."""
    context = click.Context(command, info_name=name)
    text = command.get_help(context)
    lines = [line.strip() for line in text.splitlines()]
    examples = [re.split(r" (?:&&|[|#>]) ", line)[0].split() for line in lines if line.startswith(f"homegrown {name} ")]
    if name == "completion" or not isinstance(command, click.Group):
        assert examples or f"  homegrown {name}\n" in text, text
    options = {option for parameter in command.get_params(context) for option in parameter.opts}
    if isinstance(command, click.Group):
        return
    for words in examples:
        for word in words:
            assert not word.startswith("--") or word in options, f"{' '.join(words)}: there is no {word}"


def test_help_tells_the_exit_codes() -> None:
    text = CliRunner().invoke(commands, ["--help"]).output
    for code, meaning in EXIT_CODES:
        assert f"  {code} " in text
        assert meaning.split(";")[0].split(":")[0] in " ".join(text.split())


@pytest.mark.parametrize(("arguments", "code", "said"), [
    (("generate", "Hello", "--no-such"), 2, "No such option"),
    (("no-such",), 2, "No such command"),
    (("generate", "Hello", "--model", "no/such"), 1, "homegrown: "),
    (("--version",), 0, ""),
])  # fmt: skip
def test_exit_codes(arguments: tuple[str, ...], code: int, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cli", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert said in done.stderr


def test_a_reader_that_leaves_is_no_error_to_shout_about() -> None:
    """`homegrown ... | head -1` prints no traceback."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "cli", "--help"], cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is missing")
def test_a_full_disk_is_one_line() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "cli", "--help"],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "homegrown: [Errno 28] No space left on device\n")


def test_ctrl_c_while_the_first_modules_load(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("import sys, time\nprint('loading', flush=True)\ntime.sleep(60)\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", "--help"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "loading\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, "homegrown: interrupted\n")


def test_a_library_that_imports_the_commands_keeps_its_ctrl_c() -> None:
    probe = "import cli, signal; assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    assert subprocess.run([sys.executable, "-c", probe], cwd=ROOT, check=False).returncode == 0


def test_words_that_are_not_utf_8_are_read_as_far_as_they_go(tiny_llama_dir: Path) -> None:
    common = ["--model", str(tiny_llama_dir), "--temperature", "0", "--max-tokens", "2", "--threads", "1"]
    given = os.fsdecode(b"caf\xe9")  # as Python hands on a command line
    asked = CliRunner().invoke(commands, ["generate", given, *common], catch_exceptions=False)
    assert asked.stdout.startswith("caf\ufffd")
    talked = CliRunner().invoke(commands, ["chat", *common], input=b"caf\xe9\n", catch_exceptions=False)
    assert talked.exit_code == 0


def test_generate_answers_in_json(tiny_llama_dir: Path) -> None:
    common = [
        "generate",
        "Hello",
        "--model",
        str(tiny_llama_dir),
        "--temperature",
        "0",
        "--max-tokens",
        "6",
        "--threads",
        "1",
    ]
    plain, asked = (CliRunner().invoke(commands, [*common, *more], catch_exceptions=False) for more in ([], ["--json"]))
    found = json.loads(asked.stdout)
    assert f"Hello{found['text']}\n" == plain.stdout
    assert found["usage"] == {"prompt_tokens": 1, "completion_tokens": 6, "total_tokens": 7}
    assert (found["finish_reason"], found["prompt"], found["model"]) == ("length", "Hello", tiny_llama_dir.name)


@pytest.mark.slow
def test_training_tells_its_result_in_json(tiny_llama_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text(
        "".join(
            json.dumps({"text": f"film {i} is {('dull', 'fine')[i % 2]}", "label": str(i % 2)}) + "\n"
            for i in range(60)
        )
    )
    quick = (
        "--set",
        "run.threads=1",
        "--set",
        "run.tensorboard=false",
        "--set",
        "optim.warmup_steps=1",
        "--set",
        "run.steps=2",
    )
    run = tmp_path / "run"
    common = [
        "finetune",
        "classify",
        str(tmp_path / "d.jsonl"),
        "--model",
        str(tiny_llama_dir),
        "--out",
        str(run),
        *quick,
        "--json",
    ]
    planned, done = (json.loads(CliRunner().invoke(commands, [*common, *more]).stdout) for more in (["--dry-run"], []))
    assert planned["updates"] == 2
    assert planned["parameters"] == planned["trained_parameters"] > 1_000_000
    assert done["model"] == str(run / "model")
    assert done["step"] == 2
    assert done["measures"]["validation_loss"] > 0
    assert Path(done["log"]).is_file()
