"""A run's report and its model card: everything in one file, from the log alone, whatever was in it."""

import base64
import json
import re
import shlex
import struct
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from model.config import preset
from training import environment as environments
from training.card import Change, PretrainResult, base_name, card, environment_text, model_card
from training.curves import curves, points, smoothed
from training.data.shards import Manifest, SourceFile, SplitCounts
from training.environment import command, environment, git_commit
from training.evaluate.perplexity import Score
from training.pretrain_recipe import PretrainSettings
from training.report import write_report
from training.state import Counters
from training.table import Table

PICTURES = {"loss.png", "learning_rate.png", "gradient_norm.png", "throughput.png"}
VOID = {"meta", "img", "source", "br", "link", "input", "hr"}


def log_rows(steps: int = 60) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        seen = {"step": step, "tokens_seen": 1000 * step}
        rows.append(
            seen | {
                "loss": 2 + 8 / step if step != 7 else None, "grad_norm": 50.0 if step == 30 else 0.5, "lr_factor": step / steps,
                "tokens": 1000, "tokens_per_second": 500, "mfu": 0.25, "memory_mb": 2048, "seconds": 2.0 * step,
            }
        )  # fmt: skip
        if step % 10 == 0:
            loss = 2.4 + abs(step - 40) / 100  # lowest at 40
            rows.append(seen | {"validation_loss": loss, "validation_accuracy": step / 100, "seconds": 2.0 * step})
            rows += [seen | {"sample": f"<b>tale</b> {step} & more\n  indented"}, seen | {"sample": f"another {step}"}]
    return rows


def write_log(directory: Path, rows: list[dict[str, Any]], tail: str = "") -> None:
    directory.mkdir(exist_ok=True)
    (directory / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + tail)


def write(directory: Path, **more: Any) -> str:
    fields: dict[str, Any] = {
        "settings": {
            "name": "x",
            "data": {"corpus": ["a.txt", "b.txt"], "filters": {"min": 1}},
            "run": {"bf16": True, "steps": None},
        },
        "environment": {"command": "homegrown pretrain 'my recipe.toml'", "PyTorch": "2"},
    }  # fmt: skip
    return write_report(directory, "A <title>", **(fields | more)).read_text()


class Page(HTMLParser):
    """A page's tags in balance, its addresses, its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.text: list[str] = []
        self.seen: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "srcset", "href", "action", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def png_size(content: bytes) -> tuple[int, int]:
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert content.rstrip().endswith(b"IEND\xaeB`\x82")
    width, height = struct.unpack(">II", content[16:24])
    return width, height


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """After a kill: the log's last line is half."""
    directory = tmp_path_factory.mktemp("run")
    write_log(directory, log_rows(), tail='{"step": 61, "los')
    tables = [
        Table("Measures", ["model", "loss"], [["this | one", "2.4"], ["5-gram", "3.1"]], "A note <i>.", strong=0),
        Table("Data", ["split", "tokens"], [["train", "1,000"]]),
    ]
    return directory, write(directory, tables=tables, summary="Small.", references={"5-gram": 3.1})


def test_the_page_is_whole_and_needs_nothing_else(written: tuple[Path, str]) -> None:
    directory, text = written
    page = Page(text)
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert not re.search(r"https?://|url\(|@import|<script|<link", text)
    assert {path.name for path in directory.iterdir()} == {"log.jsonl", "report.html", *PICTURES}
    for tag in ("html", "head", "style", "body", "table", "figure"):
        assert tag in page.seen
    assert "prefers-color-scheme: dark" in text


def test_its_figures_are_the_pictures_beside_it_in_light_and_dark(written: tuple[Path, str]) -> None:
    directory, text = written
    embedded = [base64.b64decode(address.partition(",")[2]) for address in Page(text).addresses]
    assert len(embedded) == 2 * len(PICTURES)
    on_disk = {(directory / name).read_bytes() for name in PICTURES}
    assert on_disk < set(embedded)
    assert len(set(embedded)) == 8
    for picture in embedded:
        width, height = png_size(picture)
        assert width > height > 300


def test_it_tells_the_runs_figures(written: tuple[Path, str]) -> None:
    text = " ".join(Page(written[1]).text)
    for part in (
        "A <title>", "Small.", "2.6000", "2.4000", "60.0k", "02:00", "500", "25%", "2.0 GiB",  # the tiles
        "Measures", "this | one", "3.1", "A note <i>.", "Data", "1,000",
        "Validation on the way", "validation accuracy", "40,000",
        "<b>tale</b> 60 & more", "another 10", "earlier ones",
        "corpus", "a.txt, b.txt", "filters.min", "yes", "–", "homegrown pretrain 'my recipe.toml'",
    ):  # fmt: skip
        assert part in text, part
    assert re.search(r'class="strong"><td>40</td>', written[1])  # the lowest loss


