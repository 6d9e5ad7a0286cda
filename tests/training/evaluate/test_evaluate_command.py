"""`homegrown evaluate` from end to end, on the bundled model where it matters: tables, JSON, page, mistakes."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tiny import random_model, tiny_config

from cli.evaluate import evaluate as command
from model.checkpoint import save_model
from model.config import PRESETS, ModelConfig
from model.errors import ConfigError, HomegrownError
from model.tokenizer import Tokenizer
from training.errors import DataError
from training.evaluate.detect import detect
from training.evaluate.kinds import KINDS
from training.evaluate.paper import PUBLISHED, compare, family_member, paper_text, published_baseline
from training.evaluate.results import Figure, table
from training.evaluate.results import Result as Measured
from training.evaluate.subject import Options, load_subject
from training.evaluate.suite import measure, parse_target

STORY = "The old man took the boat out to sea, and the boy looked at the house. " * 8
FILES: dict[str, Any] = {
    "text": ("story.txt", STORY),
    "wikitext2": ("wiki.valid.txt", " \n = Green Boat = \n \n It is , he said , a well @-@ known boat . \n It sank . \n"),
    "lambada": ("l.jsonl", [{"text": "The boy saw his mother at the door. He ran to his mother"}] * 3),
    "hellaswag": ("h.jsonl", [{"ctx": "A man sits down. he", "label": 0, "endings": ["eats.", "blue", "of", "x y"]}] * 3),
    "fewshot": ("f.jsonl", [{"text": "Good.", "label": 1}, {"text": "Bad.", "label": 0}, {"text": "Fine.", "label": 1}]),
    "answers": ("a.jsonl", [{"instruction": "Say yes.", "output": "Yes."}] * 2),
}  # fmt: skip


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    paths = {}
    for kind, (name, content) in FILES.items():
        text = content if isinstance(content, str) else "\n".join(json.dumps(row) for row in content)
        (tmp_path / name).write_text(text, "utf-8")
        paths[kind] = str(tmp_path / name)
    return paths


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, [*arguments, "--threads", "1"])


def failed(*arguments: str) -> str:
    """What the one line of a mistake says."""
    result = run(*arguments)
    assert isinstance(result.exception, HomegrownError), result.exception
    assert "\n" not in str(result.exception)
    return str(result.exception)


def test_everything_at_once_on_the_bundled_model(files: dict[str, str], tmp_path: Path) -> None:
    targets = [argument for path in files.values() for argument in ("--on", path)]
    result = run(
        "homegrown-base", *targets, "--limit", "2", "--paper", "--json", str(tmp_path / "e.json"), "--out", str(tmp_path / "page"),
        "--baseline-corpus", files["text"], "--max-tokens", "6", "--label-name", "0=bad", "--label-name", "1=good",
    )  # fmt: skip
    assert result.exit_code == 0, result.exception
    for kind in files:
        assert f"\n{kind}: " in result.output
    assert "(--limit): a part, not the figures of the whole" in result.output
    assert "published figures: none to compare with" in result.output
    assert "n-grams were counted on the evaluated text itself" in result.output
    found = json.loads((tmp_path / "e.json").read_text())
    assert found["published"] is None
    assert found["model"]["parameters"] == 4_262_144
    assert [r["task"] for r in found["results"]] == list(files)
    for r in found["results"]:
        assert r["figures"]
        for figure in r["figures"]:
            assert figure["convention"] or figure["name"] in ("loss",)
            assert figure["value"] is not None
            assert f"{figure['name']}" in result.output
    assert {b["name"] for b in found["results"][0]["baselines"]} == {f"{n}-gram" for n in range(1, 6)}
    page = (tmp_path / "page" / "evaluation.html").read_text()
    assert page.count("data:image/png;base64,") >= len(files)
    assert not re.search(r'(src|href)="(?!data:)', page)  # nothing is fetched from anywhere
    assert len(list((tmp_path / "page").glob("*.png"))) == page.count("data:image/png;base64,")
    assert json.loads((tmp_path / "page" / "evaluation.json").read_text())["model"] == found["model"]


def test_json_alone_on_standard_output(files: dict[str, str]) -> None:
    result = run("homegrown-base", "--on", f"lambada={files['lambada']}", "--json", "-", "--bf16", "--device", "cpu")
    found = json.loads(result.stdout)
    (lambada,) = found["results"]
    assert lambada["limited"] is False
    assert found["model"]["arithmetic"].startswith("bfloat16")
    assert "published" not in found


def test_a_classifier_directory(tmp_path: Path) -> None:
    directory = tmp_path / "model"
    save_model(random_model(tiny_config("gpt2", labels=("bad", "good"), pad_token_id=50256)), directory)
    Tokenizer.gpt2().save(directory)
    rows = "mood,review\n" + "".join(f'{"good" if i % 3 else "bad"},"Text, number {i}"\n' for i in range(30))
    (tmp_path / "r.csv").write_text(rows)
    result = run(
        str(directory), "--on", str(tmp_path / "r.csv"), "--text-field", "review", "--label-field", "mood",
        "--train", str(tmp_path / "r.csv"), "--out", str(tmp_path / "page"),
    )  # fmt: skip
    assert result.exit_code == 0, result.exception
    assert "classify: " in result.output
    assert "tf-idf + logistic" in result.output
    assert "this model less tf-idf + logistic: accuracy " in result.output
    assert "this model less tf-idf + logistic: accuracy " in (tmp_path / "page" / "evaluation.html").read_text()
    names = {path.name for path in (tmp_path / "page").iterdir()}
    assert {"1-classify-bars.png", "1-classify-calibration.png", "1-classify-confusion.png"} <= names
    assert "language-model head" in failed(str(directory), "--on", f"lambada={tmp_path / 'r.csv'}")


def test_results_come_out_before_a_later_file_fails(files: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"text": "one two three four five six seven eight"}\n{"text": 3}\n')
    result = run("homegrown-base", "--on", files["lambada"], "--on", f"lambada={tmp_path / 'bad.jsonl'}")
    assert "last-word accuracy" in result.output
    assert isinstance(result.exception, DataError)
    assert "bad.jsonl, line 2" in str(result.exception)


def test_what_was_measured_outlives_an_error_in_a_later_file(
    files: dict[str, str], tmp_path: Path, tiny_gpt2_dir: Path
) -> None:
    (tmp_path / "bad.jsonl").write_text('{"text": "one two three four five six seven eight"}\n{"text": 3}\n')
    arguments = (str(tiny_gpt2_dir), "--on", files["lambada"], "--on", f"lambada={tmp_path / 'bad.jsonl'}")
    written = tmp_path / "reports" / "today" / "e.json"
    for told in (["--json", str(written)], ["--json", "-"], ["--json"]):
        result = run(*arguments, *told)
        assert isinstance(result.exception, DataError)
        found = json.loads(written.read_text() if str(written) in told else result.stdout)
        assert [measured["task"] for measured in found["results"]] == ["lambada"]


def test_mistakes(files: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "odd.jsonl").write_text('{"a": 1}')
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n' * 4000)[:40])
    (tmp_path / "bytes.txt").write_bytes(b"caf\xe9 au lait\n")
    (tmp_path / "file").write_text("")
    base = "homegrown-base"
    assert "nowhere.jsonl: no such file" in failed(base, "--on", "nowhere.jsonl")
    assert "there is no kind 'lambda'; the kinds are text, wikitext2" in failed(base, "--on", "lambda=x.jsonl")
    assert "can't tell what to do with rows of 'a'" in failed(base, "--on", str(tmp_path / "odd.jsonl"))
    assert "cut.jsonl.gz" in failed(base, "--on", str(tmp_path / "cut.jsonl.gz"))
    assert "not UTF-8" in failed(base, "--on", f"text={tmp_path / 'bytes.txt'}")
    assert "not a WikiText file" in failed(base, "--on", f"wikitext2={files['text']}")
    assert "line 1: has no field 'text'" in failed(base, "--on", f"lambada={files['hellaswag']}")
    assert "'endings' must be a list" in failed(base, "--on", f"hellaswag={files['lambada']}")
    assert "device 'tpu9'" in failed(base, "--on", files["text"], "--device", "tpu9")
    assert "no model 'nothing'" in failed("nothing", "--on", files["text"])
    assert "file: can't be made" in failed(base, "--on", files["text"], "--out", str(tmp_path / "file"))
    assert "from 1 to the model's context" in failed(base, "--on", files["text"], "--stride", "9999")
    assert run(base, "--on", files["text"], "--limit", "0").exit_code == 2
    assert run(base, "--on", files["text"], "--label-name", "x").exit_code == 2
    assert run(base, "--on", files["text"], "--field", "x").exit_code == 2
    assert run(base, "--on", files["text"], "--seed", "-1").exit_code == 2
    assert run(base).exit_code == 2


def test_mistakes_are_found_before_anything_is_scored(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.evaluate.suite.measure", lambda kind: pytest.fail(f"{kind} was measured"))
    arguments = ("homegrown-base", "--on", files["text"])
    nowhere = str(tmp_path / "nowhere.txt")
    assert "nowhere.txt: no such file" in failed(*arguments, "--baseline-corpus", nowhere)
    assert "is a directory; name a file" in failed(*arguments, "--json", str(tmp_path))
    assert "story.txt: can't be made" in failed(*arguments, "--json", f"{files['text']}/e.json")
    assert "story.txt: can't be made" in failed(*arguments, "--out", files["text"])
    assert "homegrown-base is no adapter" in failed(*arguments, "--base", "gpt2")
    assert "nowhere.csv: no such file" in failed(*arguments, "--train", str(tmp_path / "nowhere.csv"))
    assert "--field reply: there is no such field" in failed(*arguments, "--field", "reply=x")
    said = failed("homegrown-base", "--on", "fewshot=hf:owner/name", "--columns", "text,label")
    assert "hf:owner/name: its rows name their fields themselves; leave --columns out" in said
    (tmp_path / "gap.jsonl").write_text('{"text": "one two three four five six seven eight"}\n{"other": 3}\n')
    assert "gap.jsonl, line 2: has no field 'text'" in failed("homegrown-base", "--on", str(tmp_path / "gap.jsonl"))


def test_columns_may_stand_behind_blanks(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("".join(f"{'good' if i % 2 else 'bad'},Text number {i}\n" for i in range(4)))
    result = run(
        "homegrown-base", "--on", str(tmp_path / "r.csv"), "--columns", "mood, review ", "--text-field", "review",
        "--label-field", "mood",
    )  # fmt: skip
    assert "\nfewshot: " in result.output


def test_a_data_set_of_the_hub_is_told_by_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(_: object) -> Any:
        yield from FILES["fewshot"][1]

    monkeypatch.setattr("training.data.tables.hub_rows", rows)
    assert parse_target("hf:owner/name@test", Options(), classifier=False) == ("fewshot", "hf:owner/name@test")


def test_every_kind_has_its_function_and_help_lists_them() -> None:
    text = CliRunner().invoke(command, ["--help"]).output
    for kind in KINDS:
        assert re.search(rf"\n  {kind} +\w", text)
        assert callable(measure(kind))


def test_kinds_are_told_by_content(files: dict[str, str], tmp_path: Path) -> None:
    for kind, path in files.items():
        assert detect(Path(path), Options(), classifier=False) == kind
    assert detect(Path(files["fewshot"]), Options(), classifier=True) == "classify"
    (tmp_path / "whole.jsonl").write_text('{"text": "A whole text, with its full stop at the end."}')
    assert detect(tmp_path / "whole.jsonl", Options(), classifier=False) == "text"
    assert detect(tmp_path, Options(), classifier=False) == "text"
    assert parse_target(f"text={files['lambada']}", Options(), classifier=False) == ("text", files["lambada"])
    (tmp_path / "a=b.txt").write_text(STORY)
    assert parse_target(str(tmp_path / "a=b.txt"), Options(), classifier=False)[0] == "text"


def gpt2_like(**changes: Any) -> ModelConfig:
    from dataclasses import replace

    return replace(PRESETS["gpt2-medium"], **changes)


def test_gpt2s_figures_stand_beside_its_shape_alone() -> None:
    assert {family_member(PRESETS[name]) for name in PRESETS} == {"gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", None}
    assert family_member(gpt2_like(vocab_size=50304)) == "gpt2-medium"
    assert family_member(gpt2_like(n_layer=23)) is None
    assert family_member(gpt2_like(vocab_size=50368)) is None
    figure = Figure("last-token accuracy", 0.4321, "c", share=True)
    rows = compare(gpt2_like(), [Measured("lambada", "x", 10, 5153, "passages", [figure])])
    assert rows is not None
    by_name = {row.measure: row for row in rows}
    assert (by_name["LAMBADA, accuracy"].ours, by_name["LAMBADA, accuracy"].published) == (
        "43.21 % (10 of 5,153)",
        "55.48 %",
    )
    assert by_name["HellaSwag, by tokens"].ours == ""
    assert "LAMBADA, whole last word, accuracy" not in by_name  # published for 124M alone
    text = paper_text(gpt2_like(), rows)
    assert "GPT-2 355M" in text
    assert text.count("not run") == len(rows) - 1
    beside = published_baseline(gpt2_like(), "lambada")
    assert beside is not None
    assert beside.values == {"last-token accuracy": 0.5548, "last-token perplexity": 15.60}
    assert published_baseline(gpt2_like(), "answers") is None
    measures = {
        ("wikitext2", "word perplexity"),
        ("wikitext2", "token perplexity"),
        ("hellaswag", "accuracy by tokens"),
    }
    assert measures <= {(published.task, published.figure) for published in PUBLISHED}


def test_a_table_of_wild_numbers_and_json_without_them() -> None:
    figures = [
        Figure("perplexity", float("inf"), ""),
        Figure("big", 123456.7, "c"),
        Figure("nothing", float("nan"), "c"),
    ]
    result = Measured("t", "x", 1, 1, "rows", figures)
    assert "inf" in table(result)
    assert "123,457" in table(result)
    assert [f["value"] for f in result.to_json()["figures"]] == [None, 123456.7, None]


def test_an_adapter_is_evaluated_on_its_base(tmp_path: Path, tiny_llama_dir: Path) -> None:
    import torch

    from model.adapters import save_adapter
    from model.lora import LoraConfig, add_lora
    from training.evaluate.lambada import evaluate_lambada

    (tmp_path / "l.jsonl").write_text('{"text": "The boy saw the red boat"}')
    base = load_subject(tiny_llama_dir)
    plain = evaluate_lambada(base, tmp_path / "l.jsonl", Options()).figures[1].value
    add_lora(base.model, LoraConfig(rank=2, alpha=4, dropout=0.0, targets="all"))
    with torch.no_grad():
        for name, parameter in base.model.named_parameters():
            if name.endswith(".b"):
                parameter.normal_(0, 0.3)
    save_adapter(base.model, tmp_path / "adapter", str(tiny_llama_dir))
    expected = evaluate_lambada(base, tmp_path / "l.jsonl", Options()).figures[1].value
    found = evaluate_lambada(load_subject(tmp_path / "adapter"), tmp_path / "l.jsonl", Options()).figures[1].value
    assert found == pytest.approx(expected, rel=1e-5)
    assert abs(found - plain) > 1e-3 * plain
    with pytest.raises(ConfigError, match="device"):
        load_subject(tiny_llama_dir, device="cuda:77")
