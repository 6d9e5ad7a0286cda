"""What a reader asks to see beside a classifier: always the commonest label, and logistic regression on the words."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from model.errors import HomegrownError
from training.evaluate.classification import classification_report, paired_differences
from training.evaluate.results import Baseline

MISSING = "logistic regression on tf-idf is left out: scikit-learn is not installed (pip install 'homegrown[eval]')"


def majority(labels: Sequence[str], truth: np.ndarray, train: Sequence[str] | None, *, seed: int = 0) -> Baseline:
    """Always the commonest label: of the training rows, or of the evaluated ones when there are none.
    `seed`: of the bootstrap samples."""
    names = [labels[i] for i in truth] if train is None else list(train)
    most = Counter(names).most_common(1)[0][0]
    said = np.zeros((len(truth), len(labels)))
    said[:, [label == most for label in labels]] = 1.0
    source = "the evaluated rows" if train is None else "the training rows"
    # Its probabilities are all 0 or 1, so only what is said counts.
    figures = [
        f for f in classification_report(truth, said, labels, seed=seed).figures if f.name in ("accuracy", "macro F1")
    ]
    return Baseline.of("majority", figures, f"always {most!r}, the commonest label of {source}")


def logistic_regression(
    train_texts: Sequence[str],
    train_labels: Sequence[str],
    texts: Sequence[str],
    truth: np.ndarray,
    labels: Sequence[str],
    *,
    against: np.ndarray | None = None,
    seed: int = 0,
) -> Baseline:
    """Logistic regression on tf-idf of words and pairs of words, learned from the training rows. `against`: a model's
    probabilities [n, C] of the same rows, whose differences from it are taken. `seed`: of the bootstrap samples. ImportError when
    scikit-learn is not installed; HomegrownError when the training rows have but one label."""
    probabilities = tfidf_probabilities(train_texts, train_labels, texts, labels)
    convention = f"L2, C = 10, on sublinear tf-idf of the words and word pairs of {len(train_texts):,} training rows (scikit-learn)"
    figures = classification_report(truth, probabilities, labels, seed=seed).figures
    differences = [] if against is None else paired_differences(truth, against, probabilities, seed=seed)
    return Baseline.of("tf-idf + logistic", figures, convention, differences)


def tfidf_probabilities(
    train_texts: Sequence[str], train_labels: Sequence[str], texts: Sequence[str], labels: Sequence[str]
) -> np.ndarray:
    """The probabilities [n, C] that logistic regression on tf-idf, learned from the training rows, gives `texts`, in the order of
    `labels`. Raises as `logistic_regression` does."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    if len(set(train_labels)) < 2:
        raise HomegrownError(
            "the training rows have but one label; logistic regression needs two or more to learn from"
        )
    # Words of one letter count too: the library's own pattern leaves them out.
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    learned = LogisticRegression(C=10.0, max_iter=1000).fit(words.fit_transform(train_texts), list(train_labels))
    found = learned.predict_proba(words.transform(texts))
    table = np.zeros((len(texts), len(labels)))
    for column, label in enumerate(learned.classes_):
        if label in labels:  # a label that only the training rows have can't be right here
            table[:, list(labels).index(label)] = found[:, column]
    return table / table.sum(1, keepdims=True).clip(1e-12)
