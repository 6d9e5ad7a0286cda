"""Who labels texts: a classifier's head, or the likelihood of labels under a language model. As POST /classify does."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from app.likelihood import CONTENT_FREE, Prompter, calibrated, content_free_bias, softmax
from cli.local import Chosen, LocalEngine
from model.errors import HomegrownError


@dataclass(frozen=True)
class Scores:
    """Of one text: a probability for each label, and whether its end was too long to be read."""

    probabilities: Sequence[float]
    truncated: bool


class Labeller(Protocol):
    """Labels texts."""

    @property
    def labels(self) -> Sequence[str]:
        """In the order of the probabilities."""
        ...

    def __call__(self, texts: Sequence[str]) -> list[Scores]:
        """One entry a text; none of the texts is blank."""
        ...


@dataclass(frozen=True)
class Zeroshot:
    """What a language model is told: the labels to choose from, examples as (text, label), and how both are shown."""

    labels: tuple[str, ...]
    examples: tuple[tuple[str, str], ...]
    template: str


def make_labeller(engine: LocalEngine, chosen: Chosen, told: Zeroshot | None) -> Labeller:
    """The labeller that the command line asks for: with `told` a language model, else a classifier: the model, the adapter that
    was named, or the only classifier among those it carries. HomegrownError when the two don't go together."""
    adapter, heads = chosen.adapter, {name: labels for name, labels in engine.info.adapters.items() if labels}
    if told is not None:
        labels = heads.get(adapter or "") or engine.info.labels
        if labels:
            raise HomegrownError(
                f"{adapter or chosen.name}: is a classifier with labels of its own ({', '.join(labels)}); leave --label out"
            )
        return ByLikelihood(engine, adapter, told)
    if adapter is None and not engine.info.labels and len(heads) == 1:
        (adapter,) = heads
    labels = engine.info.labels if adapter is None else heads.get(adapter)
    if not labels:
        carried = f", or name one of its classifiers by --adapter: {', '.join(sorted(heads))}" if heads else ""
        raise HomegrownError(
            f"{adapter or chosen.name}: is a language model; name the labels to choose from, as --label good --label bad{carried}"
        )
    return ByHead(engine, adapter, labels)


class ByHead:
    """A trained classifier."""

    def __init__(self, engine: LocalEngine, adapter: str | None, labels: Sequence[str]) -> None:
        self.labels = labels
        self._engine, self._adapter = engine, adapter

    def __call__(self, texts: Sequence[str]) -> list[Scores]:
        """See Labeller."""
        from model.classifier import encode_text

        context = self._engine.info.context
        rows = [encode_text(self._engine.tokenizer, text.strip()) for text in texts]
        scores = self._engine.classify([ids[:context] for ids in rows], adapter=self._adapter)
        return [Scores(softmax(each), len(ids) > context) for each, ids in zip(scores, rows, strict=True)]


class ByLikelihood:
    """A language model that was not trained for the labels: zero-shot, or few-shot with examples."""

    def __init__(self, engine: LocalEngine, adapter: str | None, told: Zeroshot) -> None:
        """ContextLengthError when examples and labels leave no room for a text."""
        self.labels = told.labels
        self._engine, self._adapter = engine, adapter
        self._prompter = Prompter(
            engine.tokenizer, told.labels, context=engine.info.context, template=told.template, examples=told.examples
        )
        self._bias = content_free_bias([means for means, _ in self._means(CONTENT_FREE)])

    def __call__(self, texts: Sequence[str]) -> list[Scores]:
        """See Labeller."""
        return [Scores(calibrated(means, self._bias), cut) for means, cut in self._means(texts)]

    def _means(self, texts: Sequence[str]) -> list[tuple[list[float], bool]]:
        """The labels' mean log-probabilities behind each text, and whether it was cut."""
        questions = [self._prompter.question(text) for text in texts]
        found = self._engine.likelihoods((c for each in questions for c in each.continuations), self._adapter)
        n = len(self.labels)
        return [(found[i * n : (i + 1) * n], question.truncated) for i, question in enumerate(questions)]


def identity(chosen: Chosen, told: Zeroshot | None, spec: dict[str, Any]) -> dict[str, Any]:
    """What the answers depend on besides the texts, as JSON: unfinished work is gone on with only where all of it is the same."""
    directories = [chosen.directory, *(Path(chosen.adapters[name]) for name in sorted(chosen.adapters))]
    files = [path for each in directories for path in sorted(each.glob("*.safetensors"))]
    weights = [[str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    shown = None if told is None else [list(told.labels), [list(pair) for pair in told.examples], told.template]
    return {"weights": weights, "adapter": chosen.adapter, "told": shown, "engine": spec}
