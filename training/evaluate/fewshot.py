"""Classification by a language model that was never trained for it: which label it finds likeliest behind the text.

With k examples in front (few-shot) or none (zero-shot; Brown et al., 2020). A model likes some labels whatever the text; contextual
calibration (Zhao et al., 2021) divides each label's probability by what it gets behind texts that say nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.errors import ConfigError
from model.tokenizer import Tokenizer
from training.data.labelled import Labelled, labels_of
from training.evaluate.classification import classification_report
from training.evaluate.classify import add_baselines, numbers, read_rows_with_labels
from training.evaluate.results import Result, share_figure
from training.evaluate.scoring import Scorer, encode_pair
from training.evaluate.subject import Options, Subject, drawn

PROMPT = "Text: {text}\nLabel: {label}"
CONTENT_FREE = ("N/A", "", "[MASK]")
_BETWEEN = "\n\n"
_LEAST_TEXT = 8  # tokens of a text below which a prompt makes no sense


@dataclass(frozen=True)
class Prompter:
    """Makes prompts: the template, the examples in front, and how many tokens of a text fit (longer ones lose their end)."""

    template: str
    examples: Sequence[Labelled]
    tokenizer: Tokenizer
    room: int

    def prompt(self, text: str) -> str:
        """The examples and the text, up to where its label would stand."""
        return _BETWEEN.join([*(self._filled(row.text) + row.label for row in self.examples), self._filled(text)])

    def cuts(self, text: str) -> bool:
        """Whether the text is longer than there is room for."""
        return len(self.tokenizer.encode(text.strip())) > self.room

    def _filled(self, text: str) -> str:
        ids = self.tokenizer.encode(text.strip())
        kept = self.tokenizer.decode(ids[: self.room]).rstrip("\ufffd") if len(ids) > self.room else text.strip()
        before, after = self.template.split("{text}")
        return f"{before}{kept}{after.removesuffix('{label}')}"


def evaluate_fewshot(subject: Subject, path: Path | str, options: Options) -> Result:
    """The classification report of the likeliest labels, contextually calibrated or not, with `options.shots` examples."""
    scorer = subject.scorer()
    rows = read_rows_with_labels(path, options)
    chosen = drawn(rows, options)
    labels = labels_of(rows)
    truth = numbers(chosen, labels, "the labels of the file")
    prompter = make_prompter(subject, labels, options)
    raw = label_probabilities(scorer, prompter, [row.text for row in chosen], labels)
    probabilities = raw
    if options.calibrate:
        empty = label_probabilities(scorer, prompter, CONTENT_FREE, labels, desc="calibration")
        probabilities = calibrated(raw, empty.mean(0))
    report = classification_report(truth, probabilities, labels, seed=options.seed)
    figures = list(report.figures)
    if options.calibrate:
        figures.insert(1, share_figure("accuracy, uncalibrated", raw.argmax(1) == truth, "the same before calibration"))
    result = Result("fewshot", str(path), len(chosen), len(rows), "rows", figures, details=report.details())
    first = prompter.prompt(chosen[0].text)
    result.details["prompt"] = f"{first}[{' | '.join(labels)}]"
    result.notes.extend(_notes(prompter, chosen, options))
    add_baselines(result, chosen, truth, probabilities, options)
    return result


def make_prompter(subject: Subject, labels: Sequence[str], options: Options) -> Prompter:
    """The prompter of these options. ConfigError for a template without its two places, for examples without a file to draw them
    from, and when prompts leave no room for texts."""
    template = (options.prompt or PROMPT).replace("\\n", "\n")
    if template.count("{text}") != 1 or template.count("{label}") != 1 or not template.endswith("{label}"):
        raise ConfigError(f"prompt must hold {{text}} once and end in {{label}}, not {template!r}")
    if options.shots < 0:
        raise ConfigError(f"shots must be 0 or more, not {options.shots}")
    tokenizer = subject.tokenizer
    longest = max(len(tokenizer.encode(template.replace("{label}", label) + _BETWEEN)) for label in labels)
    room = (subject.model.config.context_length - 8) // (options.shots + 1) - longest
    if room < _LEAST_TEXT:
        raise ConfigError(
            f"{options.shots} examples don't fit the model's context of {subject.model.config.context_length} tokens; ask for fewer"
        )
    return Prompter(template, draw_examples(labels, options), tokenizer, room)


def draw_examples(labels: Sequence[str], options: Options) -> list[Labelled]:
    """`options.shots` training rows, drawn by the seed: as many of each label as of any other, or one more, in a drawn order."""
    if not options.shots:
        return []
    if options.train is None:
        raise ConfigError("few-shot examples need a file to be drawn from, apart from the evaluated one: --train FILE")
    rows = read_rows_with_labels(options.train, options)
    numbers(rows, labels, "the labels of the evaluated file")
    if len(rows) < options.shots:
        raise ConfigError(f"{options.train}: has {len(rows)} rows, fewer than the {options.shots} examples asked for")
    rng = np.random.default_rng(options.seed)
    piles = [
        [rows[i] for i in rng.permutation(len(rows)) if rows[i].label == label] for label in rng.permutation(labels)
    ]
    drawn: list[Labelled] = []
    while len(drawn) < options.shots:
        drawn += [pile.pop() for pile in piles if pile]
    return [drawn[i] for i in rng.permutation(options.shots)]


def label_probabilities(
    scorer: Scorer, prompter: Prompter, texts: Sequence[str], labels: Sequence[str], *, desc: str = "few-shot"
) -> np.ndarray:
    """The probability [n, C] of each label behind each text, all its tokens together, among the labels alone."""
    requests = []
    for text in texts:
        prompt = prompter.prompt(text)
        requests += [encode_pair(prompter.tokenizer, prompt, label) for label in labels]
    totals = np.array([scored.total for scored in scorer.score(requests, desc=desc)]).reshape(len(texts), len(labels))
    return _normalised(np.exp(totals - totals.max(1, keepdims=True)))


def calibrated(probabilities: np.ndarray, empty: np.ndarray) -> np.ndarray:
    """probabilities [n, C] divided by `empty` [C], what the labels get behind texts that say nothing, and made to sum to 1."""
    return _normalised(probabilities / np.maximum(empty, 1e-12))


def _normalised(values: np.ndarray) -> np.ndarray:
    return values / values.sum(1, keepdims=True)


def _notes(prompter: Prompter, rows: Sequence[Labelled], options: Options) -> list[str]:
    kind = (
        f"{options.shots} examples drawn from {options.train} by seed {options.seed}"
        if options.shots
        else "no examples"
    )
    way = (
        "divided by their mean behind 'N/A', '' and '[MASK]' (contextual calibration)"
        if options.calibrate
        else "as they are"
    )
    notes = [f"{kind}; the labels' probabilities (all their tokens) are taken {way}"]
    cut = sum(prompter.cuts(row.text) for row in rows)
    if cut:
        notes.append(
            f"{cut:,} of {len(rows):,} texts were cut to {prompter.room} tokens, so that the prompts fit the context"
        )
    return notes
