"""The messages' split, as the recipe has it."""

import json
from pathlib import Path

import pytest

from model.errors import ConfigError
from training.classify_recipe import ClassifySettings
from training.data.labelled import read_data
from training.models.sms import write_sms

RECIPE = '[data]\ncolumns = ["label", "text"]\ntest_fraction = 0.2\n'


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "classify").mkdir()
    lines = [f"{('ham', 'spam')[i % 2]}\tmessage {i} — \u00a3{i}" for i in range(100)]
    (tmp_path / "classify" / "sms_spam.tsv").write_text("\n".join([*lines, lines[0]]), "utf-8")
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return tmp_path / "recipe.toml"


def test_the_rows_are_those_of_the_run(recipe: Path, tmp_path: Path) -> None:
    written = write_sms(tmp_path, tmp_path / "out", recipe)
    train, test = (
        [json.loads(line) for line in (written / f"{side}.jsonl").read_text("utf-8").splitlines()]
        for side in ("train", "test")
    )
    settings = ClassifySettings.from_toml(recipe)
    data = read_data(settings.data, [tmp_path / "classify" / "sms_spam.tsv"], seed=0)
    assert test == [{"text": row.text, "label": row.label} for row in data.test]
    assert len(train) + len(test) == 100
    assert not {row["text"] for row in train} & {row["text"] for row in test}
    assert json.loads((written / "report.json").read_text()) == {
        "train.jsonl": {"rows": len(train)},
        "test.jsonl": {"rows": len(test)},
        "test_apart.jsonl": {"rows": len(test)},  # messages of three words
    }


def test_copies_of_messages_that_train_are_told_from_the_others(recipe: Path, tmp_path: Path) -> None:
    series = [f"spam\tYou won prize {i}! Call us now to claim it today" for i in range(100)]
    alone = [f"ham\tmessage{i} alone{i} and of{i} words{i} that{i} nobody{i} else{i} has{i}" for i in range(100)]
    (tmp_path / "classify" / "sms_spam.tsv").write_text("\n".join(series + alone), "utf-8")
    written = write_sms(tmp_path, tmp_path / "out", recipe)
    test, apart = (
        [json.loads(line)["text"] for line in (written / f"{side}.jsonl").read_text("utf-8").splitlines()]
        for side in ("test", "test_apart")
    )
    assert any(text.startswith("You won") for text in test)
    assert apart == [text for text in test if text.startswith("message")]
    assert apart


def test_a_recipe_without_test_rows_is_refused_and_nothing_is_written(recipe: Path, tmp_path: Path) -> None:
    recipe.write_text(RECIPE.replace("0.2", "0.0"))
    with pytest.raises(ConfigError, match=r"recipe.toml: data.test_fraction must be above 0"):
        write_sms(tmp_path, tmp_path / "out", recipe)
    assert not (tmp_path / "out").exists()
