"""Going on from a model that there is: its tokenizer kept, the new text and general text measured before and after; and what a
resumption refuses."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import TINY, write_inputs
from safetensors.torch import load_file
from tiny import random_model

from model.checkpoint import load_model, save_model
from model.errors import CheckpointError, ConfigError, HomegrownError
from model.gpt import GPT
from model.tokenizer import Tokenizer
from training import pretrain_measures
from training.data.shards import read_manifest
from training.errors import DataError, TrainingError
from training.evaluate.corpus import tokenize_stream
from training.evaluate.perplexity import score_documents
from training.evaluate.scoring import Scorer
from training.pretrain import pretrain
from training.pretrain_measures import HELD_OUT, Measures, labelled
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
    assert before["scores"]["corpus.txt"]["nats"] == pytest.approx(expected.nats, rel=1e-4)
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


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_flipped_bit_of_the_data_is_found(base: Path, split: str) -> None:
    run, corpus = base.parent, base.parents[1] / "corpus.txt"
    path = run / "data" / "shards" / f"{split}-00000.bin"
    kept = path.read_bytes()
    path.write_bytes(kept[:100] + bytes([kept[100] ^ 1]) + kept[101:])
    with pytest.raises(DataError, match=rf"{path.name}: its content isn't what was written"):
        pretrain(settings(corpus), run, resume=True)
    path.write_bytes(kept)


def test_a_start_is_measured_again_only_when_it_or_a_text_differs(
    base: Path, continued: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[Path] = []
    scores = Measures.scores
    monkeypatch.setattr(Measures, "scores", lambda self, model: measured.append(self.before) or scores(self, model))
    data, model = continued / "data", load_model(base)
    assert isinstance(model, GPT)
    (tmp_path / "more").mkdir()
    general = base.parents[1] / "corpus.txt"
    other = tmp_path / "more" / "corpus.txt"
    other.write_text("Something else.\n<|endoftext|>\nAnd more of it.\n")

    def measures(*texts: Path, start: Path = base) -> Measures:
        wanted = PretrainSettings.model_validate(
            {"data": {"general": [str(text) for text in texts]}, "model": {"start": str(start)}, "run": {"steps": 1}}
        )
        shards = data / "shards"
        tokenizer = Tokenizer.from_directory(base)
        return Measures(wanted, shards, read_manifest(shards), tokenizer, torch.device("cpu"), tmp_path / "before.json")

    def measure(*texts: Path, start: Path = base) -> int:
        measured.clear()
        measures(*texts, start=start).measure_start(model)
        return len(measured)

    (tmp_path / "before.json").write_bytes((continued / "before.json").read_bytes())
    assert measure(general) == 0
    assert measure(general, other) == 1
    assert measure(general, other) == 0
    kept = json.loads((tmp_path / "before.json").read_text())["scores"]
    names = {f"{general.parent.name}/corpus.txt", "more/corpus.txt"}  # one name, two texts: neither hides the other
    assert set(kept) == {HELD_OUT, *names}
    assert len({kept[name]["nats"] for name in names}) == 2
    other.write_text("Something else again.\n")
    assert measure(general, other) == 1
    shutil.copytree(base, tmp_path / "copy")
    assert measure(general, other, start=tmp_path / "copy") == 0
    save_model(random_model(model.config), tmp_path / "copy")
    assert measure(general, other, start=tmp_path / "copy") == 1
    (tmp_path / "before.json").write_text("{")
    assert measure(general) == 1


def test_a_text_is_parted_where_its_own_documents_begin(base: Path, continued: Path) -> None:
    """Which is at BOS for general text where the tokenizer has one, though shards have end-of-text tokens."""
    model, tokenizer, shards = load_model(base), Tokenizer.from_directory(base), continued / "data" / "shards"
    assert isinstance(model, GPT)
    wanted = PretrainSettings.model_validate({"run": {"steps": 1}})
    measures = Measures(
        wanted, shards, read_manifest(shards), tokenizer, torch.device("cpu"), continued / "before.json"
    )
    tokens = np.array([7, 20, 21, 22, 7, 23, 24, 25, 26])
    assert measures.eot == 0
    expected = score_documents(Scorer(model, progress=False), tokens, 7)
    assert measures.score(model, tokens) == expected
    assert expected != score_documents(Scorer(model, progress=False), tokens, 0)


def test_measures_are_taken_on_the_runs_device(base: Path, continued: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[str] = []
    monkeypatch.setattr(GPT, "to", lambda self, device: moved.append(str(device)) or self)
    model, tokenizer, shards = load_model(base), Tokenizer.from_directory(base), continued / "data" / "shards"
    assert isinstance(model, GPT)
    wanted = PretrainSettings.model_validate({"run": {"steps": 1}})
    device = torch.device("cuda:3")
    moved.clear()
    Measures(wanted, shards, read_manifest(shards), tokenizer, device, continued / "before.json").scores(model)
    assert moved == ["cuda:3", "cpu"]


def test_general_text_is_checked_before_the_corpus_is_read(base: Path, tmp_path: Path) -> None:
    corpus = base.parents[1] / "corpus.txt"
    (tmp_path / "r.toml").write_text("[run]\nsteps = 2\n")
    data = {"corpus": [str(corpus)], "general": [str(tmp_path / "none.txt")]}
    with pytest.raises(ConfigError, match=r"r\.toml: Value error, data\.general .* model\.start"):
        PretrainSettings.from_toml(tmp_path / "r.toml", {"data": data})
    made = PretrainSettings.from_toml(tmp_path / "r.toml", {"data": data, "model": {"start": str(base)}})
    with pytest.raises(DataError, match=r"none\.txt: no such file"):
        pretrain(made, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_general_texts_are_told_apart() -> None:
    assert labelled(["a/x.txt", "b/y.txt"]) == {"x.txt": "a/x.txt", "y.txt": "b/y.txt"}
    assert labelled(["a/x.txt", "b/x.txt", "./a/x.txt"]) == {"a/x.txt": "./a/x.txt", "b/x.txt": "b/x.txt"}
    assert labelled(["x.txt", "/a/x.txt", "."]) == {"x.txt": "x.txt", "a/x.txt": "/a/x.txt", ".": "."}
    assert labelled([]) == {}


def test_a_result_is_not_lost_for_its_baselines_and_what_was_left_lying_goes(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, corpus = base.parent, base.parents[1] / "corpus.txt"
    left = [run / ".model.999999999.abcdefgh.stage", run / "data" / ".shards.999999999.abcdefgh.stage"]
    for path in left:
        path.mkdir()
    monkeypatch.setattr(pretrain_measures, "_NGRAM_TOKENS", 1234)
    pretrain(settings(corpus), run, resume=True)
    card = (base / "README.md").read_text()
    assert "5-gram" in card
    assert "They are of its first 1,234 tokens alone" in card
    assert not any(path.exists() for path in left)

    def full(*_: Any) -> None:
        raise MemoryError("Unable to allocate 9 TiB")

    monkeypatch.setattr(pretrain_measures, "baselines", full)
    (base / "README.md").unlink()
    pretrain(settings(corpus), run, resume=True)
    card = (base / "README.md").read_text()
    assert "The n-gram models could not be made (MemoryError: Unable to allocate 9 TiB)" in card
    assert "this model" in card


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
