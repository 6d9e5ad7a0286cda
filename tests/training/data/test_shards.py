"""Documents -> shards -> the same documents; and what happens when something is wrong."""

import errno
import json
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.files import file_sha256
from model.tokenizer import Tokenizer
from training.data import token_files, tokenizing
from training.data.account import Account
from training.data.hub import HubCorpus
from training.data.loader import Windows
from training.data.shards import Manifest, open_split, read_manifest, split_of, write_shards
from training.data.token_files import TokenFile, TokenView, TokenWriter
from training.errors import DataError


def shards(directory: Path, bpe: Path, documents: list[str], fraction: float = 0.2, **more: object) -> Manifest:
    options = {"corpus": ["x"], "validation_fraction": fraction, "seed": 3, "threads": 2, **more}
    return write_shards(documents, bpe, directory, **options)  # type: ignore[arg-type]


def expected(tokenizer: Tokenizer, documents: list[str], split: str, fraction: float = 0.2) -> list[int]:
    """What a split holds, the plain way."""
    kept = [text for text in documents if split_of(text, fraction, 3) == split]
    return [token for text in kept for token in [0, *tokenizer.encode(text)]]


@settings(max_examples=40)
@given(
    st.lists(st.text(max_size=40) | st.text("ab \n<|endoftext|>", max_size=60), min_size=2, max_size=30, unique=True),
    st.integers(1, 40),
    st.integers(1, 30),
    st.integers(1, 3),
)
def test_documents_come_back_from_shards_of_any_size(
    bpe: Path, texts: list[str], max_tokens: int, part: int, threads: int
) -> None:
    """Cut anywhere for the threads, and run on from one file into the next."""
    tokenizer = Tokenizer.from_file(bpe)
    texts += ["of the train split 2", "of validation 9"]
    assert {split_of(text, 0.2, 3) for text in texts[-2:]} == {"train", "validation"}
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizing, "_PART", part)
        patch.setattr(token_files.os, "fsync", lambda _: None)  # slow for so many files
        target = Path(directory) / "s"
        manifest = shards(target, bpe, texts, threads=threads, max_tokens=max_tokens)
        assert read_manifest(target) == manifest
        for split in ("train", "validation"):
            kept, counts = [text for text in texts if split_of(text, 0.2, 3) == split], manifest.splits[split]
            view = open_split(target, split, verify=True)
            assert view.dtype == np.uint16
            assert np.asarray(view).tolist() == expected(tokenizer, texts, split)
            assert (counts.documents, counts.tokens) == (len(kept), len(view))
            assert counts.bytes == sum(len(text.encode()) for text in kept)
            assert [file.tokens for file in counts.files[:-1]] == [max_tokens] * (len(counts.files) - 1)
            assert all(file.sha256 == file_sha256(target / file.name) for file in counts.files)
        assert len(list(target.iterdir())) == 1 + sum(len(counts.files) for counts in manifest.splits.values())


def test_a_document_longer_than_a_shard_and_than_a_task(tmp_path: Path, bpe: Path, documents: list[str]) -> None:
    long = "\n".join(documents) * 200
    assert len(long) > 2 * tokenizing._PART
    manifest = shards(tmp_path / "s", bpe, [long, *documents], max_tokens=10_000)
    split = split_of(long, 0.2, 3)
    assert len(manifest.splits[split].files) > 20
    whole = expected(Tokenizer.from_file(bpe), [long, *documents], split)
    assert np.array_equal(open_split(tmp_path / "s", split), np.array(whole))


def test_the_loader_reads_across_files(tmp_path: Path, bpe: Path, documents: list[str]) -> None:
    shards(tmp_path / "many", bpe, documents, max_tokens=37)
    shards(tmp_path / "one", bpe, documents)
    many, one = (Windows(open_split(tmp_path / d, "train"), 16, 0, eot=0).batch(0, 50) for d in ("many", "one"))
    assert (many.tokens == one.tokens).all()
    assert (many.documents == one.documents).all()  # type: ignore[union-attr]


