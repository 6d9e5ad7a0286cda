import csv
import gzip
import json
import lzma
from pathlib import Path

import datasets
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from training.data.tables import Row, read_rows, required, table_files
from training.errors import DataError

ROWS = [
    {"text": 'He said "no",\nand left.', "label": "1"},
    {"text": "", "label": "0"},
    {"text": "ünï\tc", "label": "0"},
]


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    kind = path.suffixes[0]
    plain = path.with_name("plain" + kind)
    if kind == ".csv":
        with plain.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif kind == ".jsonl":
        plain.write_text("\n\n".join(json.dumps(row) for row in rows), "utf-8")
    elif kind == ".json":
        plain.write_text(json.dumps(rows, indent=1), "utf-8")
    else:
        parquet.write_table(pyarrow.Table.from_pylist(rows), plain)
    compress = {
        ".gz": gzip.compress,
        ".xz": lzma.compress,
        ".zst": lambda data: pyarrow.compress(data, "zstd", asbytes=True),
    }
    path.write_bytes(compress.get(path.suffix, bytes)(plain.read_bytes()))
    return path


@pytest.mark.parametrize("kind", [".csv", ".jsonl", ".json", ".parquet"])
@pytest.mark.parametrize("compression", ["", ".gz", ".xz", ".zst"])
def test_every_kind_gives_the_same_rows(tmp_path: Path, kind: str, compression: str) -> None:
    path = write(tmp_path / f"rows{kind}{compression}", ROWS)
    assert [row.values for row in read_rows([path])] == ROWS


def test_where_names_the_line_that_a_row_begins_on(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('text,label\n"two\nlines",1\n\nlast,0\n')
    assert [row.where for row in read_rows([path])] == [f"{path}, line 2", f"{path}, line 5"]
    assert [row.where for row in read_rows([write(tmp_path / "rows.json", ROWS)])][-1].endswith("rows.json, row 3")
    assert [row.where for row in read_rows([write(tmp_path / "rows.jsonl", ROWS)])][-1].endswith("rows.jsonl, line 5")


def test_a_tsv_file_has_no_quoting_and_may_lack_a_header(tmp_path: Path) -> None:
    path = tmp_path / "sms.tsv"
    path.write_bytes(b'ham\t"Ok, lar... \r\nspam\tFREE "prize" now"\n')
    rows = list(read_rows([path], columns=["label", "text"]))
    assert [row.values for row in rows] == [
        {"label": "ham", "text": '"Ok, lar... '},
        {"label": "spam", "text": 'FREE "prize" now"'},
    ]
    with pytest.raises(DataError, match=r"sms.tsv, line 2: has no field 'text'; it has 'ham', .*no header line"):
        required(next(iter(read_rows([path]))), "text")


@given(fields=st.lists(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=2, max_size=2), min_size=1))
def test_a_csv_file_gives_back_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, fields: list[list[str]]
) -> None:
    path = tmp_path_factory.mktemp("csv") / "rows.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([["a", "b"], *fields])
    assert [list(row.values.values()) for row in read_rows([path])] == fields


