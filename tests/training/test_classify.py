"""Fine-tuning a classifier: what is learned, measured and written, by every method; transformers and peft as references."""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from model.adapters import load_with_adapter, merge_adapter
from model.checkpoint import load_model
from model.classifier import as_classifier, classify_texts, label_scores
from model.errors import CheckpointError, ConfigError, TokenizerError
from model.gpt import SequenceClassifier
from model.tokenizer import Tokenizer
from training.classify import ClassifierRun, classify
from training.classify_recipe import ClassifySettings
from training.data.labelled import read_data
from training.errors import DataError, TrainingError
from training.finetune import start

GOOD, BAD = ["wonderful", "charming", "a joy", "moving"], ["dull", "tedious", "a mess", "silly"]
QUICK = {
    "optim": {"lr": 0.01, "batch_rows": 16, "warmup_steps": 2},
    "run": {"epochs": 4, "threads": 1, "eval_every": 10, "save_every": 1000, "tensorboard": False, "log_every": 5},
}
TEXTS = [
    "0.1 the film is wonderful",
    "the plot is dull",
    "0.25 the end is silly and so on and so on",
    "so the cast is charming",
]


def sentence(rng: random.Random, words: list[str]) -> str:
    subject, more = rng.choice(["film", "plot", "cast", "end"]), "and so on " * rng.randrange(6)
    return f"{rng.random():.5f} the {subject} is {rng.choice(words)} {more}".strip()


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = random.Random(0)
    rows = [
        {"text": sentence(rng, words), "label": label}
        for _ in range(120)
        for words, label in ((GOOD, "pos"), (BAD, "neg"))
    ]
    path = tmp_path_factory.mktemp("reviews") / "reviews.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def settings(base: Path, **changes: Any) -> ClassifySettings:
    sections: dict[str, Any] = {"model": str(base), **QUICK, **{k: v for k, v in changes.items() if k not in QUICK}}
    for name in QUICK:
        sections[name] = {**QUICK[name], **changes.get(name, {})}
    return ClassifySettings.from_toml(None, sections)


