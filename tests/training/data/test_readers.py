"""Corpus files of every kind -> the same documents."""

import codecs
import gzip
import io
import json
import lzma
import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from training.data import readers
from training.data.account import Account
from training.data.hub import HubCorpus, hub_rows
from training.data.readers import corpus_files, read_documents
from training.errors import DataError

TEXTS = st.lists(
    (st.text(st.characters(exclude_categories=("Cs",)), max_size=30) | st.text("ab \n<|endoftext|>é", max_size=40)),
    min_size=1,
    max_size=8,
)


def read(*paths: Path | str, field: str = "text", account: Account | None = None) -> list[str]:
    return list(read_documents(corpus_files(paths), field=field, account=account))


def as_text(documents: list[str]) -> bytes:
    return "\n<|endoftext|>\n".join(documents).encode()


def as_jsonl(documents: list[str]) -> bytes:
    return "\n".join(json.dumps({"id": 3, "text": text}) for text in documents).encode() + b"\n\n"


def as_parquet(documents: list[str]) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pyarrow.table({"id": list(range(len(documents))), "text": documents}), file, row_group_size=7)
    return file.getvalue()


KINDS: dict[str, Callable[[list[str]], bytes]] = {".txt": as_text, ".jsonl": as_jsonl, ".parquet": as_parquet}
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: pyarrow.compress(data, "zstd", asbytes=True),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("packing", PACKERS)
def test_every_kind_and_packing(tmp_path: Path, documents: list[str], kind: str, packing: str) -> None:
    path = tmp_path / f"A{kind}{packing}".upper()
    path.write_bytes(PACKERS[packing](KINDS[kind](documents)))
    assert read(path) == documents


def test_a_directory_of_all_of_them(tmp_path: Path, documents: list[str]) -> None:
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / "a.txt.zst").write_bytes(PACKERS[".zst"](as_text(documents[:10])))
    (tmp_path / "b" / "c" / "one.parquet").write_bytes(as_parquet(documents[10:30]))
    (tmp_path / "b" / "z.jsonl.gz").write_bytes(gzip.compress(as_jsonl(documents[30:])))
    (tmp_path / "table.csv").write_text("x")
    (tmp_path / "b" / "._z.jsonl").write_bytes(b"\0\5\x16\x07")  # what macOS leaves beside a file
    assert read(tmp_path) == documents
    assert read(tmp_path / "b" / "z.jsonl.gz", str(tmp_path / "a.txt.zst")) == documents[30:] + documents[:10]


@settings(max_examples=60)
@given(TEXTS, st.sampled_from(sorted(KINDS)), st.integers(1, 50), st.sampled_from(["\n", "\r\n", "\r"]), st.booleans())
def test_any_text_comes_back(texts: list[str], kind: str, block: int, line_end: str, mark: bool) -> None:
    """In blocks of any size, with any line ends, with and without a byte order mark."""
    if kind == ".txt":  # the separator on a line of its own, and line ends, are no text
        texts = [text.replace("\r", "\n").replace("<|endoftext|>", "<|end|>") for text in texts]
    data = KINDS[kind](texts)
    if kind == ".txt":
        data = data.replace(b"\n", line_end.encode())
    if mark and kind != ".parquet":
        data = codecs.BOM_UTF8 + data
    expected = [text.strip() for text in texts if text.strip()]
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "_BLOCK", block)
        path = Path(directory) / f"a{kind}"
        path.write_bytes(data)
        account = Account()
        if expected:
            found = read(path, account=account)
            assert [text.replace("\ufeff", "") for text in found] == [text.replace("\ufeff", "") for text in expected]
        else:
            with pytest.raises(DataError, match="holds no document"):
                read(path, account=account)
        dropped = sum(count.documents for count in account.dropped.values())
        last_is_nothing = kind == ".txt" and not texts[-1].strip()
        assert dropped == len(texts) - len(expected) - last_is_nothing


def test_a_separator_within_a_line_is_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("say <|endoftext|>\n  <|endoftext|> \t\r\n<|endoftext|>x\n<|endoftext|>")
    assert read(tmp_path / "a.txt") == ["say <|endoftext|>", "<|endoftext|>x"]


