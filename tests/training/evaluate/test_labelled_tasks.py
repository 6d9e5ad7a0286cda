"""Classifiers and few-shot prompts on labelled rows."""

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import random_model, tiny_config

from model.checkpoint import save_model
from model.errors import ConfigError
from model.tokenizer import Tokenizer
from training.data.labelled import Labelled
from training.errors import DataError
from training.evaluate.classify import evaluate_classifier
from training.evaluate.fewshot import calibrated, draw_examples, evaluate_fewshot, label_probabilities, make_prompter
from training.evaluate.results import table, wilson
from training.evaluate.subject import Options, Subject, load_subject

GOOD, BAD = (
    ["A fine and warm tale.", "I liked it very much.", "Lovely!"],
    ["Dull and long.", "A waste of time.", "Weak."],
)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    directory = tmp_path_factory.mktemp("classifier")
    save_model(random_model(tiny_config("llama", labels=("bad", "good"), pad_token_id=0)), directory)
    Tokenizer.gpt2().save(directory)
    return load_subject(directory, batch_tokens=100)


@pytest.fixture(scope="module")
def subject(tiny_gpt2_dir: Path) -> Subject:
    return load_subject(tiny_gpt2_dir)


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    return write(tmp_path / "reviews.tsv", [("good", t) for t in GOOD] + [("bad", t) for t in BAD])


@pytest.fixture
def more(tmp_path: Path) -> Path:
    rows = [("good", f"{a} {b}") for a in GOOD for b in GOOD] + [("bad", f"{a} {b}") for a in BAD for b in BAD]
    return write(tmp_path / "more.tsv", rows)


def write(path: Path, rows: list[tuple[str, str]]) -> Path:
    path.write_text("label\ttext\n" + "".join(f"{label}\t{text}\n" for label, text in rows), "utf-8")
    return path


def test_a_classifier_is_measured_with_its_own_probabilities(classifier: Subject, reviews: Path, more: Path) -> None:
    result = evaluate_classifier(classifier, reviews, Options(train=more))
    truth, hits, logs = [1, 1, 1, 0, 0, 0], [], []
    for text, label in zip([*GOOD, *BAD], truth, strict=True):
        ids = classifier.tokenizer.encode(text)
        with torch.no_grad():
            scores = classifier.classifier(torch.tensor([ids]), torch.tensor([len(ids)]))[0].double()
        hits.append(int(scores.argmax()) == label)
        logs.append(-float(scores.log_softmax(0)[label]))
    assert result.figure("accuracy").value == pytest.approx(np.mean(hits))
    assert result.figure("log loss").value == pytest.approx(np.mean(logs), rel=1e-5)
    assert [baseline.name for baseline in result.baselines] == ["majority", "tf-idf + logistic"]
    assert result.baselines[1].values["accuracy"] == 1.0
    assert result.baselines[0].intervals["accuracy"] == wilson(3, 6)
    difference = result.baselines[1].differences[0]
    assert difference.value == pytest.approx(np.mean(hits) - 1)
    assert difference.low is not None
    assert np.array(result.details["confusion"]).sum() == 6


def test_labels_of_other_names_are_called_what_the_user_says(
    classifier: Subject, tmp_path: Path, reviews: Path
) -> None:
    path = write(tmp_path / "n.tsv", [("1", t) for t in GOOD] + [("0", t) for t in BAD])
    with pytest.raises(
        DataError, match=r"n.tsv, line 2: the label '1' is not among .*'bad', 'good'.*--label-name 1=NAME"
    ):
        evaluate_classifier(classifier, path, Options())
    named = evaluate_classifier(classifier, path, Options(names=(("0", "bad"), ("1", "good"))))
    assert named.figures == evaluate_classifier(classifier, reviews, Options()).figures


