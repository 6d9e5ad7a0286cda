"""`homegrown completion`: the scripts, read by the shells themselves."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli import COMMANDS, commands

ROOT = Path(__file__).parents[2]
# Each shell is asked what could follow, as its own completion asks.
BASH = """
{script}
COMP_WORDS=({words}); COMP_CWORD={last}
compopt() {{ :; }}
_homegrown_completion homegrown
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
FISH = """
{script}
complete -C {line}
"""
ZSH = """
compdef() {{ :; }}
_describe() {{ local -a found; found=("${{(@P)3}}"); print -l -- $found; }}
compadd() {{ local -a found; found=("${{(@P)${{@[-1]}}}}"); print -l -- $found; }}
_path_files() {{ :; }}
commands[homegrown]=homegrown
{script}
words=({words}); CURRENT={last}+1
_homegrown_completion
"""


@pytest.fixture(scope="module")
def bin_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `homegrown` is a command."""
    path = tmp_path_factory.mktemp("bin")
    (path / "homegrown").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m cli "$@"\n')
    (path / "homegrown").chmod(0o755)
    return path


def completed(shell: str, bin_directory: Path, *words: str) -> set[str]:
    """What the shell offers behind these words, the last of which is begun."""
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    done = CliRunner().invoke(commands, ["completion", shell], catch_exceptions=False)
    assert done.exit_code == 0
    said = ["homegrown", *words]
    listed, line = " ".join(map(shlex.quote, said)), shlex.quote(" ".join(said))
    form = {"bash": BASH, "fish": FISH, "zsh": ZSH}[shell]
    text = form.format(script=done.stdout, words=listed, last=len(words), line=line)
    environment = {
        **os.environ,
        "PATH": f"{bin_directory}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(bin_directory),
    }
    ran = subprocess.run(
        [shell, *(["-f"] if shell == "zsh" else ["--norc"] if shell == "bash" else []), "-c", text],
        capture_output=True, text=True, env=environment, timeout=120, check=False,
    )  # fmt: skip
    assert "rror" not in ran.stderr, ran.stderr
    return {answer.split("\t")[0].split(":")[0] for answer in ran.stdout.splitlines() if answer}


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes(shell: str, bin_directory: Path) -> None:
    assert completed(shell, bin_directory, "") == set(COMMANDS)
    assert completed(shell, bin_directory, "ge") == {"generate"}
    assert completed(shell, bin_directory, "completion", "") == {"bash", "zsh", "fish"}
    assert completed(shell, bin_directory, "generate", "--quant") == {"--quantize"}
    assert "homegrown-base" in completed(shell, bin_directory, "chat", "--model", "homegrown")


def test_bash_completes_commands(bin_directory: Path) -> None:
    assert completed("bash", bin_directory, "c") == {"chat", "classify", "completion"}


def test_an_unknown_shell_is_a_usage_error() -> None:
    done = CliRunner().invoke(commands, ["completion", "tcsh"])
    assert done.exit_code == 2
    assert "'bash', 'zsh', 'fish'" in done.output
