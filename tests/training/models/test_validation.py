"""What measures of the base's own corpus: the documents kept back, less what others share with them; and what is known before."""

import json
import random
from pathlib import Path

import pytest
from tiny_course import WORDS

from model.errors import ConfigError
from training.data.bpe import train_bpe
from training.data.held_out import HeldOut
from training.data.shards import split_of, write_shards
from training.models.places import Places
from training.models.planned import check_planned
from training.models.validation import write_validation

RECIPES = Path(__file__).parents[3] / "training" / "recipes"


def test_passages_that_a_training_document_has_too_are_taken_out(tmp_path: Path) -> None:
    rng = random.Random(1)
    texts = [" ".join(rng.choice(WORDS) for _ in range(400)) + " – naïve 海" for _ in range(60)]
    shared = " ".join(rng.choice(WORDS) for _ in range(20))
    middle = len(texts[0]) // 2
    texts = [f"{text[:middle]} {shared} {text[middle:]}" if i % 2 else text for i, text in enumerate(texts)]
    train_bpe(texts, 280, tmp_path / "tokenizer.json")
    write_shards(
        texts,
        tmp_path / "tokenizer.json",
        tmp_path / "shards",
        corpus=["made up"],
        validation_fraction=0.2,
        seed=0,
        threads=1,
    )
    kept_back = [text for text in texts if split_of(text, 0.2, 0) == "validation"]
    sharing = [text for text in kept_back if shared in text]
    assert 0 < len(sharing) < len(kept_back)
    written = write_validation(tmp_path, tmp_path / "out")
    parts = [json.loads(line)["text"] for line in (written / "documents.jsonl").read_text("utf-8").splitlines()]
    assert len(parts) == len(kept_back) + len(sharing)  # what stands before and behind
    assert {text for text in kept_back if text not in sharing} <= set(parts)
    learned = HeldOut(text for text in texts if text not in kept_back)
    assert not any(learned.passages(part) for part in parts)
    report = json.loads((written / "report.json").read_text())
    assert report["documents"] == len(kept_back)
    assert report["documents that shared a passage"] == len(sharing)
    assert report["bytes"] == sum(len(part.encode()) for part in parts)
    assert report["bytes"] + report["bytes taken out"] == sum(len(text.encode()) for text in kept_back)
    assert 0 < report["bytes taken out"] < len(sharing) * (len(shared) + 420)


def test_recipes_whose_models_would_be_too_large_are_refused_before_the_hours(places: Places, tmp_path: Path) -> None:
    recipes = tmp_path / "planned"
    recipes.mkdir()
    for path in RECIPES.glob("*.toml"):
        (recipes / path.name).write_text(path.read_text("utf-8"), "utf-8")
    places = Places(places.data, places.work, recipes=recipes)
    check_planned(places)  # what the repository has fits
    instruct = (recipes / "instruct.toml").read_text("utf-8")
    (recipes / "instruct.toml").write_text(instruct.replace("rank = 64", "rank = 128"), "utf-8")
    with pytest.raises(ConfigError, match=r"would take 5\d\.\d MB together.*instruct 22\.\d"):
        check_planned(places)
