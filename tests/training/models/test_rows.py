"""The rows of the bundled instruct model and of the sentiment classifier: nothing that measures them trains them."""

import gzip
import json
from pathlib import Path

import pytest

from training.data.held_out import HeldOut
from training.errors import DataError
from training.models import mixture
from training.models.mixture import write_mixture
from training.models.sentiment import write_sentiment


def words(name: str, count: int = 20) -> str:
    return " ".join(f"{name}{i}" for i in range(count))


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def zipped(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as shared/data is, with a few rows in each set."""
    folder = tmp_path / "data"
    questions = [
        {"instruction": f"What is {n}?", "input": words("tale"), "output": words(f"answer{n} ", 2)} for n in range(5)
    ]
    leak = {"instruction": "Who?", "input": words("measured"), "output": "he"}
    zipped(folder / "instruct/fairytaleqa_train.jsonl.gz", [*questions, leak])
    zipped(folder / "eval/held.jsonl.gz", [{"text": words("measured", 15)}])
    templates = [f"{name}_x" for name in mixture._T0 for _ in range(2)] + ["rotten_tomatoes_x"]
    zipped(
        folder / "instruct/t0_short.jsonl.gz",
        [
            {"prompt": f"Prompt {n} of {name}?", "completion": f"yes{n}<|endoftext|>", "template": name}
            for n, name in enumerate(templates)
        ],
    )
    short = [{"instruction": words(f"do{n} "), "input": "", "output": f"done {n}"} for n in range(60)]
    (folder / "instruct/rasbt_instruction-data.json").write_text(json.dumps(short))
    task = {"instruction": "Name a fruit.", "instances": [{"input": "", "output": "an apple"}]}
    (folder / "instruct/self_instruct_seed_tasks.jsonl").write_text(json.dumps(task) + "\n")
    said = [f'"{words(f"para{n} ", 22)}," she said.' for n in range(6)]
    said = [f"So {text}" for text in said]
    documents = [
        "The cat\n\n" + "\n\n".join(said[:4]),
        "\n\n".join(said),
        "In this chapter\n\nwe learn.\n\nMuch.\n\nSo.",
    ]
    (folder / "pretrain").mkdir()
    (folder / "pretrain/mix_train.txt.gz").write_bytes(gzip.compress("\n<|endoftext|>\n".join(documents).encode()))
    return folder


@pytest.fixture
def recipe(tmp_path: Path, data: Path) -> Path:
    path = tmp_path / "base.toml"
    path.write_text(
        '[data]\nvalidation_fraction = 0.0001\n[data.filters]\nheld_out = ["elsewhere/eval/held.jsonl.gz"]\n[run]\nsteps = 1\n'
    )
    return path


def test_every_source_gives_its_rows_and_what_is_measured_stays_out(tmp_path: Path, data: Path, recipe: Path) -> None:
    path = write_mixture(data, tmp_path / "out", recipe=recipe)
    rows = rows_of(path)
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["rows"] == len(rows) == sum(source["rows"] for source in report["sources"].values())
    assert all(source["rows"] for source in report["sources"].values())
    assert report["sources"]["FairytaleQA"] == {"rows": 5, "left out, held-out text": 1}
    assert not any("measured" in json.dumps(row) for row in rows)
    assert not any("rotten" in json.dumps(row) for row in rows)
    assert not any("<|endoftext|>" in json.dumps(row) or "chapter" in json.dumps(row) for row in rows)
    kept_out = HeldOut(row["instruction"] for row in rows_of(tmp_path / "out/held_out.jsonl"))
    assert 0 < report["held out"] < 20
    assert not any(kept_out.passages(row.get("instruction", "")) for row in rows)
    (conversation,) = (row["messages"] for row in rows if "messages" in row)
    assert [message["role"] for message in conversation] == ["user", "assistant"] * 4
    assert words("tale") in conversation[0]["content"]
    assert all(words("tale") not in message["content"] for message in conversation[1:])


def test_the_same_seed_gives_the_same_rows(tmp_path: Path, data: Path, recipe: Path) -> None:
    first = write_mixture(data, tmp_path / "a", recipe=recipe).read_bytes()
    assert write_mixture(data, tmp_path / "b", recipe=recipe).read_bytes() == first
    assert write_mixture(data, tmp_path / "c", recipe=recipe, seed=1).read_bytes() != first


def test_a_missing_set_is_named_and_nothing_is_written(tmp_path: Path, data: Path, recipe: Path) -> None:
    (data / "instruct/t0_short.jsonl.gz").unlink()
    with pytest.raises(DataError, match="t0_short"):
        write_mixture(data, tmp_path / "out", recipe=recipe)
    assert not (tmp_path / "out").exists()


def test_no_sentence_of_the_reviews_is_on_two_sides(tmp_path: Path) -> None:
    folder = tmp_path / "data/classify"
    folder.mkdir(parents=True)
    sentence = [words(f"s{n} ", 16) for n in range(1200)]
    phrases = [f"{n % 2}\t{sentence[n]}" for n in range(1100)]
    phrases += [f"{n % 2}\t{' '.join(sentence[n].split()[4:14])}" for n in range(1100)] + ["1\tgood", "0\ttoo bad"]
    (folder / "sst2_train.tsv.gz").write_bytes(gzip.compress("\n".join(["label\tsentence", *phrases]).encode()))
    dev = [f"1\t{sentence[n]}" for n in range(1100, 1110)]
    (folder / "sst2_dev.tsv").write_text("\n".join(["label\tcontent", *dev]))
    for name, odd in (("neg", 0), ("pos", 1)):
        chosen = [sentence[n] for n in range(1200) if n % 2 == odd]
        (folder / f"rt-polarity.{name}.txt").write_text("\n".join(chosen))
    out = write_sentiment(tmp_path / "data", tmp_path / "out")
    sides = {
        name: [row["text"] for row in rows_of(out / f"{name}.jsonl")]
        for name in ("train", "validation", "test_sst2", "test_rt")
    }
    assert [len(sides[name]) for name in ("validation", "test_sst2", "test_rt")] == [1000, 10, 90]
    assert {"good", "too bad"} <= set(sides["train"])
    assert len(sides["train"]) == 2 + 100 * 3  # of a hundred sentences: SST-2's two rows and rt-polarity's
    of = {name: {text.split()[0] for text in texts if len(text.split()) > 9} for name, texts in sides.items()}
    for name in ("validation", "test_sst2", "test_rt"):
        held = HeldOut(sides[name], run=6)
        assert not any(held.passages(text) for text in sides["train"]), name
    assert not of["validation"] & of["test_sst2"]
    assert not of["validation"] & of["test_rt"]