@pytest.fixture(scope="module")
def full_run(tiny_llama_dir: Path, reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with all weights trained."""
    out = tmp_path_factory.mktemp("runs") / "full"
    assert classify(settings(tiny_llama_dir), [reviews], out) == out / "model"
    return out


def results(run: Path) -> dict[str, Any]:
    return json.loads((run / "evaluation.json").read_text())["results"]


def test_it_learns_and_says_how_well(full_run: Path) -> None:
    (result,) = results(full_run)
    accuracy = next(figure for figure in result["figures"] if figure["name"] == "accuracy")
    assert accuracy["value"] > 0.9
    assert accuracy["low"] < accuracy["value"] < 1 or accuracy["value"] == accuracy["high"]
    assert [baseline["name"] for baseline in result["baselines"]] == ["majority", "tf-idf + logistic"]
    assert sum(map(sum, result["details"]["confusion"])) == result["items"]
    card = (full_run / "model" / "README.md").read_text()
    for piece in ("text-classification", "| accuracy |", "Confusion", "macro F1", "tf-idf + logistic", "| neg |"):
        assert piece in card
    assert (full_run / "report.html").is_file()


def test_rows_that_chose_nothing_are_reported_first(tiny_llama_dir: Path, reviews: Path, tmp_path: Path) -> None:
    some = settings(tiny_llama_dir, data={"test_fraction": 0.2}, run={"steps": 2})
    model = classify(some, [reviews], tmp_path / "run")
    test, validation = results(tmp_path / "run")
    assert (test["data"], validation["data"]) == ("test", "validation")
    assert any("chosen by the loss on these rows" in note for note in validation["notes"])
    assert not any("chosen by the loss" in note for note in test["notes"])
    card = (model / "README.md").read_text()
    assert (
        0 < card.index(f"Measures on the test rows ({test['items']})") < card.index("Measures on the validation rows")
    )


def test_the_model_is_there_whatever_fails_beside_it(
    tiny_llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"text": "!?"[i % 2] * (i + 1), "label": i % 2} for i in range(60)]  # no word for the baseline to count
    (tmp_path / "rows.json").write_text(json.dumps(rows))

    def fails(*_: object, **__: object) -> None:
        raise OSError("no picture today")

    monkeypatch.setattr("training.classify.write_report", fails)
    with pytest.raises(OSError, match="no picture"):
        classify(settings(tiny_llama_dir, run={"steps": 1}), [tmp_path / "rows.json"], tmp_path / "run")
    assert isinstance(load_model(tmp_path / "run" / "model"), SequenceClassifier)
    (result,) = results(tmp_path / "run")
    assert [baseline["name"] for baseline in result["baselines"]] == ["majority"]
    assert any("logistic regression on tf-idf is left out (" in note for note in result["notes"])


def test_other_validation_rows_make_another_run(tiny_llama_dir: Path, reviews: Path) -> None:
    some = settings(tiny_llama_dir)
    data = read_data(some.data, [reviews], seed=0)
    one, other = (
        ClassifierRun(some, replace(data, validation=rows)).job().fingerprint
        for rows in (data.validation, data.validation[1:])
    )
    assert {key for key in one if one[key] != other[key]} == {"validation"}


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_transformers_pipeline_gives_our_probabilities(
    architecture: str, full_run: Path, tiny_gpt2_dir: Path, reviews: Path, tmp_path: Path
) -> None:
    if architecture == "llama":
        model_dir = full_run / "model"
    else:
        model_dir = classify(settings(tiny_gpt2_dir, run={"epochs": 1}), [reviews], tmp_path / "run")
    config = json.loads((model_dir / "config.json").read_text())
    assert config["architectures"] == [f"{'Llama' if architecture == 'llama' else 'GPT2'}ForSequenceClassification"]
    assert config["id2label"] == {"0": "neg", "1": "pos"}
    model = load_model(model_dir)
    assert isinstance(model, SequenceClassifier)
    ours = classify_texts(model, Tokenizer.from_directory(model_dir), TEXTS)
    theirs = pipeline("text-classification", model=str(model_dir), tokenizer=str(model_dir), top_k=None, batch_size=3)
    for text, probabilities, scores in zip(TEXTS, ours, theirs(TEXTS), strict=True):
        found = {score["label"]: score["score"] for score in scores}
        assert found == pytest.approx(dict(zip(model.config.labels, probabilities.tolist(), strict=True)), abs=1e-5), (
            text
        )
    assert ours.argmax(1).tolist() == [1, 0, 0, 1] or architecture == "gpt2"


def test_a_long_text_is_cut_where_the_pipeline_cuts_it(full_run: Path) -> None:
    model_dir = full_run / "model"
    model = load_model(model_dir)
    assert isinstance(model, SequenceClassifier)
    text = "the film is charming " * 60
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    assert tokenizer.model_max_length == model.config.context_length
    theirs = AutoModelForSequenceClassification.from_pretrained(model_dir).eval()
    with torch.no_grad():
        expected = theirs(**tokenizer(text, truncation=True, return_tensors="pt")).logits.softmax(-1)
    assert (classify_texts(model, Tokenizer.from_directory(model_dir), [text]) - expected).abs().max() < 1e-5


def test_the_last_block_alone_changes(tiny_llama_dir: Path, reviews: Path, tmp_path: Path) -> None:
    quick = settings(tiny_llama_dir, method="last_block", run={"epochs": 1})
    model = load_model(classify(quick, [reviews], tmp_path / "run"))
    before = as_classifier(load_model(tiny_llama_dir), ("neg", "pos"), seed=0).state_dict()
    changed = {
        name.removeprefix("trunk.") for name, tensor in model.state_dict().items() if not tensor.equal(before[name])
    }
    assert changed == {
        "score.weight", "norm.weight", *(name.removeprefix("trunk.") for name in before if ".blocks.1." in name),
    }  # fmt: skip


def test_an_adapter_is_loaded_by_peft_and_merges(tiny_gpt2_dir: Path, reviews: Path, tmp_path: Path) -> None:
    quick = settings(tiny_gpt2_dir, method="lora", run={"epochs": 2}, lora={"rank": 4, "dropout": 0.05})
    adapter = classify(quick, [reviews], tmp_path / "run")
    assert 'library_name: "peft"' in (adapter / "README.md").read_text()
    ours, base = load_with_adapter(adapter)
    assert base == tiny_gpt2_dir
    tokenizer = Tokenizer.from_directory(adapter)
    expected = classify_texts(ours, tokenizer, TEXTS)  # pyright: ignore[reportArgumentType]
    merge_adapter(adapter, tmp_path / "merged")
    assert 'library_name: "transformers"' in (tmp_path / "merged" / "README.md").read_text()
    merged = load_model(tmp_path / "merged")
    assert isinstance(merged, SequenceClassifier)
    assert merged.config.labels == ("neg", "pos")
    assert (classify_texts(merged, Tokenizer.from_directory(tmp_path / "merged"), TEXTS) - expected).abs().max() < 1e-5
    with pytest.raises(CheckpointError, match="already there"):
        merge_adapter(adapter, tmp_path / "merged")
    theirs = AutoModelForSequenceClassification.from_pretrained(tiny_gpt2_dir, num_labels=2, pad_token_id=50256)
    theirs = PeftModel.from_pretrained(theirs, str(adapter)).eval()
    batch = AutoTokenizer.from_pretrained(adapter)(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        assert (theirs(**batch).logits.softmax(-1) - expected).abs().max() < 1e-4
    with pytest.raises(CheckpointError, match="is an adapter; merge it first"):
        start(settings(adapter))


def test_a_run_is_resumed_and_never_begun_twice(tiny_llama_dir: Path, reviews: Path, tmp_path: Path) -> None:
    one = settings(tiny_llama_dir, run={"steps": 20, "eval_every": 5, "save_every": 5})
    whole = classify(one, [reviews], tmp_path / "whole")
    half = settings(tiny_llama_dir, run={"steps": 20, "minutes": 1e-9, "eval_every": 5, "save_every": 5})
    classify(half, [reviews], tmp_path / "halves")  # its clock ends it after one update
    with pytest.raises(ConfigError, match="holds a run already; add --resume"):
        classify(one, [reviews], tmp_path / "halves")
    with pytest.raises(TrainingError, match="max_length"):
        classify(settings(tiny_llama_dir, data={"max_length": 20}), [reviews], tmp_path / "halves", resume=True)
    lines = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "validation_accuracy" in line] == [5, 10, 15, 20]
    again = classify(one, [reviews], tmp_path / "halves", resume=True)
    assert (again / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_labels_weights_and_limits_reach_the_job(tiny_llama_dir: Path, tmp_path: Path) -> None:
    rng = random.Random(1)
    rows = [{"t": sentence(rng, BAD if i % 5 else GOOD), "stars": 1 if i % 5 else 5} for i in range(100)]
    path = tmp_path / "d.json"
    path.write_text(json.dumps(rows))
    data = {
        "text_field": "t", "label_field": "stars", "label_names": {"1": "bad", "5": "good"}, "labels": ["good", "bad"],
        "class_weights": "balanced", "max_length": 8,
    }  # fmt: skip
    chosen = settings(tiny_llama_dir, data=data)
    run = ClassifierRun(chosen, read_data(chosen.data, [path], seed=0))
    assert run.model.config.labels == ("good", "bad")
    n = len(run.train)
    batch = run.job().source.batch(0, n)
    good = int((batch.labels == 0).sum())  # pyright: ignore[reportAttributeAccessIssue]
    assert 0 < good < n / 2
    assert batch.weight == pytest.approx(n, rel=1e-5)
    assert batch.tensors()["tokens"].shape[1] <= 8  # pyright: ignore[reportOptionalMemberAccess]
    assert max(map(len, run.train)) == 8
    assert [note for note in run.notes if "training texts are longer than 8 tokens" in note]
    with pytest.raises(ConfigError, match=r"data\.max_length is 999, but the model's context is 128"):
        ClassifierRun(settings(tiny_llama_dir, data={**data, "max_length": 999}), run.data)


def test_a_classifier_of_the_same_labels_goes_on_with_its_head(full_run: Path) -> None:
    base = settings(full_run / "model")
    kept = start(base, ("neg", "pos")).classifier
    assert torch.equal(kept.score.weight, load_model(full_run / "model").get_parameter("score.weight"))
    other = start(base, ("neg", "pos", "none")).classifier
    assert other.score.weight.shape[0] == 3
    with pytest.raises(ConfigError, match="is a classifier; this task needs a language model"):
        start(base)


def test_scores_do_not_depend_on_company_or_batches(full_run: Path) -> None:
    model = load_model(full_run / "model")
    assert isinstance(model, SequenceClassifier)
    tokenizer = Tokenizer.from_directory(full_run / "model")
    rows = [tokenizer.encode(text) for text in TEXTS * 3]
    alone = torch.cat([label_scores(model, [row]) for row in rows])
    for batch_tokens in (1, 30, 8192):
        assert (label_scores(model, rows, batch_tokens=batch_tokens) - alone).abs().max() < 1e-5
    assert (label_scores(model, rows, bf16=True) - alone).abs().max() < 0.2
    with pytest.raises(TokenizerError, match="empty"):
        classify_texts(model, tokenizer, ["fine", ""])


def test_bad_data_leaves_nothing_behind(tiny_llama_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "one.csv"
    path.write_text("text,label\na,x\nb,x\n")
    with pytest.raises(DataError, match=r"one\.csv: every row has the label 'x'"):
        classify(settings(tiny_llama_dir), [path], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_rate_follows_the_method_unless_given() -> None:
    rates = {
        method: ClassifySettings.from_toml(None, {"method": method}).optim.lr
        for method in ("full", "last_block", "lora")
    }
    assert rates == ClassifySettings.learning_rates
    assert ClassifySettings.from_toml(None, {"method": "lora", "optim": {"lr": 0.5}}).optim.lr == 0.5
    with pytest.raises(ConfigError, match="method"):
        ClassifySettings.from_toml(None, {"method": "half"})
    with pytest.raises(ConfigError, match=r"optim\.speed"):
        ClassifySettings.from_toml(None, {"optim": {"speed": 1}})
