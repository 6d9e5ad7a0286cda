"""How good a classifier's probabilities are: accuracy with its interval, F1, calibration, confusion."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from training.evaluate.results import Figure, share_figure

BINS = 15
RESAMPLES = 2000


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
    n = int(confusion.sum())
    drawn = np.random.default_rng(seed).multinomial(n, confusion.ravel() / n, size=RESAMPLES)
    low, high = np.quantile(macro_f1(drawn.reshape(-1, *confusion.shape)), [0.025, 0.975])
    convention = f"mean of the labels' F1; interval from {RESAMPLES:,} bootstrap samples of the rows"
    return Figure("macro F1", float(macro_f1(confusion)), convention, float(low), float(high), share=True)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