def test_neither_threads_nor_files_change_the_tokens(tmp_path: Path, bpe: Path, documents: list[str]) -> None:
    one = shards(tmp_path / "a", bpe, documents * 20, threads=1)
    four = shards(tmp_path / "b", bpe, documents * 20, threads=4)
    assert one == four
    assert one.splits["train"].sha256 == four.splits["train"].sha256 != one.splits["validation"].sha256


def test_the_split_follows_the_document_alone(tmp_path: Path, bpe: Path, documents: list[str]) -> None:
    more = shards(tmp_path / "a", bpe, [*documents[::-1], "one more"]).splits["validation"]
    less = shards(tmp_path / "b", bpe, documents[:40]).splits["validation"]
    assert more.documents == sum(split_of(d, 0.2, 3) == "validation" for d in [*documents, "one more"])
    assert less.documents == sum(split_of(d, 0.2, 3) == "validation" for d in documents[:40])


def test_a_corpus_of_one_document_is_cut_at_a_line(tmp_path: Path, bpe: Path, documents: list[str]) -> None:
    text, tokenizer = "\n".join(documents), Tokenizer.from_file(bpe)
    shards(tmp_path / "s", bpe, [text], 0.25)
    train, rest = (
        tokenizer.decode(np.asarray(open_split(tmp_path / "s", split))[1:].tolist())
        for split in ("train", "validation")
    )
    assert f"{train}\n{rest}" == text
    assert 0.2 < len(rest) / len(text) < 0.35
    with pytest.raises(DataError, match="validation split got no document"):
        shards(tmp_path / "t", bpe, ["only one"], 1e-9)
    with pytest.raises(DataError, match="train split got no document"):
        shards(tmp_path / "t", bpe, [])
    assert not (tmp_path / "t").exists()


def test_the_manifest_says_what_the_shards_were_made_from(tmp_path: Path, bpe: Path, documents: list[str]) -> None:
    (tmp_path / "corpus.txt").write_text("some text")
    account = Account({"min_chars": 5})
    account.drop("shorter than 5 characters", "ab")
    corpus = [tmp_path / "corpus.txt", HubCorpus.parse("hf:a/b"), "by hand"]
    manifest = shards(tmp_path / "s", bpe, documents, corpus=corpus, account=account)
    assert manifest.corpus == ["corpus.txt", "hf:a/b@train", "by hand"]
    assert (manifest.sources[0].bytes, manifest.sources[0].sha256) == (9, file_sha256(tmp_path / "corpus.txt"))
    assert (manifest.sources[1].bytes, manifest.sources[1].sha256) == (None, None)
    assert manifest.tokenizer_sha256 == file_sha256(bpe)
    written = json.loads((tmp_path / "s" / "manifest.json").read_text())
    assert written["account"]["dropped"] == {"shorter than 5 characters": {"documents": 1, "bytes": 2}}
    assert written["account"]["settings"] == {"min_chars": 5}


@pytest.fixture
def made(tmp_path: Path, bpe: Path, documents: list[str]) -> Path:
    shards(tmp_path / "s", bpe, documents, max_tokens=500)
    return tmp_path / "s"


@pytest.mark.parametrize("damage", ["longer", "shorter", "gone"])
def test_a_shard_of_another_size_is_named(made: Path, damage: str) -> None:
    path = made / "train-00001.bin"
    data = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes(data + b"\0\0" if damage == "longer" else data[:-2])
    with pytest.raises(DataError, match=r"train-00001\.bin: missing or not 1,000 bytes"):
        open_split(made, "train")
    open_split(made, "validation")


def test_a_shard_of_another_content_is_named_when_asked(made: Path) -> None:
    path = made / "train-00002.bin"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    open_split(made, "train")
    with pytest.raises(DataError, match=r"train-00002\.bin: its content isn't what was written"):
        open_split(made, "train", verify=True)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"splits": {"train": {}}}', '{"splits": []}'])
