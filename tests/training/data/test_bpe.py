"""A tokenizer trained on a corpus."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Reference

from model.errors import ConfigError
from model.tokenizer import Tokenizer
from training.data import bpe as module
from training.data.bpe import train_bpe
from training.errors import DataError


def test_it_is_of_the_size_asked_and_shortens_text(bpe: Path, documents: list[str]) -> None:
    tokenizer = Tokenizer.from_file(bpe)
    assert tokenizer.vocab_size == 300
    assert (tokenizer.eos_token_id, tokenizer.special_tokens) == (0, {"<|endoftext|>": 0})
    assert len(tokenizer.encode(documents[6])) < len(documents[6].encode()) / 2


@given(st.text())
def test_it_is_lossless_and_what_the_library_makes_of_it(bpe: Path, text: str) -> None:
    ours, theirs = Tokenizer.from_file(bpe), Reference.from_file(str(bpe))
    theirs.encode_special_tokens = True
    ids = ours.encode(text)
    assert ours.decode(ids) == text
    assert ids == theirs.encode(text).ids


def test_merges_come_by_frequency_and_the_corpus_alone_decides(tmp_path: Path) -> None:
    text = ["ab ab ab ab cd cd cd xy xy z"]
    train_bpe(text, 260, tmp_path / "a.json")
    model = json.loads((tmp_path / "a.json").read_text())["model"]
    assert [tuple(merge) for merge in model["merges"]] == [("a", "b"), ("c", "d"), ("Ġ", "ab")]
    train_bpe(iter(text), 260, tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_a_long_document_counts_as_if_whole(
    tmp_path: Path, documents: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train_bpe(["\n".join(documents)], 290, tmp_path / "whole.json")
    monkeypatch.setattr(module, "_PART", 3)
    train_bpe(["\n".join(documents)], 290, tmp_path / "parts.json")
    assert (tmp_path / "whole.json").read_bytes() == (tmp_path / "parts.json").read_bytes()


def test_special_tokens_are_made_of_text_only_when_allowed(tmp_path: Path, documents: list[str]) -> None:
    train_bpe([*documents, "<|user|>" * 50], 300, tmp_path / "t.json", special_tokens=["<|user|>", "<|model|>"])
    tokenizer = Tokenizer.from_file(tmp_path / "t.json")
    assert tokenizer.special_tokens == {"<|endoftext|>": 0, "<|user|>": 1, "<|model|>": 2}
    assert tokenizer.vocab_size == 300
    assert tokenizer.encode("<|user|>", allow_special=True) == [1]
    assert 1 not in tokenizer.encode("<|user|>")


@pytest.mark.parametrize(("size", "special", "said"), [
    (256, [], "at least 257"),
    (258, ["<a>", "<b>"], "at least 259"),
    (300, ["<a>", "<a>"], "a text of its own"),
    (300, ["<|endoftext|>"], "a text of its own"),
    (300, [""], "a text of its own"),
])  # fmt: skip
def test_settings_that_can_not_be(tmp_path: Path, size: int, special: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        train_bpe(["ab ab"], size, tmp_path / "t.json", special_tokens=special)


def test_a_corpus_too_small_for_the_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"they make 258; set vocab_size to that or less"):
        train_bpe(["ab ab cd"], 300, tmp_path / "t.json")
    assert not list(tmp_path.iterdir())
