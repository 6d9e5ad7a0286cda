"""docs/models.md: every figure from the measures, and the committed page the one that the committed figures make."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from finished_course import stronger_too

from model.errors import ConfigError
from model.files import read_json
from training.errors import DataError
from training.models.figures import Figures, collect, sizes, thinned
from training.models.limits import limits
from training.models.page import BEGIN, END, page, rebuild, with_table, write_page
from training.models.places import BASE, Places
from training.models.publish import publish
from training.models.steps import command_lines
from training.models.tables import answers_table, classifiers_table, few_shot_table, margin, short_table, texts_table

ROOT = Path(__file__).parents[3]


def figures_of(places: Places) -> Figures:
    """As the course of these places collects them."""
    return collect(places, command_lines(places))


def with_stronger(places: Places) -> Places:
    """A course that measures a stronger model too, and has done so."""
    stronger_too(places.work)
    return replace(places, stronger=places.work)


@pytest.mark.skipif(
    not (ROOT / "checkpoints" / BASE / "adapters").is_dir(), reason="what is bundled is not of a finished course"
)
def test_the_committed_page_and_readme_are_what_the_committed_figures_make() -> None:
    figures = read_json(ROOT / "docs/models/figures.json")
    assert (ROOT / "docs/models.md").read_text("utf-8") == page(figures)
    readme = (ROOT / "README.md").read_text("utf-8")
    assert readme == with_table(readme, figures)
    assert figures["sizes"] == sizes(ROOT / "checkpoints" / BASE)


def test_the_readme_has_a_place_for_the_table() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert readme.count(BEGIN) == readme.count(END) == 1


def test_the_page_is_whole_and_can_be_made_again_without_the_runs(places: Places) -> None:
    places = with_stronger(places)
    commands = command_lines(places)
    publish(places, commands)
    written = write_page(places, commands)
    text = written.read_text("utf-8")
    for figure in (
        "1.900",
        "2.500",
        "8,192",
        "2,664 bytes",
        "1.200",
        "99.00 %",
        "45.00 %",
        "2.0500",
        "+2.00 (-1.00 to +5.00)",
        "135 M",
        "CC BY 4.0",
    ):
        assert figure in text, figure
    assert "    # a time" in text  # what a model wrote is no heading
    assert "/home/me" not in text
    assert str(places.work) not in text
    assert (places.docs / "models" / "loss.png").read_bytes().startswith(b"\x89PNG")
    readme = places.readme.read_text("utf-8")
    assert readme.startswith(f"# Mine\n\n{BEGIN}\n\n| model |")
    assert readme.endswith(f"{END}\n\nThe end.\n")
    assert "old" not in readme.split("|")[0]
    written.unlink()
    (places.docs / "models" / "loss.png").unlink()
    shutil.rmtree(places.work)
    (places.checkpoints / BASE / "recipe.toml").write_text("x" * 1_000_000)  # what lies there now is what is said
    assert rebuild(places) == written
    again = written.read_text("utf-8")
    assert again != text
    assert again.replace("| 1.0 |", "| 0.0 |") == text
    assert (places.docs / "models" / "loss.png").is_file()


def test_figures_hold_no_path_of_the_machine_and_only_what_is_shown(places: Places) -> None:
    path = places.work / "measures" / "base-sms-4.json"
    content = json.loads(path.read_text())
    content["results"][0]["notes"] = [f"4 examples drawn from {places.work}/sms-data/train.jsonl by seed 0"]
    path.write_text(json.dumps(content))
    figures = figures_of(places)
    assert figures["measures"]["base-sms-4"]["results"][0]["notes"] == [
        "4 examples drawn from runs/models/sms-data/train.jsonl by seed 0"
    ]
    assert str(places.work) not in json.dumps(figures)
    assert "reliability" not in figures["classifiers"]["sms-spam"][0]["details"]
    assert "name" not in figures["measures"]["base-text"]["model"]


def test_without_a_stronger_model_its_column_is_left_out_and_that_is_said(places: Places) -> None:
    figures = figures_of(places)
    table = texts_table(figures)
    assert [len(row) for row in table.rows] == [len(table.header)] * 6 == [3] * 6
    assert "of wikitext2_valid.txt.gz." in table.note  # how it was measured
    assert "left out" not in table.note
    assert "No stronger model" in table.note
    assert not any(
        "SmolLM2" in text
        for text in (answers_table(figures).markdown(), few_shot_table(figures).markdown(), *limits(figures))
    )
    assert not any(name.startswith("stronger") for name in figures["measures"])
    stronger_too(places.work)
    assert not any(name.startswith("stronger") for name in figures_of(places)["measures"])  # of an earlier course
    table = texts_table(figures := figures_of(with_stronger(places)))
    assert [len(row) for row in table.rows] == [len(table.header)] * 6 == [4] * 6
    assert table.rows[0] == ["WikiText-2, validation: bits a byte", "1.9000", "2.5000", "1.2000"]
    assert table.rows[1] == ["validation split: bits a byte", "1.6500", "2.2500", "0.9500"]
    assert "135 M parameters and reads 8,192 tokens" in table.note
    sentence = next(text for text in limits(figures) if "SmolLM2" in text)
    assert "ahead in WikiText-2, FairytaleQA's F1, the held-out instructions' F1." in sentence
    assert "behind in SMS spam with no examples" in sentence
    assert "Not told apart, since their intervals overlap: LAMBADA, HellaSwag." in sentence  # 26 and 40 of 100


def test_what_they_cannot_do_follows_the_figures(places: Places) -> None:
    said = " ".join(limits(figures_of(places)))
    assert "missed in 88.00 % of passages" in said
    assert "not surely better than chance (26.00 %, chance 25.00 %)" in said
    assert "55.00 % of its answers go on until they are cut" in said
    assert (
        "SST-2, dev set, homegrown-base, no examples" in said
    )  # 55 of 100: the interval reaches down to the majority's 50
    (places.work / "measures" / "base-hellaswag.json").unlink()
    assert "HellaSwag" not in " ".join(limits(figures_of(places)))


def test_tables_compare_what_was_measured(places: Places) -> None:
    figures = figures_of(places)
    assert margin(figures) == pytest.approx({"WikiText-2, validation": 0.6, "validation split": 0.6})
    first = classifiers_table(figures).rows[0]
    assert first[0] == "SMS spam (100 rows)"
    assert first[3].startswith("70.00 % (")
    assert first[5].startswith("50.00 %")
    assert [row[0] for row in classifiers_table(figures).rows[1:]] == [
        "SMS spam, those that share no six words with a training row (100 rows)",
        "SST-2, dev set (100 rows)",
        "rt-polarity, sentences apart from SST-2's (100 rows)",
    ]
    assert [row[0] for row in short_table(figures).rows] == ["0", "0", "1", "2"]
    assert short_table(figures).note == "Runs of different seeds lie 0.1000 bits a byte apart; those of seed 0 0.0000."
    rows = answers_table(figures).rows
    assert [row[1] for row in rows[:3]] == [
        "homegrown-base",
        "with the adapter instruct",
        "(first sentence of the text)",
    ]


def test_the_curve_is_thinned_to_its_end_and_keeps_every_validation() -> None:
    log = [{"step": i, "tokens_seen": i, "loss": 1 / i, "grad_norm": 1.0} for i in range(1, 2001)]
    log += [{"step": i, "tokens_seen": i, "validation_loss": 2.0} for i in (500, 1000)] + [
        {"step": 3, "tokens_seen": 3, "sample": "x"}
    ]
    rows = thinned(log)
    assert 250 <= sum("loss" in row for row in rows) <= 300
    assert rows[-1]["step"] == 2000
    assert [row["step"] for row in rows if "validation_loss" in row] == [500, 1000]
    assert all(set(row) <= {"step", "tokens_seen", "loss", "validation_loss"} for row in rows)


@pytest.mark.parametrize(("gone", "error", "text"), [
    ("measures/base-text.json", DataError, "--only measure"), ("sms-spam/evaluation.json", ConfigError, "--only sms-spam"),
    ("sms-data/report.json", ConfigError, "--only sms-data"), (f"{BASE}/log.jsonl", DataError, "the step base"),
    ("validation/report.json", ConfigError, "--only measure"),
])  # fmt: skip
def test_what_is_missing_is_named_with_the_step_that_makes_it(
    places: Places, gone: str, error: type[Exception], text: str
) -> None:
    (places.work / gone).unlink()
    with pytest.raises(error, match=re.escape(gone.split("/")[-1 if "measures" not in gone else 0])) as raised:
        figures_of(places)
    assert text in str(raised.value)


def test_a_page_without_figures_and_a_readme_without_marks_are_refused(places: Places) -> None:
    with pytest.raises(ConfigError, match=r"figures.json: isn't there; .*--only page"):
        rebuild(places)
    with pytest.raises(ConfigError, match="models: begin"):
        with_table("# Mine", {})
