"""`homegrown classify`: the same labels as the service gives, in the same kind of file, and nothing lost on the way."""

import csv
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from oracle import make_adapters
from serving import wait_for
from starlette.testclient import TestClient
from tiny import random_model, tiny_config

from cli import commands
from cli.labelling.journal import Journal
from cli.labelling.labellers import Scores
from cli.labelling.output import write_records
from cli.labelling.source import Source
from cli.labelling.work import Names, Tally, label_rows, write_output
from model.errors import HomegrownError
from training.errors import DataError

TEXTS = ["A fine film.", 'It was "dull",\nand long.', "", "Ein Überfluß; wirklich", "word " * 200]
LABELS = ("good", "bad")


@pytest.fixture(scope="module")
def trunk(tiny_llama_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that carries the classifier `mood` (good, bad, odd)."""
    trunk = shutil.copytree(tiny_llama_dir, tmp_path_factory.mktemp("carrying") / "trunk")
    shutil.copytree(make_adapters(tiny_llama_dir, tmp_path_factory.mktemp("made"))["mood"], trunk / "adapters" / "mood")
    return trunk


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A .csv file of the texts."""
    with (tmp_path / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "text"), *enumerate(TEXTS)])
    return tmp_path / "rows.csv"


def classify(*arguments: str | Path) -> Result:
    return CliRunner().invoke(commands, ["classify", "--threads", "1", *map(str, arguments)])


def refused(*arguments: str | Path) -> str:
    """The text of the error that the command ends with."""
    done = classify(*arguments)
    assert isinstance(done.exception, HomegrownError | OSError), done.output
    return str(done.exception)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def ask(trunk: Path) -> Iterator[Callable[..., list[dict[str, Any]]]]:
    """What POST /classify answers about the texts."""
    from app.engine.local import local_engine
    from app.main import create_app, engine_spec
    from app.settings import Settings

    settings = Settings(model=str(trunk), threads=1)
    with TestClient(create_app(settings, local_engine(engine_spec(settings)))) as client:
        wait_for(lambda: client.get("/ready").status_code == 200, what="readiness")

        def ask(**body: Any) -> list[dict[str, Any]]:
            answer = client.post("/classify", json={"input": [text for text in TEXTS if text], **body})
            assert answer.status_code == 200, answer.text
            return answer.json()["data"]

        yield ask


def agree(rows: Sequence[dict[str, str]], answers: Sequence[dict[str, Any]]) -> None:
    """The rows with a text have the service's labels and scores."""
    labelled = [row for row in rows if row["text"]]
    assert len(labelled) == len(answers)
    for row, answer in zip(labelled, answers, strict=True):
        assert row["label"] == answer["label"]
        scores = {name: float(row[f"score_{name}"]) for name in answer["scores"]}
        assert scores == pytest.approx(answer["scores"], abs=1e-5)
        assert float(row["score"]) == max(scores.values())


def test_a_classifier_labels_as_the_service_does(
    trunk: Path, table: Path, ask: Callable[..., list[dict[str, Any]]]
) -> None:
    done = classify(table, "--model", trunk, "--json")
    assert done.exit_code == 0, done.output
    out = table.with_name("rows.classified.csv")
    told = json.loads(done.stdout)
    assert (told["out"], told["rows"], told["blank"], told["truncated"]) == (str(out), 5, 1, 1)
    assert sum(told["counts"].values()) == 4
    assert list(told["counts"]) == ["good", "bad", "odd"]
    rows = rows_of(out)
    assert [row["text"] for row in rows] == TEXTS
    assert set(rows[2].values()) == {"2", ""}
    agree(rows, ask())
    assert [path.name for path in table.parent.iterdir() if path.name.startswith(".")] == []


def test_a_language_model_labels_as_the_service_does(
    trunk: Path, table: Path, ask: Callable[..., list[dict[str, Any]]]
) -> None:
    (examples := table.with_name("few.jsonl")).write_text('{"text": "Lovely.", "label": "good"}\n')
    told = ("--label", "good", "--label", "bad", "--examples", examples, "--template", r"T: {text}\nL: {label}")
    out = table.with_name("out.csv")
    done = classify(table, "--model", trunk, *told, "--out", out)
    assert done.exit_code == 0, done.output
    assert "1 rows have no text" in done.stdout
    shown = [{"text": "Lovely.", "label": "good"}]
    agree(rows_of(out), ask(labels=list(LABELS), examples=shown, template="T: {text}\nL: {label}"))


def test_an_adapters_directory_names_its_base_and_rows_are_printed_as_they_come(trunk: Path, table: Path) -> None:
    done = classify(table, "--model", trunk / "adapters" / "mood", "--out", "-", "--label-field", "tone")
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["text"] for row in rows] == TEXTS
    assert sum(rows[0]["tone_scores"].values()) == pytest.approx(1, abs=1e-4)
    assert rows[2]["tone"] is rows[2]["tone_scores"] is None


