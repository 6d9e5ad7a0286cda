"""How good a classifier's probabilities are: accuracy with its interval, F1, calibration, confusion."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from training.evaluate.results import Figure, share_figure

BINS = 15
RESAMPLES = 2000
_CHUNK = 100  # resamples held at a time


@dataclass(frozen=True)
class ClassMeasures:
    """One label: precision, recall, F1 (0 where nothing was said or nothing is to be found), and how many rows have it."""

    label: str
    precision: float
    recall: float
    f1: float
    rows: int


@dataclass(frozen=True)
class ReliabilityBin:
    """Rows whose likeliest label has a probability over `low` and up to `high`: how many, its mean, the share that is right."""

    low: float
    high: float
    rows: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Report:
    """What `classification_report` finds. `confusion` [true][predicted]: rows."""

    labels: list[str]
    figures: list[Figure]
    classes: list[ClassMeasures]
    reliability: list[ReliabilityBin]
    confusion: list[list[int]]

    def details(self) -> dict[str, Any]:
        """What a result keeps of it beside the figures."""
        return {
            "labels": self.labels,
            "classes": [asdict(measures) for measures in self.classes],
            "reliability": [asdict(bin_) for bin_ in self.reliability],
            "confusion": self.confusion,
        }


def classification_report(
    truth: np.ndarray, probabilities: np.ndarray, labels: Sequence[str], *, seed: int = 0
) -> Report:
    """Measures of probabilities [n, C], whose rows sum to 1, against the true labels' numbers `truth` [n], n at least 1."""
    predicted = probabilities.argmax(1)
    confusion = confusion_matrix(truth, predicted, len(labels))
    precision, recall, f1 = (values.tolist() for values in per_class(confusion))
    rows = confusion.sum(1).tolist()
    classes = [ClassMeasures(*row) for row in zip(labels, precision, recall, f1, rows, strict=True)]
    reliability = reliability_table(truth, probabilities)
    ece = sum(bin_.rows * abs(bin_.confidence - bin_.accuracy) for bin_ in reliability) / len(truth)
    chosen = np.clip(probabilities[np.arange(len(truth)), truth], 1e-12, 1.0)
    brier = np.square(probabilities - np.eye(len(labels))[truth]).sum(1).mean()
    figures = [
        share_figure(
            "accuracy", predicted == truth, "share of rows whose likeliest label is theirs; Wilson's interval"
        ),
        _macro_f1(confusion, seed),
        Figure("log loss", float(-np.log(chosen).mean()), "mean nats of the true label"),
        Figure(
            "calibration error",
            float(ece),
            f"expected calibration error: |confidence - accuracy| of the likeliest label in {BINS} equal bins, weighted by rows "
            "(Guo et al., 2017)",
            share=True,
        ),
        Figure(
            "Brier score", float(brier), "squared error of the probabilities, summed over labels: 0 to 2 (Brier, 1950)"
        ),
    ]
    return Report(list(labels), figures, classes, reliability, confusion.tolist())


def paired_differences(
    truth: np.ndarray, probabilities: np.ndarray, others: np.ndarray, *, seed: int = 0
) -> list[Figure]:
    """Accuracy and macro F1 of `probabilities` [n, C] less those of `others` [n, C], another classifier's of the same rows, against
    the true labels' numbers `truth` [n]. The intervals are those of resampled rows (paired bootstrap; Efron and Tibshirani, 1993):
    what both get right or wrong doesn't widen them. One row alone has no interval."""
    n = len(truth)
    # Rows with one label, and called the same by both, are one cell; drawing rows with replacement is drawing the cells' counts.
    called = np.stack([truth, probabilities.argmax(1), others.argmax(1)])
    (label, ours, theirs), counts = np.unique(called, axis=1, return_counts=True)
    rng, n_labels = np.random.default_rng(seed), probabilities.shape[1]

    def difference(weights: np.ndarray) -> np.ndarray:
        """[2, samples] of cells' counts [samples, cells]."""
        return _accuracy_and_f1(weights, label, ours, n_labels) - _accuracy_and_f1(weights, label, theirs, n_labels)

    convention = f"of the same rows; intervals from {RESAMPLES:,} paired bootstrap samples of them"
    names, values = ("accuracy", "macro F1"), difference(counts[None])[:, 0].tolist()
    if n == 1:
        return [Figure(name, value, convention, share=True) for name, value in zip(names, values, strict=True)]
    chunks = [difference(rng.multinomial(n, counts / n, size=_CHUNK)) for _ in range(RESAMPLES // _CHUNK)]
    low, high = np.quantile(np.concatenate(chunks, 1), [0.025, 0.975], axis=1).tolist()
    return [Figure(name, values[i], convention, low[i], high[i], share=True) for i, name in enumerate(names)]


def _accuracy_and_f1(weights: np.ndarray, label: np.ndarray, said: np.ndarray, n_labels: int) -> np.ndarray:
    """Accuracy and macro F1 [2, samples] where cell i, of `weights` [samples, cells] rows, has label[i] and was called said[i]."""
    one_hot, right = np.eye(n_labels), label == said
    # [samples, C]: rows that have each label, and those that were called it.
    both = weights @ one_hot[label] + weights @ one_hot[said]
    hits = weights[:, right] @ one_hot[label[right]]
    f1 = _ratio(2 * hits, both).sum(1) / (both > 0).sum(1)
    return np.stack([hits.sum(1) / weights.sum(1), f1])


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, n_labels: int) -> np.ndarray:
    """[true, predicted] int64: rows."""
    return np.bincount(truth * n_labels + predicted, minlength=n_labels**2).reshape(n_labels, n_labels)


def per_class(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall and F1 [..., C] of confusion matrices [..., C, C]; 0 where there is nothing to divide by."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1).astype(float)
    said, there = confusion.sum(-2), confusion.sum(-1)
    return _ratio(hits, said), _ratio(hits, there), _ratio(2 * hits, said + there)


def macro_f1(confusion: np.ndarray) -> np.ndarray:
    """The mean F1 [...] over labels that occur or were said, of confusion matrices [..., C, C]."""
    there = (confusion.sum(-1) + confusion.sum(-2)) > 0
    return (per_class(confusion)[2] * there).sum(-1) / there.sum(-1)


def reliability_table(truth: np.ndarray, probabilities: np.ndarray) -> list[ReliabilityBin]:
    """Confidence against accuracy in equal bins from 0 to 1; bins without a row are left out."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == truth
    place = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    return [
        ReliabilityBin(
            i / BINS, (i + 1) / BINS, int(inside.sum()), float(confidence[inside].mean()), float(right[inside].mean())
        )
        for i in range(BINS)
        if (inside := place == i).any()
    ]


def _macro_f1(confusion: np.ndarray, seed: int) -> Figure:
    # Drawing rows with replacement is drawing the confusion matrix's cells.
    n, value = int(confusion.sum()), float(macro_f1(confusion))
    convention = f"mean of the labels' F1; interval from {RESAMPLES:,} bootstrap samples of the rows"
    if n == 1:
        return Figure("macro F1", value, convention, share=True)
    drawn = np.random.default_rng(seed).multinomial(n, confusion.ravel() / n, size=RESAMPLES)
    low, high = np.quantile(macro_f1(drawn.reshape(-1, *confusion.shape)), [0.025, 0.975])
    return Figure("macro F1", value, convention, float(low), float(high), share=True)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