def test_semicolons_a_byte_order_mark_and_long_fields(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"\xef\xbb\xbf" + f'label;text\r\n1;"a, b"\r\n2;{"x" * 200_000}\r\n'.encode())
    first, second = read_rows([path])
    assert first.values == {"label": "1", "text": "a, b"}
    assert len(second.values["text"]) == 200_000


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "a.csv: empty"),
        ("a.csv", b"text,label\n", "a.csv: empty"),
        ("a.jsonl", b"\n\n", "a.jsonl: empty"),
        ("a.json", b"[]", "a.json: empty"),
        ("a.csv", b"text,label\nx,1\ny\n", "a.csv, line 3: has 1 fields, but there are 2 columns"),
        ("a.csv", b"text,label\nx,1,2\n", "a.csv, line 2: has 3 fields"),
        ("a.tsv", b"text\tlabel\nx\n", "a.tsv, line 2: has 1 fields"),
        ("a.csv", b'text,label\nx,1\n"open,1\ny,2\n', "a.csv, line 3: not a row"),
        ("a.csv", b"text,text\nx,1\n", "line 1: two columns of the header have one name"),
        ("a.csv", b"text,label\nok,1\n\xff\xfe,1\n", "a.csv, line 3: not UTF-8"),
        ("a.jsonl", b'{"a": 1}\n{"a": \n', "a.jsonl, line 2: not JSON"),
        ("a.jsonl", b'{"a": 1}\n[1]\n', "a.jsonl, line 2: must be an object, found a list"),
        ("a.json", b'{"a": 1}', "a.json: must be a list of objects, found an object"),
        ("a.json", b'{"a": 1}\n{"a": 2}', r"a.json: not JSON .*\.jsonl"),
        ("a.json", b'[{"a": 1}, 2]', "a.json, row 2: must be an object"),
        ("a.parquet", b"nothing", "a.parquet: damaged"),
        ("a.parquet.gz", gzip.compress(b"nothing"), "a.parquet.gz: damaged"),
        ("a.csv.gz", b"nothing", "a.csv.gz: damaged"),
        ("a.csv.gz", gzip.compress(b"text,label\nx,1\n" * 100)[:-20], "a.csv.gz: damaged"),
        ("a.csv.xz", lzma.compress(b"text,label\nx,1\n" * 100)[:-20], "a.csv.xz: damaged"),
        ("a.csv.zst", pyarrow.compress(b"text,label\nx,1\n" * 9000, "zstd", asbytes=True)[:-6], "a.csv.zst: damaged"),
        ("a.doc", b"text", "a.doc: not a .csv, .tsv"),
    ],
)
def test_bad_files_are_named_with_their_row(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(read_rows([tmp_path / name]))


def test_bad_choices_of_columns_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\nx,1\n")
    with pytest.raises(DataError, match="line 1: is a header line"):
        list(read_rows([path], columns=["text", "label"]))
    with pytest.raises(DataError, match="a name of its own"):
        list(read_rows([path], columns=["text", "text"]))
    with pytest.raises(DataError, match="name their fields themselves"):
        list(read_rows([write(tmp_path / "a.json", ROWS)], columns=["text", "label"]))


def test_directories_are_read_in_order_of_names(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl"):
        (tmp_path / name).write_text(json.dumps({"from": name}))
    (tmp_path / "notes.txt").write_text("not data")
    (tmp_path / ".cache").mkdir()
    for hidden in ("._a.jsonl", ".cache/c.jsonl"):
        (tmp_path / hidden).write_bytes(b"\x00\xff")
    assert [row.values["from"] for row in read_rows([tmp_path])] == ["a.jsonl", "b.jsonl"]
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"none: holds no \.csv"):
        table_files([tmp_path / "none"])
    with pytest.raises(DataError, match=r"missing\.csv: no such file"):
        table_files([tmp_path / "missing.csv"])
    with pytest.raises(DataError, match="no data given"):
        table_files([])


def test_data_sets_of_the_hub_are_rows_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "rows.jsonl", ROWS)
    asked = []

    def load_dataset(name: str, config: str | None, *, split: str, streaming: bool) -> datasets.IterableDataset:
        asked.append((name, config, split, streaming))
        return datasets.IterableDataset.from_generator(
            lambda: (json.loads(line) for line in path.read_text("utf-8").splitlines() if line)
        )

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    rows = list(read_rows(["hf:owner/name:config@test", path]))
    assert asked == [("owner/name", "config", "test", True)]
    assert [row.values for row in rows] == ROWS * 2
    assert rows[1].where == "hf:owner/name:config@test, row 2"


def test_required_takes_texts_and_numbers_only() -> None:
    row = Row({"text": "x", "label": 1, "score": None, "tags": ["a"]}, "rows.jsonl, line 7")
    assert (required(row, "text"), required(row, "label")) == ("x", "1")
    assert required(Row({"text": "half \ud83d, \U0001f600"}, "rows.jsonl, line 1"), "text") == "half \ufffd, \U0001f600"
    with pytest.raises(DataError, match=r"rows\.jsonl, line 7: 'score' must be a text, found null"):
        required(row, "score")
    with pytest.raises(DataError, match="'tags' must be a text, found a list"):
        required(row, "tags")
