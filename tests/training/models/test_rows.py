"""The rows that the bundled adapters learn from: what measures is not in them, and no text stands on two sides."""

import gzip
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tiny_course import WORDS

from training.data.held_out import HeldOut
from training.models.mixture import write_mixture
from training.models.sentiment import write_sentiment

RECIPE = """
[data]
validation_fraction = 0.2
[data.filters]
held_out = ["{data}/eval/lambada_test.jsonl.gz"]
[run]
steps = 1
"""
RNG = random.Random(3)


def words(n: int) -> str:
    return " ".join(RNG.choice(WORDS) for _ in range(n))


def put_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "\n".join(map(json.dumps, rows)).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, str]:
    """Small sets of every kind, and the passage that measures, which stands in one row of each that can hold it."""
    monkeypatch.setattr("training.models.mixture._T0", {"sciq": 5})
    measured, data = words(30), tmp_path / "data"
    put_jsonl(data / "eval/lambada_test.jsonl.gz", [{"text": measured}])
    short = [{"instruction": f"Say {i} in {words(3)}", "input": "", "output": words(2)} for i in range(60)]
    (data / "instruct").mkdir()
    (data / "instruct/rasbt_instruction-data.json").write_text(json.dumps([*short, {**short[0], "output": measured}]))
    sections = [words(40) for _ in range(6)]
    tales = [
        {"instruction": f"Who is {n}?", "input": section, "output": words(2)} for section in sections for n in range(4)
    ]
    tales.append({"instruction": "Who?", "input": f"{words(9)} {measured} {words(9)}", "output": "nobody"})
    put_jsonl(data / "instruct/fairytaleqa_train.jsonl.gz", tales)
    asked = [{"template": "sciq_x", "prompt": words(12), "completion": words(2)} for _ in range(4)]
    put_jsonl(data / "instruct/t0_short.jsonl.gz", [*asked, {**asked[0], "prompt": measured}])
    instances = [{"input": "", "output": measured}, {"input": words(3), "output": words(3)}]
    put_jsonl(data / "instruct/self_instruct_seed_tasks.jsonl", [{"instruction": words(4), "instances": instances}])
    tale = "\n\n".join(["The cat of the hill", *(f'"{words(40).capitalize()}."' for _ in range(5)), f"A {measured}."])
    (data / "pretrain").mkdir()
    (data / "pretrain/mix_train.txt.gz").write_bytes(
        gzip.compress("\n<|endoftext|>\n".join([tale, words(400)]).encode())
    )
    (tmp_path / "base.toml").write_text(RECIPE.format(data=data))
    return data, measured


def test_no_row_holds_what_is_measured(sources: tuple[Path, str], tmp_path: Path) -> None:
    data, measured = sources
    rows = rows_of(write_mixture(data, tmp_path / "out", recipe=tmp_path / "base.toml"))
    known = HeldOut([measured])
    assert [row for row in rows if known.passages(json.dumps(row))] == []
    left_out = json.loads((tmp_path / "out/report.json").read_text())["sources"]
    for name in ("FairytaleQA", "T0", "seed tasks"):
        assert left_out[name]["left out, held-out text"] == 1, name
    assert {row["source"] for row in rows} >= {
        "FairytaleQA",
        "FairytaleQA, several questions",
        "T0",
        "seed tasks",
        "own rows",
    }


def test_rows_about_one_text_are_one_group_and_the_held_out_are_not_learned(
    sources: tuple[Path, str], tmp_path: Path
) -> None:
    data, _ = sources
    rows = rows_of(write_mixture(data, tmp_path / "out", recipe=tmp_path / "base.toml"))
    sections = {row["input"] for row in rows if row["source"] == "FairytaleQA"}
    for section in sections:
        groups = {row["group"] for row in rows if section in json.dumps(row)}
        assert groups == {section}
        assert sum(row["group"] == section for row in rows) == 5  # four questions, and all of them as a conversation
    held_out = {row["instruction"] for row in rows_of(tmp_path / "out/held_out.jsonl")}
    assert held_out
    assert not held_out & {row["instruction"] for row in rows if row["source"].startswith("short")}


def test_no_sentence_of_a_film_review_is_on_two_sides(tmp_path: Path) -> None:
    data = tmp_path / "classify"
    data.mkdir()
    dev, phrases, apart = ([f"{words(14)} {side}" for _ in range(40)] for side in ("fine", "dull", "fine"))
    inside = [f"{words(4)} {phrase}" for phrase in phrases]  # rt-polarity's sentences, of which SST-2 has phrases
    (data / "sst2_dev.tsv").write_text("label\tcontent\n" + "\n".join(f"1\t{text}" for text in dev))
    leaked = [" ".join(dev[0].split()[2:10]), dev[1]]
    lines = [f"{i % 2}\t{text}" for i, text in enumerate([*phrases, *leaked])]
    (data / "sst2_train.tsv.gz").write_bytes(gzip.compress(("label\tsentence\n" + "\n".join(lines)).encode()))
    (data / "rt-polarity.pos.txt").write_text("\n".join([*inside[:20], *apart[:20], f"so {dev[2]}"]))
    (data / "rt-polarity.neg.txt").write_text("\n".join([*inside[20:], *apart[20:]]))
    monkey_rows = 10
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.models.sentiment._VALIDATION_ROWS", monkey_rows)
        written = write_sentiment(tmp_path, tmp_path / "out")
    sides = {
        side: [row["text"] for row in rows_of(written / f"{side}.jsonl")]
        for side in ("train", "validation", "test_sst2", "test_rt")
    }
    assert len(sides["validation"]) == monkey_rows
    assert sides["test_sst2"] == dev
    assert sorted(sides["test_rt"]) == sorted(apart)
    assert sides["train"]
    for one in sides:
        known = HeldOut(sides[one], run=6)
        for other in sides:
            shared = [text for text in sides[other] if known.passages(text)]
            assert one == other or not shared, (one, other)
