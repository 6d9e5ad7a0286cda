"""Classification: texts with labels -> a classifier on a trained model, measured beside simpler ones.

A run's directory holds what every run holds (training.fit), `evaluation.json`, the report, and at the end `model/`, the directory
to serve.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from model.classifier import encode_text, label_scores
from model.errors import ConfigError, HomegrownError
from model.files import write_json
from training.classify_card import classify_card, data_table, result_tables
from training.classify_recipe import ClassifySettings
from training.data.label_batches import LabelledRows
from training.data.labelled import Labelled, LabelledData, class_weights, read_data, rows_sha256
from training.distributed import join
from training.environment import environment
from training.evaluate.baselines import MISSING, logistic_regression, majority
from training.evaluate.classification import classification_report
from training.evaluate.results import Result, table
from training.finetune import export, fingerprint, round_weights, start
from training.fit import Job, Outcome, check_directory, fit, load_best, set_threads
from training.objectives import ClassificationLoss
from training.report import write_report


def classify(
    settings: ClassifySettings,
    paths: Sequence[Path | str],
    directory: Path,
    *,
    class_files: Sequence[tuple[str, Path | str]] = (),
    resume: bool = False,
) -> Path:
    """Train a classifier in `directory` on the rows of `paths` (tables) and `class_files` ((label, file of one text a line)), and
    return the finished model's directory.

    With `resume` it goes on from the newest saved state; without, a directory that holds states already is refused. DataError
    names file and row; ConfigError the setting. Under torchrun every process calls it.
    """
    check_directory(directory, resume=resume)
    with join(settings.run.device) as world:
        set_threads(settings.run)
        run = ClassifierRun(settings, read_data(settings.data, paths, class_files, seed=settings.run.seed))
        if world.is_main:
            for note in run.notes:
                tqdm.write(f"{note}.", file=sys.stderr)
        job = run.job()
        outcome = fit(job, directory, resume=resume)
        load_best(job, directory, outcome.counters)
        if world.is_main:
            run.export(directory, outcome)
        world.barrier()
        return directory / "model"


class ClassifierRun:
    """A run's parts: model, rows, their tokens, and what is measured of them. `train`, `validation`: each text's token ids;
    `notes`: what was dropped or cut."""

    def __init__(self, settings: ClassifySettings, data: LabelledData) -> None:
        self.settings, self.data, self.notes = settings, data, list(data.notes)
        self.started = start(settings, data.labels)
        self.model = self.started.classifier
        self.context = self.model.config.context_length
        limit = settings.data.max_length or self.context
        if limit > self.context:
            raise ConfigError(f"data.max_length is {limit}, but the model's context is {self.context} tokens")
        self.train = self._encode(data.train, "training", limit)
        self.validation = self._encode(data.validation, "validation", self.context)
        balanced = settings.data.class_weights == "balanced"
        self._weights = class_weights(data.train, data.labels) if balanced else np.ones(len(data.labels), np.float32)
        # On the way some rows are measured, of all classes whatever their order in the file.
        order = np.random.default_rng(settings.run.seed).permutation(len(data.validation))
        self._watched = order[: settings.data.eval_rows].tolist()
        self._fingerprint = fingerprint(
            self.started,
            settings,
            data=rows_sha256(data.train),
            validation=rows_sha256(data.validation),
            labels=list(data.labels),
            max_length=limit,
            class_weights=settings.data.class_weights,
        )

    def job(self) -> Job:
        """What the loop needs."""
        settings, labels = self.settings, self._numbers(self.data.train)
        source = LabelledRows(
            self.train,
            labels,
            self._weights[labels],
            context=self.context,
            seed=settings.run.seed,
            batch_rows=settings.optim.batch_rows,
        )
        return Job(
            objective=ClassificationLoss(self.model, bf16=settings.run.precision_bf16),
            source=source,
            optim=settings.optim,
            run=settings.run,
            batch_rows=settings.optim.batch_rows,
            fingerprint=self._fingerprint,
            evaluate=self._watch,
            tokens_per_sample=max(1, round(float(np.mean([len(row) for row in self.train])))),
        )

    def measure(self, rows: Sequence[Labelled], encoded: Sequence[np.ndarray], name: str) -> Result:
        """The classification report of a split by the model as it is, in float32, beside the baselines."""
        data, truth = self.data, self._numbers(rows)
        begun = time.monotonic()
        probabilities = label_scores(self.model, encoded).double().softmax(1).numpy()
        seconds = time.monotonic() - begun
        report = classification_report(truth, probabilities, data.labels)
        learned, n = [row.label for row in data.train], len(rows)
        details = report.details()
        result = Result("classify", name, n, n, "rows", report.figures, details=details, seconds=seconds)
        result.baselines.append(majority(data.labels, truth, learned))
        try:
            texts = [row.text for row in data.train]
            words = logistic_regression(
                texts, learned, [row.text for row in rows], truth, data.labels,
                against=probabilities, seed=self.settings.run.seed,
            )  # fmt: skip
            result.baselines.append(words)
        except ImportError:
            result.notes.append(MISSING)
        except (ValueError, HomegrownError) as error:  # texts without a word, say: the classifier stands without it
            result.notes.append(f"logistic regression on tf-idf is left out ({error})")
        return result

    def export(self, directory: Path, outcome: Outcome) -> None:
        """Write the model directory, evaluation.json and the report: the model as it is, measured with the weights as they are
        stored, on the test rows if there are any, and on all validation rows."""
        round_weights(self.started, self.settings)
        results = [self.measure(self.data.validation, self.validation, "validation")]
        results[0].notes.append("which update's weights are kept was chosen by the loss on these rows or some of them")
        if self.data.test:  # what a reader is to go by comes first
            encoded = self._encode(self.data.test, "test", self.context)
            results.insert(0, self.measure(self.data.test, encoded, "test"))
            results[0].notes.append("measured once, after training: nothing was chosen by the figures of these rows")
        about = environment(outcome.world.device)
        card = classify_card(self.started, self.settings, self.data, results, self.notes, outcome.counters, about)
        # The model first: what comes after it can fail, and be made again.
        export(self.started, self.settings, directory, card=card)
        write_json(
            directory / "evaluation.json", {"notes": self.notes, "results": [result.to_json() for result in results]}
        )
        tables = [*result_tables(results), data_table(self.data)]
        settings = self.settings.model_dump(mode="json")
        write_report(directory, self.settings.name, settings=settings, environment=about, tables=tables)
        for result in results:
            tqdm.write(f"\n{table(result)}", file=sys.stderr)

    def _watch(self) -> dict[str, float]:
        """Loss (nats, weighted as in training) and accuracy on the watched validation rows."""
        rows = [self.validation[i] for i in self._watched]
        scores = label_scores(self.model, rows, bf16=self.settings.run.precision_bf16)
        labels = torch.from_numpy(self._numbers([self.data.validation[i] for i in self._watched]))
        loss = F.cross_entropy(scores, labels, weight=torch.from_numpy(self._weights))
        right = scores.argmax(1) == labels
        return {"validation_loss": float(loss), "validation_accuracy": float(right.float().mean())}

    def _numbers(self, rows: Sequence[Labelled]) -> np.ndarray:
        """Labels -> their numbers, [n] int64."""
        number = {label: i for i, label in enumerate(self.data.labels)}
        return np.array([number[row.label] for row in rows], np.int64)

    def _encode(self, rows: Sequence[Labelled], side: str, limit: int) -> list[np.ndarray]:
        """The first `limit` tokens of each text; how many are longer is noted."""
        encoded = [encode_text(self.started.tokenizer, row.text) for row in rows]
        cut = sum(len(ids) > limit for ids in encoded)
        if cut:
            self.notes.append(
                f"{cut:,} of {len(rows):,} {side} texts are longer than {limit} tokens; their ends are not read"
            )
        return [np.array(ids[:limit], np.int32) for ids in encoded]