def test_json_as_python_writes_it(tmp_path: Path) -> None:
    rows = [{"text": "a", "score": float("nan"), "big": 10**30}, {"text": "half \ud83d of a pair"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert read(tmp_path / "a.jsonl") == ["a", "half \ufffd of a pair"]


def test_another_field(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"content": "x", "text": 3}')
    parquet.write_table(pyarrow.table({"content": pyarrow.array(["y"]).dictionary_encode()}), tmp_path / "b.parquet")
    assert read(tmp_path, field="content") == ["x", "y"]


@pytest.mark.parametrize(("name", "content", "said"), [
    ("a.txt", b"", "a.txt: empty"),
    ("a.txt", b" \n<|endoftext|>\n\n", "a.txt: empty"),
    ("a.txt", b"good\n<|endoftext|>\nline 3\nb\xffd\n", "line 4: not UTF-8"),
    ("a.txt", "text".encode("utf-16"), "UTF-16"),
    ("a.jsonl", b"\n\n", "empty"),
    ("a.jsonl", b'{"text": "x"}\n{"text": 3}\n', "line 2: has no text in the field 'text'; its fields: 'text'"),
    ("a.jsonl", b'{"text": "x"}\n\n{"other": "y", "more": 1}\n', "line 3: has no text in the field 'text'; its fields: 'other'"),
    ("a.jsonl", b'{"text": "x"}\r\n{"text": null}\r\n', "line 2: has no text"),
    ("a.jsonl", b'{"text": "x"}\n[1\n', "line 2: not JSON"),
    ("a.jsonl", b'{"text": "x"}\n[1]\n', "line 2: not an object"),
    ("a.jsonl", b'{"text": "x"}\n{"text": "\xff"}\n', "line 2: not UTF-8"),
    ("a.jsonl", b"[" * 100_000, "line 1: not JSON"),
    ("a.txt.gz", gzip.compress(bytes(range(256)) * 999)[:-20], "damaged"),
    ("a.txt.gz", b"not gzip", "damaged"),
    ("a.txt.xz", b"not xz", "damaged"),
    ("a.jsonl.zst", b"not zstd", "damaged"),
    ("a.jsonl.zst", PACKERS[".zst"](as_jsonl(["hello " * 9999]))[:-5], "damaged"),
    ("a.parquet", b"PAR1 and nothing more", "damaged"),
    ("a.parquet", as_parquet(["x"])[:-9], "damaged"),
    ("a.parquet.gz", gzip.compress(b"PAR1"), "damaged"),
    ("a.csv", b"x", "not a .txt, .jsonl or .parquet file"),
])  # fmt: skip
def test_a_bad_file_is_named(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read(tmp_path / name)
    assert said in str(caught.value)
    assert name in str(caught.value)


@pytest.mark.parametrize(("column", "said"), [
    ({"other": ["x"], "more": ["y"]}, "no column 'text'; its columns: other, more"),
    ({"text": [1, 2]}, "holds int64, not text"),
    ({"text": ["x", None]}, "row 2: has no text"),
    ({"text": pyarrow.array([b"x", b"\xff"]).cast(pyarrow.string(), safe=False)}, "row 2: not UTF-8"),
    ({"text": pyarrow.array([], pyarrow.string())}, "empty"),
])  # fmt: skip
def test_a_bad_column_is_named(tmp_path: Path, column: dict, said: str) -> None:
    parquet.write_table(pyarrow.table(column), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=said) as caught:
        read(tmp_path / "a.parquet")
    assert "a.parquet" in str(caught.value)


def test_what_was_read_before_the_damage_is_given_out(tmp_path: Path) -> None:
    """So reading streams; and the error says how far it came."""
    packed = gzip.compress(as_jsonl([f"{i} " * 5000 for i in range(500)]), mtime=0)
    (tmp_path / "a.jsonl.gz").write_bytes(packed[: len(packed) * 3 // 4])
    seen: list[str] = []
    with pytest.raises(DataError, match=r"damaged or unreadable after \d+ documents"):
        seen.extend(read_documents(corpus_files([tmp_path / "a.jsonl.gz"])))
    assert len(seen) > 50


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no"):
        read(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "x.txt")
    with pytest.raises(DataError, match="no corpus given"):
        read()


def test_a_data_set_of_the_hub_is_streamed(
    tmp_path: Path, documents: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library reads the files; only where they lie is another place than the Hub."""
    import datasets

    (tmp_path / "part.parquet").write_bytes(as_parquet(documents))
    load, asked = datasets.load_dataset, []

    def from_disk(path: str, name: str | None = None, *, split: str, streaming: bool) -> object:
        asked.append((path, name, split, streaming))
        files = {split: str(tmp_path / "part.parquet")}
        return load("parquet", data_files=files, split=split, streaming=streaming, cache_dir=str(tmp_path / "cache"))

    monkeypatch.setattr(datasets, "load_dataset", from_disk)
    assert read("hf:owner/some-name:v1.0@test", "hf:plain") == documents * 2
    assert asked == [("owner/some-name", "v1.0", "test", True), ("plain", None, "train", True)]
    assert next(hub_rows(HubCorpus.parse("hf:plain"))) == {"id": 0, "text": documents[0]}
    with pytest.raises(
        DataError, match=r"hf:plain@train, row 1: has no text in the field 'body'; its fields: 'id', 'text'"
    ):
        read("hf:plain", field="body")


def test_without_a_network_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"(?s)hf:nobody/nothing:v1@train: can't be read.*network.*name those"):
        read("hf:nobody/nothing:v1")


@pytest.mark.parametrize("name", ["hf:", "hf:a/b/c", "hf:a b", "hf:a/b@", "hf:a/b:", "hf:/b", "hf:a/b@x@y"])
def test_a_wrong_name_of_a_data_set(name: str) -> None:
    with pytest.raises(DataError, match="hf:owner/name"):
        corpus_files([name])


def test_names_of_data_sets_are_whole() -> None:
    assert str(HubCorpus.parse("hf:a/b")) == "hf:a/b@train"
    assert HubCorpus.parse("hf:a/b:c-1@dev").name == "hf:a/b:c-1@dev"