def test_a_damaged_manifest_is_named(made: Path, content: str) -> None:
    (made / "manifest.json").write_text(content)
    with pytest.raises(DataError, match=r"manifest\.json"):
        open_split(made, "train")


def test_a_full_disk_leaves_what_was_there(made: Path, bpe: Path, documents: list[str]) -> None:
    before = {path.name: path.read_bytes() for path in made.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(DataError, match=r"s: the token shards can't be written \(File too large\); make room"):
            shards(made, bpe, documents * 30)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name: path.read_bytes() for path in made.iterdir()} == before
    assert list(made.parent.iterdir()) == [made]


@pytest.mark.parametrize("call", ["write", "fsync", "open"])
def test_any_failing_write_is_clear_and_leaves_nothing(
    tmp_path: Path, bpe: Path, documents: list[str], monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    real, calls = getattr(os, call), 0

    def full(*args: object, **named: object) -> object:
        nonlocal calls
        of_shard = isinstance(args[0], int) or str(args[0]).endswith(".bin")
        calls += of_shard
        if of_shard and calls > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(token_files.os, call, full)
        with pytest.raises(DataError, match="No space left on device"):
            shards(tmp_path / "s", bpe, documents, max_tokens=100)
    assert not list(tmp_path.iterdir())


def test_short_writes_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(token_files.os, "write", lambda file, data: write(file, data[:5]))
    writer = TokenWriter(tmp_path, "t", np.dtype(np.uint16))
    writer.write(np.arange(100))
    writer.close()
    view = TokenView(tmp_path, writer.files, np.dtype(np.uint16), verify=True)
    assert np.asarray(view).tolist() == list(range(100))


def test_an_error_while_reading_ends_it_and_leaves_nothing(tmp_path: Path, bpe: Path, documents: list[str]) -> None:
    def broken() -> Iterator[str]:
        yield from documents
        raise DataError("corpus.txt, line 7: not UTF-8")

    with pytest.raises(DataError, match="line 7"):
        write_shards(broken(), bpe, tmp_path / "s", corpus=[], validation_fraction=0.2, seed=0, threads=2)
    assert not list(tmp_path.iterdir())


def test_reading_waits_for_the_threads(bpe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text in the air is bounded, however fast documents come."""
    monkeypatch.setattr(tokenizing, "_PART", 10)
    monkeypatch.setattr(Tokenizer, "encode_array", lambda _, text: time.sleep(0.001) or np.zeros(1, np.uint32))
    read = done = most = 0

    def documents() -> Iterator[tuple[int, str]]:
        nonlocal read, most
        for read in range(300):
            most = max(most, read - done)
            yield 0, "ten letters"

    for _ in tokenizing.tokenized(documents(), Tokenizer.from_file(bpe), threads=2):
        done += 1
    assert done == 300
    assert most <= 2 * tokenizing._AHEAD + 1


@settings(max_examples=60)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.slices(40), st.integers(-40, 39))
def test_a_view_slices_like_an_array(sizes: list[int], index: slice, place: int) -> None:
    array = np.arange(sum(sizes), dtype=np.uint32)
    with tempfile.TemporaryDirectory() as directory:
        files = []
        for i, part in enumerate(np.split(array, np.cumsum(sizes)[:-1])):
            part.tofile(Path(directory) / f"{i}.bin")
            files.append(TokenFile(f"{i}.bin", len(part), ""))
        view = TokenView(Path(directory), files, array.dtype)
        assert (len(view), view.shape, view.ndim) == (len(array), array.shape, array.ndim)
        assert view[index].dtype == array.dtype
        assert view[index].tolist() == array[index].tolist()
        assert view.astype(np.int64).tolist() == array.tolist()
        assert np.asarray(view, np.int64).dtype == np.int64
        if -len(array) <= place < len(array):
            assert view[place] == array[place]
        else:
            with pytest.raises(IndexError):
                view[place]
