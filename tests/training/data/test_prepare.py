"""A run's data: made once, used again by the same settings, refused by others."""

import json
import lzma
from pathlib import Path
from typing import Any

import pytest
from tiny import save_tiny

from model.errors import ConfigError
from training.data.prepare import prepare_data
from training.pretrain_recipe import PretrainSettings


@pytest.fixture
def corpus(tmp_path: Path, documents: list[str]) -> Path:
    rows = [json.dumps({"text": text, "title": text[:30]}) for text in documents]
    (tmp_path / "corpus.jsonl").write_text("\n".join(rows))
    return tmp_path / "corpus.jsonl"


def settings(corpus: Path, model: dict[str, Any] | None = None, **data: Any) -> PretrainSettings:
    given = {"corpus": [str(corpus)], "vocab_size": 300, "validation_fraction": 0.2, **data}
    return PretrainSettings.model_validate({"data": given, "model": model or {}, "run": {"steps": 1}})


def test_what_was_made_is_used_again(tmp_path: Path, corpus: Path) -> None:
    made = prepare_data(settings(corpus), tmp_path / "data")
    stamp = (tmp_path / "data" / "shards" / "train-00000.bin").stat().st_mtime_ns
    assert prepare_data(settings(corpus), tmp_path / "data") == made
    assert (tmp_path / "data" / "shards" / "train-00000.bin").stat().st_mtime_ns == stamp


def test_each_changed_setting_is_named(tmp_path: Path, corpus: Path, bpe: Path) -> None:
    prepare_data(settings(corpus), tmp_path / "data")
    base = save_tiny(tmp_path / "base", "gpt2")
    for changed, name in (
        (settings(corpus, vocab_size=301), "data.vocab_size"),
        (settings(corpus, field="title"), "data.field"),
        (settings(corpus, tokenizer=str(bpe)), "data.tokenizer, data.vocab_size"),
        (settings(corpus, {"start": str(base)}), "model.start, data.vocab_size"),
        (settings(corpus, validation_fraction=0.3), "validation_fraction"),
        (settings(corpus, filters={"min_chars": 5}), "data.filters"),
    ):
        with pytest.raises(ConfigError, match="prepared with other data settings") as caught:
            prepare_data(changed, tmp_path / "data")
        assert f"({name} changed)" in str(caught.value)


def test_a_tokenizer_file_is_known_by_its_content(tmp_path: Path, corpus: Path, bpe: Path) -> None:
    own = tmp_path / "own.json"
    own.write_bytes(bpe.read_bytes())
    prepare_data(settings(corpus, tokenizer=str(own)), tmp_path / "data")
    prepare_data(settings(corpus, tokenizer=str(bpe), vocab_size=777), tmp_path / "data")  # the size goes unused
    own.write_text(own.read_text() + "\n")
    with pytest.raises(ConfigError, match=r"\(data\.tokenizer changed\)"):
        prepare_data(settings(corpus, tokenizer=str(own)), tmp_path / "data")
    own.unlink()
    with pytest.raises(ConfigError, match=r"own\.json: no such file; data\.tokenizer"):
        prepare_data(settings(corpus, tokenizer=str(own)), tmp_path / "data")


def test_shards_that_do_not_say_what_was_asked_for_are_made_again(tmp_path: Path, corpus: Path) -> None:
    prepare_data(settings(corpus), tmp_path / "data")
    path = tmp_path / "data" / "shards" / "manifest.json"
    content = json.loads(path.read_text())
    del content["asked"]
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"data\.field, data\.filters\.held_out changed\); delete it"):
        prepare_data(settings(corpus), tmp_path / "data")


def test_a_missing_tokenizer_and_another_file_are_named(tmp_path: Path, corpus: Path) -> None:
    prepare_data(settings(corpus), tmp_path / "data")
    packed = tmp_path / "corpus.jsonl.xz"
    packed.write_bytes(lzma.compress(corpus.read_bytes()))
    with pytest.raises(ConfigError, match="the files changed"):
        prepare_data(settings(packed), tmp_path / "data")
    (tmp_path / "data" / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match="the tokenizer changed"):
        prepare_data(settings(corpus), tmp_path / "data")