def test_what_is_cut_left_out_or_repeated_is_said(
    classifier: Subject, tmp_path: Path, more: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "long.tsv", [("good", "word " * 200), ("bad", "Dull and long. Dull and long.")])
    notes = " ".join(evaluate_classifier(classifier, path, Options(train=more)).notes)
    assert "longer than the model's context of 128 tokens: 1 of 2" in notes
    assert "among the training rows: 1" in notes
    assert "needs training rows" in " ".join(evaluate_classifier(classifier, path, Options()).notes)
    plain = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("sklearn"):
            raise ModuleNotFoundError("sklearn")
        return plain(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    notes = " ".join(evaluate_classifier(classifier, path, Options(train=more)).notes)
    assert "scikit-learn is not installed" in notes
    assert "among the training rows: 1" in notes


def test_training_rows_that_teach_no_words_leave_only_the_logistic_regression_out(
    classifier: Subject, reviews: Path, tmp_path: Path
) -> None:
    for rows in ([("good", "?!"), ("bad", "...")], [("good", "Fine."), ("good", "Warm.")]):
        result = evaluate_classifier(classifier, reviews, Options(train=write(tmp_path / "t.tsv", rows)))
        assert [baseline.name for baseline in result.baselines] == ["majority"]
        assert "logistic regression on tf-idf is left out" in " ".join(result.notes)


def test_a_limit_draws_rows_of_all_labels_from_a_sorted_file(classifier: Subject, more: Path) -> None:
    result = evaluate_classifier(classifier, more, Options(limit=10, seed=1))
    assert (result.items, result.total) == (10, 18)
    assert all(measures["rows"] > 0 for measures in result.details["classes"])
    assert result.figures == evaluate_classifier(classifier, more, Options(limit=10, seed=1)).figures


def test_a_language_model_is_no_classifier_and_the_other_way_round(
    classifier: Subject, subject: Subject, reviews: Path
) -> None:
    with pytest.raises(ConfigError, match="fewshot"):
        evaluate_classifier(subject, reviews, Options())
    with pytest.raises(ConfigError, match="classify"):
        evaluate_fewshot(classifier, reviews, Options())


def test_the_prompt(subject: Subject, more: Path) -> None:
    options = Options(
        shots=3, train=more, prompt=r"Review: {text}\nMood: {label}", names=(("good", "fine"), ("bad", "poor"))
    )
    prompter = make_prompter(subject, ["fine", "poor"], options)
    prompt = prompter.prompt(" A {label} in a text. ")
    examples = [f"Review: {row.text}\nMood: {row.label}" for row in prompter.examples]
    assert prompt == "\n\n".join([*examples, "Review: A {label} in a text.\nMood: "])
    assert len(examples) == 3
    assert {row.label for row in prompter.examples} == {"fine", "poor"}


def test_examples_are_balanced_drawn_by_the_seed_and_in_a_drawn_order(more: Path) -> None:
    def draw(seed: int, shots: int = 6) -> list[Labelled]:
        return draw_examples(["bad", "good"], Options(shots=shots, train=more, seed=seed))

    assert draw(0) == draw(0)
    orders = {tuple(row.label for row in draw(seed)) for seed in range(8)}
    assert len(orders) > 2
    for seed in range(8):
        rows = draw(seed)
        assert [row.label for row in rows].count("good") == 3
        assert len({row.text for row in rows}) == 6
    assert len(draw(0, 18)) == 18
    with pytest.raises(ConfigError, match="18 rows"):
        draw(0, 19)


def test_label_probabilities_are_those_of_all_the_labels_tokens(subject: Subject, reviews: Path) -> None:
    labels = ["good", "bad indeed"]
    prompter = make_prompter(subject, labels, Options())
    found = label_probabilities(subject.scorer(), prompter, GOOD, labels)
    for text, row in zip(GOOD, found, strict=True):
        totals = []
        for label in labels:
            head = subject.tokenizer.encode(f"Text: {text}\nLabel:")
            ids = subject.tokenizer.encode(f"Text: {text}\nLabel: {label}")
            with torch.no_grad():
                logprobs = subject.language_model(torch.tensor([ids]))[0, :-1].double().log_softmax(-1)
            totals.append(sum(float(logprobs[i - 1, ids[i]]) for i in range(len(head), len(ids))))
        expected = np.exp(np.array(totals) - np.logaddexp.reduce(totals))
        assert row == pytest.approx(expected, rel=1e-4)


def test_calibration_takes_away_what_the_labels_get_for_nothing() -> None:
    probabilities = np.array([[0.8, 0.2], [0.6, 0.4]])
    found = calibrated(probabilities, np.array([0.7, 0.3]))
    weights = probabilities / np.array([0.7, 0.3])
    assert found == pytest.approx(weights / weights.sum(1, keepdims=True))
    assert found.argmax(1).tolist() == [0, 1]


def test_fewshot_shows_its_prompt_and_both_accuracies(subject: Subject, reviews: Path, more: Path) -> None:
    result = evaluate_fewshot(subject, reviews, Options(shots=2, train=more))
    assert {"accuracy", "accuracy, uncalibrated"} <= {figure.name for figure in result.figures}
    assert result.details["prompt"].endswith("Text: A fine and warm tale.\nLabel: [bad | good]")
    assert "  | Label: [bad | good]" in table(result)
    raw = evaluate_fewshot(subject, reviews, Options(shots=2, train=more, calibrate=False))
    assert raw.figure("accuracy").value == result.figure("accuracy, uncalibrated").value


def test_long_texts_are_cut_so_that_prompts_fit(subject: Subject, tmp_path: Path, more: Path) -> None:
    path = write(tmp_path / "long.tsv", [("good", "word é " * 200), ("bad", "Dull.")])
    result = evaluate_fewshot(subject, path, Options(shots=3, train=more))
    assert any("1 of 2 texts were cut" in note for note in result.notes)
    assert len(subject.tokenizer.encode(result.details["prompt"])) <= 128


@pytest.mark.parametrize(("options", "said"), [
    (Options(prompt="no places"), "{text} once"), (Options(prompt="{text} {label}!"), "end in {label}"),
    (Options(shots=2), "--train FILE"), (Options(shots=40), "40 examples don't fit"), (Options(shots=-1), "0 or more"),
])  # fmt: skip
def test_settings_that_make_no_prompt(subject: Subject, reviews: Path, options: Options, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        evaluate_fewshot(subject, reviews, options)
