"""A trained classifier on labelled rows, beside the baselines."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from model.classifier import encode_text, label_scores
from model.errors import HomegrownError
from training.data.labelled import Labelled, read_labelled
from training.errors import DataError
from training.evaluate.baselines import MISSING, logistic_regression, majority
from training.evaluate.classification import classification_report
from training.evaluate.results import Result
from training.evaluate.scoring import progress_bar
from training.evaluate.subject import Options, Subject, drawn


def evaluate_classifier(subject: Subject, path: Path | str, options: Options) -> Result:
    """The classification report of a file's rows, named by `text_field` and `label_field`."""
    model = subject.classifier
    labels = model.config.labels
    rows = read_rows_with_labels(path, options)
    chosen = drawn(rows, options)
    truth = numbers(chosen, labels, f"the classifier's labels ({', '.join(map(repr, labels))})")
    context = model.config.context_length
    encoded = [encode_text(subject.tokenizer, row.text) for row in chosen]
    kept = [ids[:context] for ids in encoded]
    with progress_bar(len(kept), "classify") as bar:
        scores = label_scores(model, kept, batch_tokens=subject.batch_tokens, bf16=subject.bf16, done=bar.update)
    probabilities = scores.double().softmax(1).numpy()
    report = classification_report(truth, probabilities, labels, seed=options.seed)
    result = Result("classify", str(path), len(chosen), len(rows), "rows", report.figures, details=report.details())
    cut = sum(len(ids) > context for ids in encoded)
    if cut:
        result.notes.append(
            f"texts longer than the model's context of {context} tokens: {cut:,} of {len(chosen):,}; their ends were not read"
        )
    add_baselines(result, chosen, truth, probabilities, options)
    return result


def read_rows_with_labels(path: Path | str, options: Options) -> list[Labelled]:
    """The labelled rows of a file, their labels by the names that the options give them."""
    names = dict(options.names)
    rows = read_labelled(
        [path], text_field=options.text_field, label_field=options.label_field, columns=options.columns
    )
    return [Labelled(row.text, names.get(row.label, row.label), row.where) for row in rows]


def numbers(rows: Sequence[Labelled], labels: Sequence[str], among: str) -> np.ndarray:
    """Each row's label as its place in `labels`, [n] int64. DataError names the row whose label isn't there."""
    place = {label: i for i, label in enumerate(labels)}
    stray = next((row for row in rows if row.label not in place), None)
    if stray:
        raise DataError(
            f"{stray.where}: the label {stray.label!r} is not among {among}; say what it is called: --label-name {stray.label}=NAME"
        )
    return np.array([place[row.label] for row in rows], np.int64)


def add_baselines(
    result: Result, rows: Sequence[Labelled], truth: np.ndarray, probabilities: np.ndarray, options: Options
) -> None:
    """Majority and, with training rows, logistic regression and how far the model's `probabilities` [n, C] are from it, beside a
    result of `classification_report`; what is left out is noted."""
    labels: list[str] = result.details["labels"]
    train = read_rows_with_labels(options.train, options) if options.train else None
    if train:
        numbers(train, labels, f"the labels ({', '.join(map(repr, labels))})")
    names = [row.label for row in train] if train else None
    result.baselines.append(majority(labels, truth, names, seed=options.seed))
    if not train or not names:
        result.notes.append("logistic regression on tf-idf is left out: it needs training rows (--train FILE)")
        return
    seen, texts = [row.text for row in train], [row.text for row in rows]
    try:
        words = logistic_regression(seen, names, texts, truth, labels, against=probabilities, seed=options.seed)
        result.baselines.append(words)
    except ImportError:
        result.notes.append(MISSING)
    except (ValueError, HomegrownError) as error:  # texts without a word, say: the figures stand without it
        result.notes.append(f"logistic regression on tf-idf is left out ({error})")
    known = set(seen)
    repeated = sum(text in known for text in texts)
    if repeated:
        result.notes.append(
            f"evaluated texts that are among the training rows: {repeated:,}; figures are better than on new texts"
        )
