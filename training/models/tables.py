"""The tables of the page, the cards and the README, from the figures."""

import math
from collections.abc import Sequence

from training.evaluate.answers import ENDED, F1, MATCH, ROUGE
from training.evaluate.hellaswag import BY_CHARACTERS
from training.evaluate.lambada import WORD_ACCURACY, WORD_PERPLEXITY
from training.evaluate.results import Baseline, Figure, Result
from training.models.figures import Figures, measure, result_of
from training.models.places import BASE
from training.table import Table

BITS, ACCURACY, WORDS = "bits per byte", "accuracy", "word perplexity"
LOGISTIC = "tf-idf + logistic"  # as the baseline is called in results
_NONE = "–"
FEW = {"sms": "SMS spam", "sentiment": "SST-2, dev set"}
ANSWERED = {"fairytale": "FairytaleQA, validation", "held-out": "short instructions, held out"}
CLASSIFIED = {"sms-spam": "SMS spam", "sentiment": "SST-2, dev set", "rt": "rt-polarity, sentences apart from SST-2's"}
_TEXT_NOTE = """\
Bits a byte and perplexity: less is better. The 5-gram (interpolated modified Kneser-Ney) was counted on the same
training text, over the same tokens; in HellaSwag's row stands chance. Behind shares stand their 95 % intervals."""
_CLASSIFIED_NOTE = """\
Logistic regression: on tf-idf of words and pairs of words, of the same training rows. Intervals are of 95 %; that of
the difference is a paired bootstrap's."""
_FEW_NOTE = """\
The label that the model finds likeliest behind the text, its probability divided by what it gets behind texts that
say nothing (contextual calibration). The four examples are drawn by seed 0 from the training rows."""
_ANSWERS_NOTE = """\
Greedy answers of at most 64 tokens. F1 of words and exact match as SQuAD counts them; ROUGE-L without stemming; 95 %
intervals behind each. A base model, which has no template, is asked with Alpaca's and cut where serving cuts it."""


def texts_table(figures: Figures) -> Table:
    """The base on running text, and what goes on a text: beside the 5-gram and the stronger model."""
    stronger = figures["stronger"]
    ours = {task: measure(figures, name, task) for name, task in _TEXTS}
    theirs = {task: measure(figures, f"stronger-{name.partition('-')[2]}", task) for name, task in _TEXTS}
    validation = {row["name"]: row for row in figures["base"]["validation"]}
    own, gram = validation["this model"], validation.get("5-gram")
    rows = [
        ["validation split: bits a byte", f"{own['bits_per_byte']:.3f}", f"{gram['bits_per_byte']:.3f}" if gram else _NONE, _NONE],
        *(_text_row(title, name, ours[task], theirs[task]) for title, task, name in _SHOWN),
    ]  # fmt: skip
    header = ["", BASE, "5-gram", stronger or ""]
    note = f"{_TEXT_NOTE} {_scope([ours['hellaswag']])}".rstrip()
    if stronger is None:
        return Table("Text", header[:3], [row[:3] for row in rows], f"{note} No stronger model was measured beside it.")
    about = figures["measures"]["stronger-text"]["model"]
    note += f" {stronger} has {about['parameters'] / 1e6:.0f} M parameters and was measured in {about['arithmetic']}."
    return Table("Text", header, rows, note)


_TEXTS = (("base-text", "text"), ("base-text", "lambada"), ("base-hellaswag", "hellaswag"))
_SHOWN = (
    ("WikiText-2, validation: bits a byte", "text", BITS),
    ("WikiText-2, validation: word perplexity", "text", WORDS),
    ("LAMBADA: last word right", "lambada", WORD_ACCURACY),
    ("LAMBADA: last word's perplexity", "lambada", WORD_PERPLEXITY),
    ("HellaSwag: right by characters", "hellaswag", BY_CHARACTERS),
)


def _text_row(title: str, name: str, ours: Result | None, theirs: Result | None) -> list[str]:
    beside = _beside(ours, "chance" if name == BY_CHARACTERS else "5-gram")
    return [
        title,
        _cell(ours, name),
        beside.shown(ours.figure(name)) if ours and beside else _NONE,
        _cell(theirs, name),
    ]


def margin(figures: Figures) -> dict[str, float]:
    """Bits a byte by which the base is better than the 5-gram, by text; only those that both were measured on."""
    rows = {row["name"]: row["bits_per_byte"] for row in figures["base"]["validation"]}
    found = {"the validation split": rows["5-gram"] - rows["this model"]} if "5-gram" in rows else {}
    result = measure(figures, "base-text", "text")
    gram = _beside(result, "5-gram")
    if result is not None and gram is not None:
        found["WikiText-2"] = gram.values[BITS] - result.figure(BITS).value
    return found


def classifiers_table(figures: Figures) -> Table:
    """Accuracy of both adapters on rows that they never saw, beside logistic regression and the majority."""
    rows = []
    for key, title in CLASSIFIED.items():
        if (result := classified(figures, key)) is None:
            continue
        accuracy, words = result.figure(ACCURACY), _beside(result, LOGISTIC)
        majority = _beside(result, "majority")
        rows.append(
            [
                f"{title} ({result.items:,} rows)",
                _with_interval(accuracy),
                _with_interval(result.figure("macro F1")),
                words.shown(accuracy) if words else _NONE,
                _difference(words),
                majority.shown(accuracy) if majority else _NONE,
            ]
        )
    header = ["test rows", "accuracy", "macro F1", "logistic regression", "this less that, points", "majority"]
    return Table("Classifiers", header, rows, _CLASSIFIED_NOTE)