def test_a_report_can_be_written_again_as_the_run_goes_on(tmp_path: Path) -> None:
    write_log(tmp_path, log_rows(20))
    assert "<b>20</b>" in write(tmp_path)
    write_log(tmp_path, log_rows(30))
    assert "<b>30</b>" in write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"log.jsonl", "report.html", *PICTURES}


@pytest.mark.parametrize(
    "rows", [[], log_rows(1), [{"step": 1, "tokens_seen": 5, "validation_loss": None, "seconds": 1}]]
)
def test_a_run_with_next_to_no_log_has_a_report(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    write_log(tmp_path, rows)
    text = write(tmp_path)
    Page(text)
    assert "too few lines to draw" in text
    assert {path.name for path in tmp_path.iterdir()} == {"log.jsonl", "report.html"}


def test_without_a_log_too(tmp_path: Path) -> None:
    Page(write(tmp_path))


def test_without_matplotlib_the_report_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.ticker"):
        monkeypatch.setitem(sys.modules, name, None)
    write_log(tmp_path, log_rows())
    text = write(tmp_path)
    Page(text)
    assert "matplotlib is not installed" in text
    assert "Validation on the way" in text
    assert not list(tmp_path.glob("*.png"))


def test_long_runs_are_thinned_but_keep_the_best_and_the_last(tmp_path: Path) -> None:
    rows = [
        {"step": i, "tokens_seen": i, "validation_loss": 1.0 if i == 333 else 2.0, "seconds": i} for i in range(1, 1001)
    ]
    rows += [{"step": i, "tokens_seen": i, "sample": f"sample-{i}-end"} for i in range(1, 1001)]
    write_log(tmp_path, rows)
    text = write(tmp_path)
    assert 20 <= len(re.findall(r"<td>[\d,]+</td><td>[\d,]+</td><td>[12]\.0000</td>", text)) <= 30
    assert 'class="strong"><td>333</td>' in text
    assert "<td>1,000</td>" in text
    assert 5 <= len(re.findall(r"sample-\d+-end", text)) <= 15
    assert "sample-1000-end" in text
    assert "sample-1-end" in text


def test_a_log_of_fine_tuning_without_tokens_a_second_draws_what_it_has() -> None:
    rows = [{"step": i, "tokens_seen": 10 * i, "loss": 1.0 / i, "validation_loss": 1.0} for i in range(1, 5)]
    assert set(curves(rows)) == {"loss.png"}
    assert points(rows, "loss")[1] == (20, 0.5)


def test_smoothing_lags_nowhere_and_spikes_leave_no_trace() -> None:
    line = [100.0 - i for i in range(100)]
    assert smoothed(line)[:90] == line[:90]
    spiked = [1.0] * 50 + [1000.0] + [1.0] * 49
    assert smoothed(spiked) == [1.0] * 100
    assert smoothed([3.0]) == [3.0]
    assert smoothed([]) == []


def result(**more: Any) -> PretrainResult:
    recipe = {"name": "tiny: a model", "data": {"about": "Made-up | sentences."}, "run": {"steps": 30, "bf16": False}}
    settings = PretrainSettings.model_validate(recipe)
    splits = {"train": SplitCounts(10, 5000, 20_000), "validation": SplitCounts(2, 1000, 4000)}
    account = {"kept": {"documents": 12, "bytes": 24_000}, "dropped": {"too short": {"documents": 3, "bytes": 17}}}
    manifest = Manifest("x", 4096, "uint16", 0, 0.1, [SourceFile("a.txt")], account, splits)
    fields: dict[str, Any] = {
        "settings": settings, "config": preset("homegrown-4m"), "manifest": manifest,
        "counters": Counters(30, 60, 15_000, 90.0), "score": Score(3000.0, 1000),
        "baselines": [{"order": 5.0, "loss": 3.5, "bits_per_byte": 1.5}],
        "environment": {"command": "homegrown pretrain r.toml --out 'my run'", "PyTorch": "2.13", "commit": "abc"},
    }  # fmt: skip
    return PretrainResult(**(fields | more))


def front_matter(text: str) -> dict[str, Any]:
    _, front, rest = text.split("---\n", 2)
    assert rest.startswith("# ")
    return yaml.safe_load(front)


def test_a_card_carries_the_runs_figures_and_how_to_make_it_again() -> None:
    text = model_card(result())
    assert front_matter(text) == {
        "library_name": "transformers", "pipeline_tag": "text-generation", "tags": ["homegrown", "llama"],
    }  # fmt: skip
    for part in (
        "# tiny: a model\n", "pretrained from scratch", "| **this model** | **3.0000** | **1.0820** |", "| 5-gram", "bits a byte",
        "perplexity 20.09 over 1,000 tokens", "| train | 10 | 5,000 | 20,000 |", "| left out: too short | 3 |  | 17 |",
        "Made-up | sentences.", "30 updates of",
        "15,000 tokens in all (3.00 passes", "2 minutes", "```\nhomegrown pretrain r.toml --out 'my run'\n```", "PyTorch 2.13",
        "commit abc", "follows no instructions", "float32; seed 0",
    ):  # fmt: skip
        assert part in text, part
    assert "What the new text changed" not in text
    assert "each document alone, in windows of 512" in text
    stream = result().settings.model_copy(
        update={"data": result().settings.data.model_copy(update={"document_mask": False})}
    )
    assert "the split as one stream, in windows of 512" in model_card(result(settings=stream))


def test_a_card_of_continued_pretraining_names_its_base_and_shows_both_texts_before_and_after() -> None:
    changes = [
        Change("this corpus", Score(4000.0, 1000), Score(3000.0, 1000), 4000),
        Change("general text", Score(3000.0, 1000), Score(3100.0, 1000), 4000),
    ]
    text = model_card(result(base="owner/name", changes=changes, baselines=[]))
    assert front_matter(text)["base_model"] == "owner/name"
    for part in (
        "pretrained further from owner/name", "that model's vocabulary", "## What the new text changed",
        "| this corpus | 54.60 | 20.09 | 1.4427 | 1.0820 |", "| general text | 20.09 | 22.20 | 1.0820 | 1.1181 |",
    ):  # fmt: skip
        assert part in text, part
    assert "n-gram" not in text


def test_a_local_base_is_named_but_its_path_is_not(tmp_path: Path) -> None:
    text = model_card(result(base=str(tmp_path / "mine")))
    assert "further from mine" in text
    assert str(tmp_path) not in text
    assert "base_model" not in front_matter(text)
    (tmp_path / "run" / "model").mkdir(parents=True)
    assert base_name(str(tmp_path / "run" / "model")) == "run"  # every run calls its result so
    assert base_name("gpt2") == "gpt2"
    assert base_name("owner/name") == "owner/name"


def test_a_directory_with_a_name_like_a_repositorys_is_no_base_of_a_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert front_matter(card("t", "s", {}, base="runs/model"))["base_model"] == "runs/model"
    (tmp_path / "runs" / "model").mkdir(parents=True)
    assert "base_model" not in front_matter(card("t", "s", {}, base="runs/model"))
    assert base_name("runs/model") == "runs"
    monkeypatch.chdir(tmp_path / "runs")
    assert base_name("model") == "runs"


def test_what_the_baselines_are_of_is_said() -> None:
    assert "They are of its first 7 tokens" in model_card(result(baselines_note="They are of its first 7 tokens."))


def test_a_cards_empty_sections_are_left_out_and_its_front_matter_is_safe() -> None:
    text = card(
        "a: b", "S.", {"One": "text", "None": " "}, task="text-classification", library="peft", tags=["x: y", "'"]
    )
    assert front_matter(text)["tags"] == ["homegrown", "x: y", "'"]
    assert front_matter(text)["library_name"] == "peft"
    assert "## One\n\ntext" in text
    assert "## None" not in text
    assert environment_text({}) == ""


def test_a_tables_cells_cannot_break_it() -> None:
    table = Table("T", ["a", "b"], [["x | y", "two\nlines"], ["p", "q"]], "Note.", strong=1)
    lines = table.markdown().splitlines()
    assert lines == ["| a | b |", "|---|---|", "| x \\| y | two lines |", "| **p** | **q** |", "", "Note."]


def test_the_environment_is_enough_to_make_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/some/where/cli/__main__.py", "pretrain", "my recipe.toml", "--out", "x"])
    found = environment("cpu")
    assert found["command"] == "homegrown pretrain 'my recipe.toml' --out x"
    assert {"homegrown", "Python", "PyTorch", "system", "device"} <= set(found)
    monkeypatch.setattr(sys, "argv", ["/some/where/bin/homegrown", "finetune"])
    assert command() == "homegrown finetune"
    paths = ["/home/me/r.toml", "/a/b/c/", "~/x/y/z", "/one", "a/b/c.txt", "--out=/a/b/run", "--on", "wikitext2=/a/b/c d.txt",
             'data.tokenizer="/a/b/t.json"', "run.minutes=0.5", "hf:owner/name@a/b"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["/some/where/bin/homegrown", *paths])
    assert shlex.split(command())[1:] == [
        "me/r.toml", "b/c", "y/z", "one", "a/b/c.txt", "--out=b/run", "--on", "wikitext2=b/c d.txt",
        'data.tokenizer="b/t.json"', "run.minutes=0.5", "hf:owner/name@a/b",
    ]  # fmt: skip
    monkeypatch.setattr(environments, "_ROOT", tmp_path)
    assert "commit" not in environment("cpu")


def test_the_commit_is_that_of_the_checkout_and_says_when_files_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert git_commit(tmp_path) is None

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
        return subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    git("init", "-q")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-q", "-m", "first")
    assert git_commit(tmp_path) == git("rev-parse", "HEAD")
    (tmp_path / "file").write_text("2")
    assert git_commit(tmp_path) == git("rev-parse", "HEAD") + ", with changes"
    monkeypatch.setenv("PATH", "")
    assert git_commit(tmp_path) is None
