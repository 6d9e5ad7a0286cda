"""Evaluate a model on several sets of data: which measure each gets, and everything they say together."""

import importlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from model.errors import ConfigError
from model.gpt import SequenceClassifier
from training.data.hub import HubCorpus
from training.data.tables import table_files
from training.environment import environment
from training.errors import DataError
from training.evaluate.answers import answer_fields
from training.evaluate.detect import detect
from training.evaluate.kinds import KINDS
from training.evaluate.paper import Comparison, as_json, compare, paper_text, published_baseline
from training.evaluate.results import Result
from training.evaluate.subject import Options, Subject


@dataclass(frozen=True)
class Evaluation:
    """A model's results. `comparisons`: None unless they were asked for and the model has a shape of GPT-2's."""

    subject: Subject
    results: list[Result]
    paper: bool
    comparisons: list[Comparison] | None

    def paper_text(self) -> str:
        """The published figures beside the model's as lines of text; empty when they weren't asked for."""
        return paper_text(self.subject.model.config, self.comparisons) if self.paper else ""

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON's own types."""
        return {
            "model": self.subject.describe(),
            "environment": environment(self.subject.device),
            "results": [result.to_json() for result in self.results],
            **({"published": as_json(self.comparisons)} if self.paper else {}),
        }


def parse_target(target: str, options: Options, *, classifier: bool) -> tuple[str, str]:
    """`KIND=PATH`, or a path alone whose kind is told by its content -> (kind, path). ConfigError lists the kinds."""
    kind, equals, path = target.partition("=")
    check_columns(path if equals and kind in KINDS else target, options)
    if equals and kind in KINDS:
        return kind, path
    if equals and not Path(target).exists():
        raise ConfigError(f"--on {target}: there is no kind {kind!r}; the kinds are {', '.join(KINDS)}")
    return detect(Path(target), options, classifier=classifier), target


def check_columns(path: Path | str, options: Options) -> None:
    """DataError when columns are named for a data set of the Hub, whose rows name theirs."""
    if options.columns and str(path).startswith(HubCorpus.PREFIX):
        raise DataError(f"{path}: its rows name their fields themselves; leave --columns out")


def evaluate(
    subject: Subject,
    targets: Sequence[str],
    options: Options,
    *,
    paper: bool = False,
    done: Callable[[Evaluation], object] = lambda _: None,
) -> Evaluation:
    """Measure `subject` on each of `targets` (see parse_target); `done` gets what there is so far after each, whose result is the
    last. What is wrong with a target is said before any is measured, as far as its name and its first rows tell."""
    if not targets:
        raise ConfigError(f"name data to evaluate on: --on [KIND=]PATH; the kinds are {', '.join(KINDS)}")
    classifier = isinstance(subject.model, SequenceClassifier)
    chosen = [parse_target(target, options, classifier=classifier) for target in targets]
    if options.train:
        check_columns(options.train, options)
        table_files([options.train])
    answer_fields(options)
    for kind, _ in chosen:
        subject.check(kind)
    results: list[Result] = []
    found = Evaluation(subject, results, paper, None)
    for kind, path in chosen:
        started = time.perf_counter()
        result = measure(kind)(subject, path, options)
        if options.ngrams and options.ngrams.path.resolve() == Path(path).resolve():
            result.notes.append(
                "the n-grams were counted on the evaluated text itself, so they know it: name another corpus"
            )
        published = published_baseline(subject.model.config, kind) if paper else None
        result.baselines.extend([published] if published else [])
        results.append(replace(result, seconds=time.perf_counter() - started))
        found = Evaluation(subject, results, paper, compare(subject.model.config, results) if paper else None)
        done(found)
    return found


def measure(kind: str) -> Callable[[Subject, str, Options], Result]:
    """The function that measures a kind. Raises ModuleNotFoundError when it needs a library that isn't installed."""
    return getattr(importlib.import_module(KINDS[kind].module), KINDS[kind].function)
