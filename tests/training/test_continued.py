"""Going on from a model that there is: its tokenizer kept, the new text and general text measured before and after; and what a
resumption refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
from runs import TINY, write_inputs
from safetensors.torch import load_file

from model.checkpoint import load_model
from model.errors import CheckpointError, ConfigError, HomegrownError
from model.gpt import GPT
from model.tokenizer import Tokenizer
from training.errors import DataError, TrainingError
from training.evaluate.corpus import tokenize_stream
from training.evaluate.perplexity import score_documents
from training.evaluate.scoring import Scorer
from training.pretrain import pretrain
from training.pretrain_recipe import PretrainSettings

LINES = ["The harbour was quiet.", "A boat came in at noon.", "Nobody sold fish.", "My uncle lost the new boat."]


def settings(corpus: Path, **changes: dict[str, Any]) -> PretrainSettings:
    recipe = corpus.parent / "recipe.toml"
    recipe.write_text(TINY.replace("steps = 120", "steps = 12"))
    overrides = {"data": {"corpus": [str(corpus)], **changes.pop("data", {})}, **changes}
    return PretrainSettings.from_toml(recipe, overrides)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of made-up sentences."""
    directory = tmp_path_factory.mktemp("base")
    _, corpus = write_inputs(directory)
    return pretrain(settings(corpus), directory / "run")


@pytest.fixture(scope="module")
def continued(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("continued")
    (directory / "harbour.txt").write_text("\n<|endoftext|>\n".join(f"{i}. {' '.join(LINES * 4)}" for i in range(60)))
    recipe = directory / "recipe.toml"
    recipe.write_text(TINY.replace("steps = 120", "steps = 12").replace('preset = "homegrown-4m"', f'start = "{base}"'))
    recipe.write_text("\n".join(line for line in recipe.read_text().splitlines() if not line.startswith("changes")))
    corpus, general = directory / "harbour.txt", base.parents[1] / "corpus.txt"
    made = PretrainSettings.from_toml(recipe, {"data": {"corpus": [str(corpus)], "general": [str(general)]}})
    pretrain(made, directory / "run")
    return directory / "run"


def test_it_starts_where_the_base_ended(base: Path, continued: Path) -> None:
    before = json.loads((continued / "before.json").read_text())
    general = base.parents[1] / "corpus.txt"
    tokenizer, model = Tokenizer.from_directory(base), load_model(base)
    assert isinstance(model, GPT)
    documents = general.read_text().split("\n<|endoftext|>\n")
    tokens = tokenize_stream(documents, tokenizer, threads=1)
    expected = score_documents(Scorer(model, progress=False), tokens, int(tokens[0]))
    assert before["corpus.txt"]["nats"] == pytest.approx(expected.nats, rel=1e-4)
    assert Tokenizer.from_directory(continued / "model").encode("My boat") == tokenizer.encode("My boat")


def test_the_new_text_is_learned_and_both_changes_are_shown(continued: Path) -> None:
    card = (continued / "model" / "README.md").read_text()
    table = [line.split("|") for line in card.splitlines() if line.startswith(("| the new text", "| corpus.txt"))]
    (_, _, before, after, *_), (_, _, general_before, general_after, *_) = table
    assert float(after) < 0.5 * float(before)
    assert float(general_after) != float(general_before)
    assert "What the new text changed" in (continued / "report.html").read_text()


def test_a_resumption_refuses_another_shape_or_other_data(base: Path, tmp_path: Path) -> None:
    run = base.parent
    corpus = base.parents[1] / "corpus.txt"
    weights = run / "states" / "step-00000012" / "weights.safetensors"
    kept = weights.read_bytes()
    with pytest.raises(TrainingError, match=r"was saved by another run \(model was"):
        pretrain(settings(corpus, model={"changes": {"n_layer": 3}}), run, resume=True)
    with pytest.raises(ConfigError, match=r"validation_fraction changed"):
        pretrain(settings(corpus, data={"validation_fraction": 0.3}), run, resume=True)
    other = tmp_path / "corpus.txt"
    other.write_text(corpus.read_text() + "\n<|endoftext|>\nOne more.\n")
    with pytest.raises(ConfigError, match=r"the files changed"):
        pretrain(settings(other), run, resume=True)
    assert weights.read_bytes() == kept


def test_damage_is_found_before_it_is_used(base: Path) -> None:
    run, corpus = base.parent, base.parents[1] / "corpus.txt"
    for path, error, said in (
        (run / "states" / "step-00000012" / "optimizer.safetensors", CheckpointError, "damaged or missing"),
        (next((run / "data" / "shards").glob("train*.bin")), DataError, "delete"),
    ):
        kept = path.read_bytes()
        path.write_bytes(kept[:-8])
        with pytest.raises(error, match=said) as caught:
            pretrain(settings(corpus), run, resume=True)
        assert path.name in str(caught.value) or str(path.parent) in str(caught.value)
        path.write_bytes(kept)
    assert load_file(run / "states" / "step-00000012" / "weights.safetensors")


@pytest.mark.parametrize(("model", "said"), [
    ({"start": "no-such-model"}, "no-such-model"),
    ({"start": "homegrown-base", "preset": "gpt2"}, "start brings its own shape"),
    ({"changes": {"n_layers": 3}}, "n_layers"),
    ({"preset": "gpt9"}, "gpt9"),
])  # fmt: skip
def test_a_model_that_there_is_not(tmp_path: Path, model: dict[str, Any], said: str) -> None:
    _, corpus = write_inputs(tmp_path)
    (tmp_path / "plain.toml").write_text("[run]\nsteps = 2\n[data]\nvocab_size = 300\n")

    def begin() -> None:
        made = PretrainSettings.from_toml(tmp_path / "plain.toml", {"data": {"corpus": [str(corpus)]}, "model": model})
        pretrain(made, tmp_path / "run")

    with pytest.raises(HomegrownError, match=said) as caught:
        begin()
    assert "\n" not in str(caught.value)
