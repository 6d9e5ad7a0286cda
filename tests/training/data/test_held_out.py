"""Text that models are measured on is found in a corpus and cut out of it."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.account import Account
from training.data.filters import FilterSettings, filtered
from training.data.held_out import MARGIN, RUN, HeldOut, held_out
from training.errors import DataError

WORDS = [f"word{i}" for i in range(400)]
SECRET = " ".join(f"secret{i}" for i in range(30))


def around(passage: str, *, words: int = 200) -> str:
    """A document with the passage in its middle."""
    return f"{' '.join(WORDS[:words])}. {passage}! {' '.join(WORDS[words:])}"


def test_a_passage_and_its_margins_are_cut_out() -> None:
    document = around(SECRET)
    first, second = HeldOut([SECRET]).cut(document)
    at = document.index(SECRET)
    assert first == document[: at - MARGIN]
    assert second == document[at + len(SECRET) + MARGIN :]


def test_spacing_case_and_punctuation_hide_nothing() -> None:
    words = [f"It's{i}" for i in range(RUN)]
    written = " ".join(f"it ' S{i} ," for i in range(RUN))
    (passage,) = HeldOut([" ".join(words)]).passages(around(written))
    assert around(written)[slice(*passage)] == written.removesuffix(" ,")


def test_a_run_of_twelve_words_is_chance_and_of_thirteen_is_not() -> None:
    known = HeldOut([SECRET])
    words = SECRET.split()
    assert known.cut(around(" ".join(words[5 : 5 + RUN - 1]))) == [around(" ".join(words[5 : 5 + RUN - 1]))]
    assert len(known.cut(around(" ".join(words[5 : 5 + RUN])))) == 2


def test_nothing_is_left_of_a_document_that_is_held_out_itself() -> None:
    assert HeldOut([SECRET]).cut(SECRET) == []


@pytest.mark.parametrize("texts", [[], [""], ["too few words"]])
def test_texts_too_short_to_be_told_from_chance_match_nothing(texts: list[str]) -> None:
    known = HeldOut(texts)
    assert len(known) == 0
    assert known.cut(around(SECRET)) == [around(SECRET)]


@given(st.lists(st.sampled_from(["a", "b", "İ", "ß-x", "c.d", "\n", "𝕏", "_"]), max_size=60), st.integers(0, 40))
def test_any_text_is_found_in_itself_wherever_it_stands(pieces: list[str], before: int) -> None:
    text = " ".join(pieces)
    document = " ".join([*WORDS[:before], text, *WORDS[:before]])
    known = HeldOut([text])
    assert bool(known.passages(document)) == bool(len(known))
    for part in known.cut(document):
        assert part in document
        assert not known.passages(part)


def test_files_of_every_kind_are_read(tmp_path: Path) -> None:
    rows = {"a": [SECRET + " one"], "b": {"c": SECRET + " two"}, "d": 3}
    (tmp_path / "a.jsonl").write_text(json.dumps(rows) + "\n\n")
    (tmp_path / "b.json").write_text(json.dumps([rows]))
    (tmp_path / "c.txt").write_text(SECRET.replace(" ", "\n"))
    (tmp_path / "d.tsv.gz").write_bytes(gzip.compress(f"1\t{SECRET}\n".encode()))
    for name in ("a.jsonl", "b.json", "c.txt", "d.tsv.gz"):
        assert len(held_out([tmp_path / name]).cut(around(SECRET))) == 2, name


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", None, "No such file"),
        ("a.parquet", b"", "held-out text is read from"),
        ("a.jsonl", b"{", "can't be read"),
        ("a.txt", b"\xff\xfe\xff", "can't be read"),
        ("a.txt.gz", b"no archive", "can't be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        held_out([tmp_path / name])
    assert str(tmp_path / name) in str(caught.value)


def test_a_corpus_loses_the_passages_alone_and_the_account_tells(tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_text(SECRET)
    account = Account()
    settings = FilterSettings(held_out=(str(tmp_path / "test.txt"),))
    documents = ["One that stays as it is.", around(SECRET)]
    kept = list(filtered(documents, settings, account))
    assert kept == [documents[0], *HeldOut([SECRET]).cut(documents[1])]
    assert (account.kept.documents, account.cut.documents) == (3, 1)
    assert account.cut.bytes == len(documents[1]) - sum(map(len, kept[1:]))
    assert "held-out text cut out of 1 documents" in "\n".join(account.lines())