def classified(figures: Figures, key: str) -> Result | None:
    """The test result of a classifier: by its adapter's name, or "rt", the sentiment adapter's on rt-polarity."""
    if key == "rt":
        return measure(figures, "sentiment-rt", "classify")
    results = [result_of(result) for result in figures["classifiers"].get(key, [])]
    return next((result for result in results if result.data == "test"), None)


def confusion_table(result: Result, title: str) -> Table:
    """Rows by true label, columns by what was said."""
    labels: Sequence[str] = result.details["labels"]
    rows = [
        [label, *(f"{count:,}" for count in counts)]
        for label, counts in zip(labels, result.details["confusion"], strict=True)
    ]
    return Table(title, [title, *(f"said {label}" for label in labels)], rows)


def few_shot_table(figures: Figures) -> Table:
    """Accuracy of labels that nobody trained for, without and with examples."""
    rows = []
    for kind, title in FEW.items():
        for key, name in models(figures).items():
            shots = {n: measure(figures, f"{key}-{kind}-{n}", "fewshot") for n in (0, 4)}
            if not any(shots.values()):
                continue
            first = next(result for result in shots.values() if result)
            majority = _beside(first, "majority")
            given = majority.shown(first.figure(ACCURACY)) if majority else _NONE
            rows.append([title, name, *(_cell(result, ACCURACY) for result in shots.values()), given])
    scope = _scope([measure(figures, f"base-{kind}-0", "fewshot") for kind in FEW])
    note = f"{_FEW_NOTE} {scope}".rstrip()
    return Table("Zero- and few-shot", ["rows", "model", "no example", "four", "majority"], rows, note)


def answers_table(figures: Figures) -> Table:
    """What greedy answers have of the references, and how many end by themselves."""
    rows, results = [], []
    for kind, title in ANSWERED.items():
        first = None
        for key, name in models(figures).items():
            result = measure(figures, f"{key}-{kind}", "answers")
            if result is not None:
                first = first or result
                results.append(result)
                rows.append([title, name, *(_cell(result, measured) for measured in (F1, ROUGE, MATCH, ENDED))])
        lead = _beside(first, "first sentence")
        if first is not None and lead is not None:
            rows.append(
                [
                    title,
                    "(first sentence of the text)",
                    *(lead.shown(first.figure(m)) for m in (F1, ROUGE, MATCH)),
                    _NONE,
                ]
            )
    note = f"{_ANSWERS_NOTE} {_scope(results)}".rstrip()
    return Table("Answers", ["rows", "model", F1, ROUGE, MATCH, ENDED], rows, note)


def short_table(figures: Figures) -> Table:
    """Three runs of the base's recipe, cut short."""
    rows = [
        [run["command"].partition("--seed ")[2].split(" ")[0], f"{run['loss']:.4f}", f"{run['bits_per_byte']:.4f}"]
        for run in figures["short"]
    ]
    losses = [run["loss"] for run in figures["short"]]
    same: dict[str, list[float]] = {}
    for row, loss in zip(rows, losses, strict=True):
        same.setdefault(row[0], []).append(loss)
    twice = [values for values in same.values() if len(values) > 1]
    note = f"The losses lie {max(losses) - min(losses):.4f} nats apart" if losses else "No such run was made"
    note += "".join(f"; those of one seed {max(v) - min(v):.4f}" for v in twice)
    return Table("Short runs", ["seed", "validation loss, nats a token", "bits a byte"], rows, f"{note}.")


def models(figures: Figures) -> dict[str, str]:
    """The generating models by the names that their measures begin with."""
    found = {"base": BASE, "instruct": "with the adapter instruct"}
    return found | ({"stronger": figures["stronger"]} if figures["stronger"] else {})


def _cell(result: Result | None, name: str) -> str:
    return _NONE if result is None else _with_interval(result.figure(name))


def _with_interval(figure: Figure) -> str:
    return f"{figure.shown} ({figure.interval})" if figure.share and figure.interval else figure.shown


def _difference(words: Baseline | None) -> str:
    found = next((d for d in words.differences if d.name == ACCURACY), None) if words else None
    if found is None:
        return _NONE
    ends = "" if found.low is None or found.high is None else f" ({100 * found.low:+.2f} to {100 * found.high:+.2f})"
    return f"{100 * found.value:+.2f}{ends}"


def _beside(result: Result | None, name: str) -> Baseline | None:
    """A result's baseline whose name begins so."""
    return None if result is None else next((b for b in result.baselines if b.name.startswith(name)), None)


def beside(result: Result, name: str, figure: str) -> float | None:
    """What a result's baseline, whose name begins so, has of a figure; None where it has nothing."""
    found = _beside(result, name)
    value = found.values.get(figure) if found else None
    return None if value is None or not math.isfinite(value) else value


def _scope(results: Sequence[Result | None]) -> str:
    """Which results are of a part of their rows, in a sentence."""
    parts = {f"{r.items:,} of {r.total:,} {r.unit}" for r in results if r is not None and r.items < r.total}
    return f"Of a part, drawn by seed 0: {', '.join(sorted(parts))}." if parts else ""
