"""The page's reader and writer of tables, against Python's csv module."""

import base64
import csv
import io
import random
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page

PIECES = ["a", "Ünï", " ", ",", ";", "\t", '"', '""', "\n", "\r\n", "\r", "x y", "7", "", "\ufeff", "😀", "=1+1", "-"]


@pytest.fixture
def page(open_page: Callable[..., Page]) -> Page:
    """A page of the server, for its modules."""
    return open_page("#status")


def run(page: Page, code: str, argument: Any = None) -> Any:
    """The value of `code` with the modules' exports and `value` at hand; {"error": message} for what it throws."""
    return page.evaluate(
        f"""async (value) => {{
          const {{ parseDelimited, guessDelimiter, toCsv }} = await import("/page/lib/csv.js");
          const {{ decodeText, guessFormat, guessTextColumn, readTable, MOST_BYTES }} = await import("/page/lib/tables.js");
          try {{ return {code}; }} catch (error) {{ return {{ error: error.message }}; }}
        }}""",
        argument,
    )


def read(page: Page, text: str, **options: Any) -> dict[str, Any]:
    """readTable's answer."""
    return run(page, "readTable(value.text, value.options)", {"text": text, "options": options})


def cells(table: dict[str, Any]) -> list[list[str]]:
    """Of each row."""
    return [row["cells"] for row in table["rows"]]


def random_tables(count: int) -> list[list[list[str]]]:
    """Tables full of what can go wrong. (No row is a single empty cell: such a line is no record, unless it is quoted.)"""
    rng = random.Random(7)

    def cell() -> str:
        return "".join(rng.choices(PIECES, k=rng.randint(0, 4)))

    widths = [rng.randint(2, 4) for _ in range(count)]
    return [[[cell() for _ in range(width)] for _ in range(rng.randint(1, 5))] for width in widths]


def written(table: list[list[str]], **options: Any) -> str:
    """Python's spelling of it."""
    out = io.StringIO(newline="")
    csv.writer(out, **options).writerows(table)
    return out.getvalue()


@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
@pytest.mark.parametrize("ends", ["\r\n", "\n"])
def test_reads_what_python_writes(page: Page, delimiter: str, ends: str) -> None:
    tables = random_tables(150)
    # With line ends of one character Python leaves the other one unquoted, which nobody could read.
    quoting = csv.QUOTE_ALL if ends == "\n" else csv.QUOTE_MINIMAL
    texts = [written(table, delimiter=delimiter, lineterminator=ends, quoting=quoting) for table in tables]
    pairs = [
        (text, table) for text, table in zip(texts, tables, strict=True) if not text.startswith("\ufeff")
    ]  # at a file's beginning that is a mark, and no part of the first cell
    assert len(pairs) > 100
    found = run(
        page,
        "value.texts.map((text) => parseDelimited(text, value.delimiter).map((record) => record.cells))",
        {"texts": [text for text, _ in pairs], "delimiter": delimiter},
    )
    assert found == [table for _, table in pairs]


def test_python_reads_what_it_writes(page: Page) -> None:
    tables = random_tables(150)
    for table, text in zip(tables, run(page, "value.map((table) => toCsv(table))", tables), strict=True):
        assert list(csv.reader(io.StringIO(text, newline=""), strict=True)) == table
    assert run(page, "toCsv([[''], [null, 0.5], [true]])") == '""\r\n,0.5\r\ntrue\r\n'


def test_lines_are_counted_where_cells_have_several(page: Page) -> None:
    text = 'a,b\r\n"1\n2\r\n3",x\n\n\n"",y\n'
    records = run(page, "parseDelimited(value)", text)
    assert [record["line"] for record in records] == [1, 2, 7]
    assert records[1]["cells"] == ["1\n2\r\n3", "x"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('a\nb,"c\nd\n', "Line 2: the quote that begins a cell here is never closed"),
        ('a\nb,"c\nd"e\n', "Line 3: something stands behind a cell's closing quote"),
        ("  \n", "no text"),
        ("id,text\n", "and none with texts"),
    ],
)
def test_says_what_is_wrong_with_a_table(page: Page, text: str, message: str) -> None:
    assert message in read(page, text, format="csv", header=True)["error"]


