"""Readers, shards and the loader."""

import gzip
import json
import lzma
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.tokenizer import Tokenizer
from training.data.bpe import train_bpe
from training.data.loader import Windows
from training.data.readers import corpus_files, read_documents
from training.data.shards import open_split, read_manifest, split_of, write_shards
from training.errors import DataError

DOCUMENTS = [
    f"Document {i} tells of {'apples and pears ' * (i % 7)}and the number {i * i}.\nCafé {i} — ends." for i in range(60)
]


def read(*paths: Path, field: str = "text") -> list[str]:
    return list(read_documents(corpus_files(paths), field=field))


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bpe") / "tokenizer.json"
    train_bpe(DOCUMENTS, 300, path)
    return path


def shards(tmp_path: Path, bpe: Path, documents: list[str] = DOCUMENTS, fraction: float = 0.2) -> Path:
    write_shards(documents, bpe, tmp_path / "s", corpus=["x"], validation_fraction=fraction, seed=3, threads=2)
    return tmp_path / "s"


def test_text_and_jsonl_plain_and_packed(tmp_path: Path) -> None:
    text = "\n<|endoftext|>\n".join(DOCUMENTS)
    rows = "\n".join(json.dumps({"text": d}) for d in DOCUMENTS) + "\n\n"
    (tmp_path / "a.txt").write_text(text, "utf-8")
    (tmp_path / "b.jsonl").write_text(rows, "utf-8")
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "d.jsonl.xz").write_bytes(lzma.compress(rows.encode()))
    (tmp_path / "ignored.csv").write_text("x")
    assert read(tmp_path / "a.txt") == DOCUMENTS
    assert read(tmp_path) == DOCUMENTS * 4
    assert read(tmp_path / "b.jsonl", tmp_path / "c.txt.gz") == DOCUMENTS * 2


@pytest.mark.parametrize(("name", "content", "said"), [
    ("a.txt", b"", "a.txt: empty"),
    ("a.txt", b" \n<|endoftext|>\n\n", "a.txt: empty"),
    ("a.txt", b"good\n<|endoftext|>\nb\xffd\n", "not UTF-8"),
    ("a.jsonl", b'{"text": "x"}\n{"text": 3}\n', "line 2: has no text in the field 'text'"),
    ("a.jsonl", b'{"text": "x"}\n{"other": "y"}\n', "line 2: has no text"),
    ("a.jsonl", b'{"text": "x"}\n[1\n', "line 2: not JSON"),
    ("a.txt.gz", gzip.compress(b"hello " * 999)[:-20], "damaged"),
    ("a.txt.gz", b"not gzip", "damaged"),
    ("a.txt.xz", b"not xz", "damaged"),
    ("a.csv", b"x", "not a .txt or .jsonl file"),
])  # fmt: skip
def test_a_bad_file_is_named(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read(tmp_path / name)
    assert said in str(caught.value)
    assert name in str(caught.value)


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no"):
        read(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "x.txt")
    with pytest.raises(DataError, match="no corpus given"):
        read()


def test_the_trained_tokenizer_is_lossless_and_of_the_size_asked(bpe: Path) -> None:
    tokenizer = Tokenizer.from_file(bpe)
    assert tokenizer.vocab_size == 300
    assert tokenizer.eos_token_id == 0
    for text in [*DOCUMENTS, "日本語 🙂 \x00\t"]:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode(DOCUMENTS[6])) < len(DOCUMENTS[6].encode()) / 2


def test_shards_hold_every_document_once_behind_an_end_token(tmp_path: Path, bpe: Path) -> None:
    directory, tokenizer = shards(tmp_path, bpe), Tokenizer.from_file(bpe)
    manifest, found = read_manifest(directory), []
    for split in ("train", "validation"):
        tokens = open_split(directory, split)
        assert tokens.dtype == np.uint16
        assert tokens[0] == 0
        pieces = np.split(tokens, np.flatnonzero(tokens == 0)[1:])
        texts = [tokenizer.decode(piece[1:].tolist()) for piece in pieces]
        counts = manifest.splits[split]
        assert (counts.documents, counts.tokens) == (len(texts), len(tokens))
        assert counts.bytes == sum(len(t.encode()) for t in texts)
        assert all(split_of(t, 0.2, 3) == split for t in texts)
        found += texts
    assert sorted(found) == sorted(DOCUMENTS)


def test_the_split_follows_the_document_alone(tmp_path: Path, bpe: Path) -> None:
    directory = shards(tmp_path, bpe, [*DOCUMENTS[::-1], "one more"])
    fewer = shards(tmp_path / "b", bpe, DOCUMENTS[:40])
    more, less = (read_manifest(d).splits["validation"] for d in (directory, fewer))
    assert more.documents == sum(split_of(d, 0.2, 3) == "validation" for d in [*DOCUMENTS, "one more"])
    assert less.documents == sum(split_of(d, 0.2, 3) == "validation" for d in DOCUMENTS[:40])


def test_an_empty_split_and_damaged_shards_are_named(tmp_path: Path, bpe: Path) -> None:
    with pytest.raises(DataError, match="validation split got no document"):
        shards(tmp_path, bpe, ["only one"], fraction=1e-9)
    assert not list(tmp_path.iterdir())  # nothing half-written
    directory = shards(tmp_path, bpe)
    with (directory / "train.bin").open("ab") as file:
        file.write(b"\0\0")
    with pytest.raises(DataError, match=r"train\.bin"):
        open_split(directory, "train")
    (directory / "manifest.json").write_text("{}")
    with pytest.raises(DataError, match=r"manifest\.json"):
        open_split(directory, "train")


@given(st.integers(40, 400), st.integers(2, 17), st.integers(0, 5))
def test_an_epoch_is_every_window_once(n: int, context: int, seed: int) -> None:
    tokens = np.arange(n, dtype=np.uint16)
    if (n - 1) // context < 2:
        with pytest.raises(DataError):
            Windows(tokens, context, seed)
        return
    windows = Windows(tokens, context, seed)
    for epoch in range(2):
        batch = windows.batch(epoch * windows.per_epoch, windows.per_epoch)
        assert (batch.targets == batch.tokens + 1).all()
        starts = sorted(batch.tokens[:, 0].tolist())
        assert starts == list(range(starts[0], starts[0] + context * windows.per_epoch, context))


def test_order_is_a_function_of_seed_and_cursor_alone() -> None:
    tokens = np.arange(2000, dtype=np.uint16)
    whole = Windows(tokens, 8, 1).batch(0, 600)
    jumping = Windows(tokens, 8, 1)
    for cursor, rows in [(500, 100), (0, 7), (240, 20), (7, 233)]:
        assert (jumping.batch(cursor, rows).tokens == whole.tokens[cursor : cursor + rows]).all()
    assert not (Windows(tokens, 8, 2).batch(0, 600).tokens == whole.tokens).all()
    first, second = (Windows(tokens, 8, 1).batch(e * 248, 248).tokens[:, 0].tolist() for e in (0, 1))
    assert first != second
    assert Counter(x % 8 for x in first) != Counter(x % 8 for x in second)  # another offset each epoch
