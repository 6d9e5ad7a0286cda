"""Classification measures against scikit-learn and against arithmetic done by hand."""

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import brier_score_loss, confusion_matrix, log_loss, precision_recall_fscore_support

from model.errors import HomegrownError
from training.evaluate.baselines import logistic_regression, majority
from training.evaluate.classification import classification_report, macro_f1, paired_differences, reliability_table
from training.evaluate.results import Result, mean_figure, perplexity_figure, table, wilson


def random_case(seed: int, n: int = 200, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(classes), n)
    truth = np.where(rng.random(n) < 0.6, probabilities.argmax(1), rng.integers(0, classes, n))
    return truth, probabilities


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_the_same_as_scikit_learn(seed: int, classes: int) -> None:
    truth, probabilities = random_case(seed, classes=classes)
    report = classification_report(truth, probabilities, [str(i) for i in range(classes)])
    value = {figure.name: figure.value for figure in report.figures}
    predicted = probabilities.argmax(1)
    precision, recall, f1, support = precision_recall_fscore_support(
        truth, predicted, labels=range(classes), zero_division=0.0
    )
    assert value["accuracy"] == pytest.approx((truth == predicted).mean())
    assert value["macro F1"] == pytest.approx(f1.mean())
    assert value["log loss"] == pytest.approx(log_loss(truth, probabilities, labels=range(classes)))
    scale = 2 if classes == 2 else 1  # scikit-learn halves the two-class score
    assert value["Brier score"] == pytest.approx(
        scale * brier_score_loss(truth, probabilities if classes > 2 else probabilities[:, 1], labels=range(classes))
    )
    assert report.confusion == confusion_matrix(truth, predicted, labels=range(classes)).tolist()
    for i, measures in enumerate(report.classes):
        found = (measures.precision, measures.recall, measures.f1, measures.rows)
        assert found == pytest.approx((precision[i], recall[i], f1[i], support[i]))


def test_intervals_hold_the_value_and_shrink_with_rows() -> None:
    widths = []
    for n in (50, 5000):
        report = classification_report(*random_case(1, n=n), ["a", "b", "c"])
        for figure in report.figures[:2]:
            assert figure.low is not None
            assert figure.high is not None
            assert figure.low < figure.value < figure.high
        widths.append(report.figures[1].high - report.figures[1].low)
    assert widths[1] < widths[0] / 5


@pytest.mark.parametrize(("right", "n"), [(295, 300), (0, 10), (10, 10), (1, 2), (61, 90), (4_213, 10_042)])
def test_wilson(right: int, n: int) -> None:
    expected = binomtest(right, n).proportion_ci(method="wilson")
    assert wilson(right, n) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_calibration_by_hand() -> None:
    """Four rows said with 0.9, three of them right; two said with 0.6, one right."""
    truth = np.array([0, 0, 0, 1, 0, 1])
    probabilities = np.array([[0.9, 0.1]] * 4 + [[0.6, 0.4]] * 2)
    report = classification_report(truth, probabilities, ["a", "b"])
    value = {figure.name: figure.value for figure in report.figures}
    assert value["calibration error"] == pytest.approx((4 * abs(0.9 - 0.75) + 2 * abs(0.6 - 0.5)) / 6)
    assert value["Brier score"] == pytest.approx((3 * 0.02 + 1.62 + 0.32 + 0.72) / 6)
    low, high = report.reliability
    assert (low.rows, high.rows) == (2, 4)
    assert low.low < 0.6 <= low.high
    assert (high.confidence, high.accuracy) == pytest.approx((0.9, 0.75))


def test_a_perfectly_calibrated_forecast_has_almost_no_error() -> None:
    rng = np.random.default_rng(0)
    first = rng.random(40_000)
    truth = (rng.random(40_000) > first).astype(int)
    report = classification_report(truth, np.stack([first, 1 - first], 1), ["a", "b"])
    assert {f.name: f.value for f in report.figures}["calibration error"] < 0.01


def test_certain_and_wrong_stays_finite_and_an_edge_falls_in_its_bin() -> None:
    report = classification_report(np.array([1]), np.array([[1.0, 0.0]]), ["a", "b"])
    assert all(np.isfinite(figure.value) for figure in report.figures)
    assert reliability_table(np.array([0]), np.array([[1.0, 0.0]]))[0].high == 1.0


def test_a_label_that_nobody_has_and_nobody_says_does_not_count() -> None:
    confusion = np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    assert macro_f1(confusion) == pytest.approx(macro_f1(confusion[:2, :2]))