def test_a_model_that_is_a_classifier_by_itself(tmp_path: Path, table: Path) -> None:
    from model.checkpoint import save_model
    from model.tokenizer import Tokenizer

    save_model(random_model(tiny_config("gpt2", labels=LABELS, pad_token_id=50256)), tmp_path / "judge")
    Tokenizer.gpt2().save(tmp_path / "judge")
    out = tmp_path / "out.parquet"
    done = classify(table, "--model", tmp_path / "judge", "--out", out)
    assert done.exit_code == 0, done.output
    rows = _parquet(out)
    assert [row["text"] for row in rows] == TEXTS
    assert {row["label"] for row in rows} <= {*LABELS, None}
    assert rows[0]["score_good"] + rows[0]["score_bad"] == pytest.approx(1, abs=1e-5)


def test_mistakes_are_named_before_anything_is_written(trunk: Path, table: Path, tmp_path: Path) -> None:
    (tmp_path / "there.csv").write_text("old")
    (tmp_path / "labelled.csv").write_text("text,label\na,b\n")
    (tmp_path / "broken.jsonl").write_text('{"text": "a"}\n{"txt": "b"}\n')
    model = ("--model", trunk)
    assert "there.csv: is already there" in refused(table, *model, "--out", tmp_path / "there.csv")
    assert "name must end in .csv" in refused(table, *model, "--out", tmp_path / "there.xls")
    assert "broken.jsonl, line 2: has no field 'text'" in refused(tmp_path / "broken.jsonl", *model)
    assert "has a field 'label' already" in refused(tmp_path / "labelled.csv", *model)
    assert "no such file" in refused(tmp_path / "nowhere.csv", *model)
    assert "mood: is a classifier with labels of its own (good, bad, odd)" in refused(
        table, *model, "--adapter", "mood", "--label", "a", "--label", "b"
    )
    assert "two labels or more" in refused(table, *model, "--label", "a")
    assert "must have {text} once" in refused(table, *model, "--label", "a", "--label", "b", "--template", "x")
    for wrong in (("--resume", "--force"), ("--out", "-", "--json"), ("--template", "{text}{label}")):
        assert classify(table, *model, *wrong).exit_code == 2
    assert {path.name for path in tmp_path.iterdir()} == {"rows.csv", "there.csv", "labelled.csv", "broken.jsonl"}
    assert (tmp_path / "there.csv").read_text() == "old"


