"""The command line: help that answers at once, and mistakes that are one line with exit code 1."""

import subprocess
import sys
from pathlib import Path

import pytest

from cli import COMMANDS

ROOT = Path(__file__).parents[2]


def homegrown(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    return subprocess.run(
        [sys.executable, "-m", "cli", *arguments],
        capture_output=True, text=True, timeout=120, cwd=ROOT, env={**os.environ, **environment}, check=False,
    )  # fmt: skip


def refused(*arguments: str, **environment: str) -> str:
    """The one line that a mistake gives."""
    done = homegrown(*arguments, **environment)
    assert done.returncode == 1, done
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("homegrown: ")
    return done.stderr


def test_help_lists_every_command_and_loads_nothing_heavy() -> None:
    done = homegrown("--help")
    assert done.returncode == 0
    for command in COMMANDS:
        assert f"\n  {command} " in done.stdout
    probe = "import sys, cli; print([m for m in ('torch', 'fastapi', 'transformers') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=ROOT).stdout.strip() == "[]"
    )


def test_serve_help_names_every_setting() -> None:
    from app.settings import Settings

    text = " ".join(homegrown("serve", "--help").stdout.split())
    for name, field in Settings.model_fields.items():
        assert f"--{name.replace('_', '-')}" in text
        assert field.description


def test_print_config_shows_who_wins(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('port = 7001\nmax_queue = 7\nlog_level = "warning"\n')
    done = homegrown(
        "serve", "--config", str(tmp_path / "c.toml"), "--log-level", "error", "--print-config",
        HOMEGROWN_PORT="7002", HOMEGROWN_LOG_LEVEL="debug",
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert {"port = 7002", "max_queue = 7", 'log_level = "error"', "drain_timeout = 30.0"} <= set(lines)


def test_print_config_reads_as_the_same_settings(tmp_path: Path) -> None:
    from app.settings import load_settings

    given = {
        "aliases": "a b=x,ü=y/z",
        "cors_origins": "https://a.example",
        "adapters_dir": "some dir",
        "max_slots": "3",
    }
    flags = [part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", value)]
    (tmp_path / "c.toml").write_text(homegrown("serve", "--print-config", *flags).stdout, "utf-8")
    assert load_settings({}, tmp_path / "c.toml") == load_settings(given)


def test_a_key_is_never_printed() -> None:
    done = homegrown("serve", "--print-config", HOMEGROWN_API_KEY="sesame-open")
    assert done.returncode == 0
    assert "sesame" not in done.stdout + done.stderr
    assert "# api_key is set" in done.stdout


@pytest.mark.parametrize(("arguments", "said"), [
    (("serve", "--port", "many"), "--port"),
    (("serve", "--model", "no/such"), "no/such"),
    (("serve", "--config", "nowhere.toml"), "nowhere.toml"),
    (("serve", "--host", "0.0.0.0"), "api_key"),
    (("generate", "Hello", "--model", "no/such"), "no/such"),
    (("generate", "Hello", "--temperature", "3"), "temperature must be from 0 to 2"),
    (("pretrain", "nowhere.toml", "--out", "x"), "nowhere.toml"),
    (("pretrain", "training/recipes/cpu_base.toml", "--out", "/proc/x", "--corpus", "nowhere.txt"), "/proc/x"),
    (("tokenizer", "train", "nowhere.txt", "--out", "x.json"), "nowhere.txt: no such file"),
    (("import", "nowhere.gguf", "x"), "nowhere.gguf"),
])  # fmt: skip
def test_a_mistake_is_one_line(arguments: tuple[str, ...], said: str) -> None:
    assert said in refused(*arguments)


def test_an_unknown_preset_lists_the_presets(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("\n<|endoftext|>\n".join(f"A short text, number {i}." for i in range(300)))
    (tmp_path / "r.toml").write_text('[data]\nvocab_size = 300\n[model]\npreset = "gpt5"\n[run]\nsteps = 1\n')
    recipe = (
        "pretrain",
        str(tmp_path / "r.toml"),
        "--corpus",
        str(tmp_path / "corpus.txt"),
        "--out",
        str(tmp_path / "run"),
    )
    text = refused(*recipe)
    assert "no preset 'gpt5'" in text
    assert "smollm2-135m" in text


def test_generate_prints_text_and_a_seed_repeats_it(tiny_llama_dir: Path) -> None:
    runs = [
        homegrown(
            "generate", "Once upon", "--model", str(tiny_llama_dir), "--max-tokens", "12", "--seed", s, "--threads", "2"
        )
        for s in "112"
    ]
    assert all(run.returncode == 0 for run in runs), runs
    assert all(run.stdout.startswith("Once upon") for run in runs)
    assert runs[0].stdout == runs[1].stdout != runs[2].stdout


def test_a_chat_answer_of_a_base_model_ends_before_the_next_turn(tmp_path: Path) -> None:
    """The plain template is a transcript: what would begin the user's next line ends the answer, and isn't shown."""
    for path in (ROOT / "checkpoints" / "homegrown-base").iterdir():
        if path.is_file():  # but for the adapters that it may carry: one tuned to answer would do so
            (tmp_path / path.name).symlink_to(path)
    done = homegrown(
        "generate", "Where is the dog?", "--model", str(tmp_path), "--chat", "--seed", "3", "--max-tokens", "60"
    )
    assert done.returncode == 0
    assert done.stdout.strip()
    assert not any(f"\n\n{role}:" in done.stdout for role in ("User", "System", "Assistant"))