def test_majority_of_the_training_rows_not_of_the_test() -> None:
    truth = np.array([1, 1, 1, 0])
    assert majority(["a", "b"], truth, None).values["accuracy"] == 0.75
    found = majority(["a", "b"], truth, ["a", "a", "b"])
    assert found.values["accuracy"] == 0.25
    assert found.intervals["accuracy"] == wilson(1, 4)
    assert found.intervals["macro F1"][0] <= found.values["macro F1"] <= found.intervals["macro F1"][1]


def test_paired_differences_leave_out_what_both_get_wrong() -> None:
    rng = np.random.default_rng(0)
    n, names = 2000, ["a", "b", "c"]
    truth = rng.integers(0, 3, n)
    first = np.where(rng.random(n) < 0.7, truth, (truth + 1) % 3)
    second = np.where(rng.random(n) < 0.05, rng.integers(0, 3, n), first)
    ours, theirs = np.eye(3)[first], np.eye(3)[second]
    accuracy, f1 = paired_differences(truth, ours, theirs)
    right, other = first == truth, second == truth
    assert accuracy.value == pytest.approx(right.mean() - other.mean())
    reports = [classification_report(truth, each, names) for each in (ours, theirs)]
    assert f1.value == pytest.approx(reports[0].figures[1].value - reports[1].figures[1].value)
    # The variance of a difference of pairs, as McNemar's test has it.
    b, c = int((right & ~other).sum()), int((other & ~right).sum())
    half = 1.96 * np.sqrt(b + c - (b - c) ** 2 / n) / n
    assert accuracy.low == pytest.approx(accuracy.value - half, abs=0.1 * half)
    assert accuracy.high == pytest.approx(accuracy.value + half, abs=0.1 * half)
    low, high = wilson(int(right.sum()), n)
    assert half < (high - low) / 4
    assert [(f.low, f.high) for f in paired_differences(truth[:1], ours[:1], theirs[:1])] == [(None, None)] * 2


def test_intervals_of_shares_end_at_0_and_1_and_one_item_has_none() -> None:
    nearly = mean_figure("m", np.array([1.0, 1.0, 0.9]), "", share=True)
    assert nearly.high == 1.0
    assert mean_figure("m", np.array([0.0, 0.0, 0.1]), "", share=True).low == 0.0
    assert mean_figure("m", np.array([1.0, 1.0, 0.9]), "").high > 1.0  # pyright: ignore[reportOptionalOperand]
    single = [mean_figure("m", np.array([0.5]), ""), perplexity_figure("p", np.array([0.5]), "")]
    single.append(classification_report(np.array([1]), np.array([[0.9, 0.1]]), ["a", "b"]).figures[1])
    assert all(figure.interval == "" for figure in single)


def test_logistic_regression_learns_words_and_gives_each_label_its_column() -> None:
    rng = np.random.default_rng(0)
    words = {"sport": ["goal", "match", "team"], "food": ["soup", "bread", "cook"], "law": ["court", "judge", "case"]}

    def texts(n: int) -> tuple[list[str], list[str]]:
        labels = rng.choice(list(words), n)
        return [" ".join(rng.choice([*words[name], "the", "a", "of"], 6)) for name in labels], labels.tolist()

    names = ["law", "sport", "food"]  # not in the order of the alphabet
    (train_texts, train_labels), (new_texts, new_labels) = texts(200), texts(60)
    truth = np.array([names.index(label) for label in new_labels])
    baseline = logistic_regression(train_texts, train_labels, new_texts, truth, names)
    assert baseline.values["accuracy"] > 0.9
    assert baseline.intervals["accuracy"] == wilson(round(60 * baseline.values["accuracy"]), 60)
    assert not baseline.differences
    model = np.eye(3)[truth]
    beside = logistic_regression(train_texts, train_labels, new_texts, truth, names, against=model)
    assert beside.differences[0].value == pytest.approx(1 - baseline.values["accuracy"])
    report = classification_report(truth, model, names)
    result = Result("classify", "x", 60, 60, "rows", report.figures, [beside], details=report.details())
    low, high = baseline.intervals["accuracy"]
    assert f"({100 * low:.2f} to {100 * high:.2f} %)" in table(result)
    assert "this model less tf-idf + logistic: accuracy +" in table(result)
    found = result.to_json()["baselines"][0]
    assert found["intervals"]["accuracy"] == [low, high]
    assert found["differences"][0]["low"] is not None
    with pytest.raises(HomegrownError, match="one label"):
        logistic_regression(["a b"], ["law"], new_texts, truth, names)