def test_header_or_not(page: Page) -> None:
    text = "id,text\n1,It rains.\n2,It snows.\n"
    table = read(page, text, format="csv")
    assert (table["header"], table["columns"]) == (True, ["id", "text"])
    assert cells(table) == [["1", "It rains."], ["2", "It snows."]]
    table = read(page, text, format="csv", header=False)
    assert table["columns"] == ["column 1", "column 2"]
    assert len(table["rows"]) == 3
    assert read(page, "It rains.,1\nIt snows.,2\n", format="csv")["header"] is False
    assert read(page, "text,text,\na,b,c\n", format="csv", header=True)["columns"] == ["text", "text 2", "column 3"]


def test_rows_of_other_lengths_lose_nothing_and_are_told(page: Page) -> None:
    table = read(page, "id,text\n1,a\n2\n3,c,more\n4,d\n5,e\n6,f\n7,g\n8,h\n9,i\n", format="csv", header=True)
    assert table["columns"] == ["id", "text", "column 3"]
    assert cells(table)[:3] == [["1", "a", ""], ["2", "", ""], ["3", "c", "more"]]
    assert "2 rows have another number of cells" in table["notices"][0]
    assert "first on line 3" in table["notices"][0]


def test_semicolons_and_tabs_are_found(page: Page) -> None:
    assert read(page, "id;text\n1;a, b\n2;c, d\n", format="csv")["columns"] == ["id", "text"]
    assert cells(read(page, 'id\ttext\n1\t"a\tb"\n', format="tsv"))[0] == ["1", "a\tb"]
    table = read(page, 'id\ttext\n1\t"Oh" she said\n', format="tsv")
    assert cells(table) == [["1", '"Oh" she said']]
    assert "plain characters" in table["notices"][0]


def test_json_lines(page: Page) -> None:
    text = '{"text": "a", "n": 1}\nnonsense\n\n["b"]\n{"text": null, "more": {"x": [1]}}\n"only text"\n'
    table = read(page, text, format="jsonl")
    assert table["columns"] == ["text", "n", "more"]
    assert [row["line"] for row in table["rows"]] == [1, 2, 4, 5, 6]
    assert "Line 2 is no JSON" in table["rows"][1]["error"]
    assert "Line 4 is no JSON object" in table["rows"][2]["error"]
    assert cells(table)[3:] == [["", "", '{"x":[1]}'], ["only text", "", ""]]
    assert cells(read(page, '[{"text": "a"},\n {"text": "b"}]', format="jsonl")) == [["a"], ["b"]]
    assert "It is no JSON" in read(page, '[{"text": "a"}', format="jsonl")["error"]


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("Hello, you.\nNo, not you.\n", "", "lines"),
        ("Well, yes\nWell, no\n", "", "lines"),
        ("id,text\n1,Hello.\n2,Oh.\n", "", "csv"),
        ("1\tHello, you.\n2\tOh, no.\n", "", "tsv"),
        ('{"text": "a"}\n{"text": "b"}\n', "", "jsonl"),
        ("anything", "a.TSV", "tsv"),
        ("anything", "a.ndjson", "jsonl"),
        ("Only a line", "notes.txt", "lines"),
    ],
)
def test_guesses_the_format(page: Page, text: str, name: str, expected: str) -> None:
    assert run(page, "guessFormat(value[0], value[1])", [text, name]) == expected


def test_guesses_the_column_of_texts(page: Page) -> None:
    text = "id,when,body\n1234567890123456789012,2024-01-01,A long sentence stands here.\n2,2024-01-02,Another one.\n"
    assert run(page, "guessTextColumn(readTable(value, { format: 'csv' }))", text) == 2


def decode(page: Page, content: bytes) -> dict[str, Any]:
    """decodeText's answer."""
    code = "decodeText(Uint8Array.from(atob(value), (letter) => letter.charCodeAt(0)).buffer, 'the file')"
    return run(page, code, base64.b64encode(content).decode())


def test_encodings(page: Page) -> None:
    assert decode(page, "é,ü\n".encode()) == {"text": "é,ü\n", "notices": [], "marked": False}
    marked = decode(page, "é\n".encode("utf-8-sig"))
    assert (marked["text"], marked["marked"]) == ("é\n", True)
    assert decode(page, "é😀\n".encode("utf-16"))["text"] == "é😀\n"
    old = decode(page, "é – “ok”\n".encode("cp1252"))
    assert old["text"] == "é – “ok”\n"
    assert "Windows-1252" in old["notices"][0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04rest", "save it as CSV"),
        (b"PAR1rest", "Parquet"),
        (b"\x1f\x8brest", "unpack"),
        (b"a\0b", "no text file"),
    ],
)
def test_files_that_are_no_text_are_refused_in_words(page: Page, content: bytes, message: str) -> None:
    assert message in decode(page, content)["error"]
