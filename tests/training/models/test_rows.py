"""Labelled rows: no test row, nor a part of one, is learned from."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest

from model.errors import ConfigError
from training.data.labelled import Labelled
from training.models.places import Places
from training.models.rows import FILES, unseen, write_rows


def row(text: str) -> Labelled:
    return Labelled(text, "pos", "here")


def test_rows_that_share_text_with_held_out_ones_go() -> None:
    held = [row("It's a charming and often affecting journey , to the end .")]
    gone = [
        "CHARMING",
        "often affecting",
        "a charming and often affecting",
        "We: charming and often affecting journey to win",
        "the end",
    ]
    kept = ["charming, affecting", "a charming and often boring journey to the end", "journey the end", "...", "ends"]
    assert [r.text for r in unseen(map(row, [*gone, *kept]), held)] == kept


@pytest.fixture
def here(tmp_path: Path) -> Places:
    folder = tmp_path / "classify"
    folder.mkdir()
    for label, word in (("neg", "dull"), ("pos", "fine")):
        lines = [f"number{i} tells how very {word} this film about{i} boats is" for i in range(200)]
        (folder / f"rt-polarity.{label}.txt").write_text("\n".join(lines))
    (folder / "sst2_dev.tsv").write_text(
        "label\tcontent\n1\tnumber3 tells how very fine this film about3 boats is\n0\tawful ending\n"
    )
    train = ["label\tsentence", "0\tawful ending", "0\tvery awful", *(f"1\tabout{i} boats is" for i in range(200))]
    with gzip.open(folder / "sst2_train.tsv.gz", "wt") as file:
        file.write("\n".join(train))
    spam = [f"{('ham', 'spam')[i % 2]}\tmessage {i}" for i in range(100)]
    (folder / "sms_spam.tsv").write_text("\n".join(spam))
    (tmp_path / "recipes").mkdir()
    recipe = '[data]\ncolumns = ["label", "text"]\ntest_fraction = 0.2\n'
    (tmp_path / "recipes" / "classify_sms.toml").write_text(recipe)
    return replace(Places(tmp_path, tmp_path / "work"), recipes=tmp_path / "recipes")


def test_rows_are_split_once_and_none_is_on_two_sides(here: Places) -> None:
    write_rows(here)
    written = {path.name: path.read_text().splitlines() for path in (here.work / "rows").iterdir()}
    assert set(written) == set(FILES)
    texts = {
        name: {json.loads(line)["text"] for line in lines} for name, lines in written.items() if name != "report.json"
    }
    assert len(texts["sms-train.jsonl"]) + len(texts["sms-test.jsonl"]) == 100
    assert not texts["sms-train.jsonl"] & texts["sms-test.jsonl"]
    train, test, validation, dev = (
        texts[f"{name}.jsonl"] for name in ("sentiment-train", "sentiment-test", "sentiment-validation", "sst2-dev")
    )
    assert dev == {"number3 tells how very fine this film about3 boats is", "awful ending"}
    assert 20 <= len(test) <= 60
    assert "very awful" in train
    assert "awful ending" not in train
    for text in (*test, *validation, *dev):
        assert text not in train
        assert " ".join(text.split()[-3:]) not in train  # SST-2's phrase of that sentence
    assert any(text.startswith("about") for text in train)
    assert json.loads("\n".join(written["report.json"]))["sms-test"] == len(texts["sms-test.jsonl"])
    before = written["sentiment-train.jsonl"]
    write_rows(here)
    assert (here.work / "rows" / "sentiment-train.jsonl").read_text().splitlines() == before


def test_a_recipe_without_test_rows_and_a_strange_label_are_refused(here: Places) -> None:
    (here.data / "classify" / "sst2_dev.tsv").write_text("label\tcontent\n2\tfine\n")
    with pytest.raises(ConfigError, match=r"sst2_dev.tsv, line 2: the label is '2'"):
        write_rows(here)
    (here.recipes / "classify_sms.toml").write_text('[data]\ncolumns = ["label", "text"]\n')
    with pytest.raises(ConfigError, match="test_fraction must be above 0"):
        write_rows(here)
    assert not (here.work / "rows").exists()