def test_what_the_file_to_write_cannot_hold_is_told_before_the_model_works(
    trunk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.labelling.command.LocalEngine", lambda *_, **__: pytest.fail("the model was loaded"))
    rows = tmp_path / "mails.jsonl"
    rows.write_text('{"text": "a"}\n{"text": "b", "cc": "me"}\n')
    (tmp_path / "mixed.jsonl").write_text('{"text": "a", "n": 1}\n{"text": "b", "n": "one"}\n')
    (tmp_path / "tabs.jsonl").write_text('{"text": "a\\tb"}\n')
    for name in ("out.csv", "out.tsv", "out.parquet"):
        said = refused(rows, "--model", trunk, "--out", tmp_path / name)
        assert "row 2: 'cc' isn't in every row" in said
        assert "write .jsonl instead" in said
    assert "make no parquet file" in refused(
        tmp_path / "mixed.jsonl", "--model", trunk, "--out", tmp_path / "out.parquet"
    )
    assert "tab or a line break" in refused(tmp_path / "tabs.jsonl", "--model", trunk, "--out", tmp_path / "out.tsv")
    assert {path.suffix for path in tmp_path.iterdir()} == {".jsonl"}


def test_nothing_to_go_on_with_is_not_promised(trunk: Path, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.labelling.command.label_rows", _interrupted)
    assert "--resume" not in classify(table, "--model", trunk).stderr
    assert [path for path in table.parent.iterdir() if path != table] == []


def test_a_forced_run_that_was_interrupted_can_go_on(trunk: Path, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = table.with_name("out.csv")
    out.write_text("old")
    common = (table, "--model", trunk, "--out", out)
    with monkeypatch.context() as patch:
        patch.setattr("cli.labelling.command.write_output", _interrupted)
        done = classify(*common, "--force")
    assert "stopped after 5 of 5 rows; --resume goes on" in done.stderr
    assert out.read_text() == "old"
    assert "is already there" in refused(*common)
    assert classify(*common, "--resume").exit_code == 0
    assert len(rows_of(out)) == 5
    assert "nothing to go on with" in classify(*common[:-1], table.with_name("new.csv"), "--resume").stderr


def _interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


def test_a_language_model_needs_labels(tiny_llama_dir: Path, table: Path) -> None:
    assert "is a language model; name the labels" in refused(table, "--model", tiny_llama_dir)


class Counting:
    """Labels by the length of texts; fails at the text that it is told."""

    labels = LABELS

    def __init__(self, fail_at: str | None = None) -> None:
        self.seen: list[str] = []
        self._fail_at = fail_at

    def __call__(self, texts: Sequence[str]) -> list[Scores]:
        if self._fail_at in texts:
            raise KeyboardInterrupt
        self.seen += texts
        return [Scores([share := len(text) % 7 / 8, 1 - share], truncated=False) for text in texts]


def labelled(source: Source, journal: Journal, labeller: Counting, out: Path) -> Path:
    """Label what is left, and write the file."""
    label_rows(source, labeller, journal, 200, Tally.over(LABELS))
    tally = Tally.over(LABELS)
    write_output(source, LABELS, journal, Names("label"), out, tally)
    assert tally.rows == 200
    journal.remove()
    return out


@pytest.mark.parametrize("torn", [False, True])
def test_what_was_done_is_not_done_again(tmp_path: Path, torn: bool) -> None:
    (tmp_path / "rows.jsonl").write_text(
        "".join(json.dumps({"text": f"text {i}" * (i % 9)}) + "\n" for i in range(200))
    )
    source, path, work = Source(tmp_path / "rows.jsonl", "text"), tmp_path / ".journal", {"model": "a"}
    whole = labelled(source, Journal(tmp_path / ".other", work, resume=False), Counting(), tmp_path / "whole.csv")
    journal, first = Journal(path, work, resume=False), Counting(fail_at="text 100")
    with pytest.raises(KeyboardInterrupt):
        label_rows(source, first, journal, 200, Tally.over(LABELS))
    journal.close()
    if torn:  # a machine that lost its power in the middle of a line
        path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(HomegrownError, match="holds unfinished work; --resume"):
        Journal(path, work, resume=False)
    with pytest.raises(HomegrownError, match="is of other work"):
        Journal(path, {"model": "b"}, resume=True)
    rest, again = Counting(), Journal(path, work, resume=True)
    assert again.done == journal.done - torn > 0
    resumed = labelled(source, again, rest, tmp_path / "resumed.csv")
    assert resumed.read_bytes() == whole.read_bytes()
    with_text = sum(i % 9 > 0 for i in range(200))
    assert len(first.seen) + len(rest.seen) == with_text + torn
    assert not path.exists()


def _jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def _parquet(path: Path) -> list[dict[str, Any]]:
    from pyarrow import parquet

    return parquet.read_table(path).to_pylist()


def _tsv(path: Path) -> list[dict[str, Any]]:
    header, *rows = (line.split("\t") for line in path.read_text("utf-8").splitlines())
    return [dict(zip(header, row, strict=True)) for row in rows]


@pytest.mark.parametrize(("name", "read"), [
    ("out.csv", rows_of),
    ("out.jsonl", _jsonl),
    ("out.json", lambda path: json.loads(path.read_text("utf-8"))),
    ("out.parquet", _parquet),
    ("out.tsv", _tsv),
])  # fmt: skip
def test_rows_come_out_as_they_went_in(tmp_path: Path, name: str, read: Callable[[Path], Any]) -> None:
    texts = ["plain", 'quo"ted', "ü ☃ 😀", "semi;colon,comma"] + (
        [] if name.endswith("tsv") else ["line\nbreak\tand tab"]
    )
    records = [{"a": text, "b": text.upper()} for text in texts]
    write_records(tmp_path / name, records)
    assert read(tmp_path / name) == records


def test_what_a_kind_of_file_cannot_hold_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="tab or a line break"):
        write_records(tmp_path / "a.tsv", [{"a": "x\ty"}])
    with pytest.raises(DataError, match="row 2: 'b' isn't in every row"):
        write_records(tmp_path / "a.csv", [{"a": "x"}, {"a": "y", "b": "z"}])
    with pytest.raises(DataError, match="make no parquet file"):
        write_records(tmp_path / "a.parquet", [{"a": "x"}, {"a": 3}])
    assert list(tmp_path.iterdir()) == []
    write_records(tmp_path / "a.jsonl", [{"a": "x", "b": "\ud800"}, {"c": None}])
    assert [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()][1] == {"c": None}


def test_who_may_read_the_labels_is_up_to_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        for name in ("a.csv", "a.jsonl", "a.parquet"):
            write_records(tmp_path / name, [{"text": "a private word"}])
            assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)


def test_a_files_own_way_is_kept(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    (tmp_path / "a.csv").write_text("id;text\n1;x\n")
    assert Source(tmp_path / "a.csv", "text").delimiter == ";"
    table = pyarrow.table({"id": pyarrow.array([1, None], pyarrow.int8()), "text": ["a", "b"]})
    parquet.write_table(table, tmp_path / "a.parquet")
    source = Source(tmp_path / "a.parquet", "text")
    records = [{**row.values, "label": "good", "score": 0.5} for row, _ in source.rows()]
    write_records(tmp_path / "b.parquet", records, schema=source.schema)
    schema = parquet.read_schema(tmp_path / "b.parquet")
    assert (schema.field("id").type, schema.field("score").type) == (pyarrow.int8(), pyarrow.float64())
