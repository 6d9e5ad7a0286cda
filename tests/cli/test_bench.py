"""`homegrown bench`: figures that hang together, and mistakes that are told."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli import commands
from cli.benching import table
from model.errors import HomegrownError

SHORT = ("--threads", "1", "--rounds", "2", "--prompt-tokens", "16", "--new-tokens", "64")


def bench(*arguments: str | Path) -> Result:
    return CliRunner().invoke(commands, ["bench", *map(str, arguments)])


def test_the_figures_hang_together(tiny_llama_dir: Path) -> None:
    done = bench("--model", tiny_llama_dir, *SHORT, "--streams", "4,1,4", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert [row["streams"] for row in found["streams"]] == [1, 4]
    for row in found["streams"]:
        for name in ("prompt_tokens_per_second", "decode_tokens_per_second", "first_token_ms"):
            spread = row[name]
            assert 0 < spread["lowest"] <= spread["median"] <= spread["highest"]
        # The first token of the last prompt came no later than all of them took.
        slowest = 1000 * row["streams"] * 16 / row["prompt_tokens_per_second"]["lowest"]
        assert row["first_token_ms"]["lowest"] <= slowest * 1.01
        assert row["memory_mb"] > 50
    assert found["parameters"] == pytest.approx(50257 * 32, rel=0.05)
    assert found["others_busy"] is None or found["others_busy"] >= 0
    text = table(found)
    assert "1.6 M parameters" in text
    assert len([line for line in text.splitlines() if line.strip()[:1].isdigit()]) == 2


def test_mistakes_are_told(tiny_llama_dir: Path) -> None:
    for streams in ("0", "a", "", "1,,2"):
        assert bench("--streams", streams).exit_code == 2
    done = bench("--model", tiny_llama_dir, "--prompt-tokens", "100", "--new-tokens", "100")
    assert isinstance(done.exception, HomegrownError)
    assert "don't fit the model's 128; lower --prompt-tokens" in str(done.exception)
