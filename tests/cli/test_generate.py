"""`homegrown generate` with the adapters that a model carries, and with templates."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from oracle import make_adapters

from cli.generate import generate
from model.errors import ConfigError, HomegrownError

SHORT = ("--max-tokens", "8", "--temperature", "0", "--threads", "1")


@pytest.fixture(scope="module")
def trunk(tiny_llama_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that carries `helper`, tuned to answer, and the classifier `mood`."""
    trunk = shutil.copytree(tiny_llama_dir, tmp_path_factory.mktemp("carrying") / "trunk")
    made = make_adapters(tiny_llama_dir, tmp_path_factory.mktemp("made"))
    shutil.copytree(made["one"], trunk / "adapters" / "helper")
    shutil.copytree(made["mood"], trunk / "adapters" / "mood")
    (trunk / "adapters" / "helper" / "chat_template.jinja").write_text(
        "{% for m in messages %}({{ m.content }}){% endfor %}"
    )
    (trunk / "adapters" / "helper" / "instruction_template.jinja").write_text("{{ instruction }} of {{ input }}:")
    return trunk


def run(trunk: Path, prompt: str, *arguments: str) -> str:
    """What it prints."""
    done = CliRunner().invoke(generate, [prompt, "--model", str(trunk), *SHORT, *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_tuned_adapter_answers_and_continues_when_it_or_its_directory_is_named(trunk: Path) -> None:
    instructed, chatted = run(trunk, "Sing", "--instruct", "--input", "love"), run(trunk, "Hello", "--chat")
    assert f"Sing of love:{instructed}" == run(trunk, "Sing of love:", "--adapter", "helper")
    assert f"(Hello){chatted}" == run(trunk, "(Hello)", "--adapter", str(trunk / "adapters" / "helper"))
    assert f"(Hello){chatted}" != run(trunk, "(Hello)")


def test_what_cannot_generate_is_told(trunk: Path) -> None:
    with pytest.raises(
        ConfigError, match="adapter: nobody is no adapter's directory, and the model carries helper, mood"
    ):
        run(trunk, "Sing", "--adapter", "nobody")
    with pytest.raises(HomegrownError, match="mood: is a classifier"):
        run(trunk, "Sing", "--adapter", "mood")
    for wrong in (("--chat", "--instruct"), ("--input", "a"), ("--chat", "--input", "a")):
        assert CliRunner().invoke(generate, ["Sing", *wrong]).exit_code == 2
