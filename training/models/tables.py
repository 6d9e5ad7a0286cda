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
# Where running text lies, in part -> what it is.
TEXTS = {
    "wikitext2": "WikiText-2, validation",
    "validation/documents": "validation split",
    "$UNSEEN": "unseen authors",
}
ANSWERED = {"fairytale": "FairytaleQA, validation", "held-out": "short instructions, held out"}
# What classifies -> its test rows: by adapter, those of its run; else by measure.
CLASSIFIED = {
    "sms-spam": "SMS spam",
    "sms-spam-apart": "SMS spam, those that share no six words with a training row",
    "sentiment": "SST-2, dev set",
    "sentiment-rt": "rt-polarity, sentences apart from SST-2's",
}
_TEXT_NOTE = """\
Bits a byte and perplexity: less is better. The 5-gram (interpolated modified Kneser-Ney) was counted on all of the
training text, over the same tokens; in HellaSwag's row stands chance. Behind shares stand their 95 % intervals."""
_VALIDATION_NOTE = """\
The validation split is {documents} documents that were kept back, {megabytes:.1f} MB without the passages that they
share with training documents; other works of their authors may have been learned."""
_CLASSIFIED_NOTE = """\
Logistic regression: on tf-idf of words and pairs of words, of the same training rows. Intervals are of 95 %; that of
the difference is a paired bootstrap's."""
_FEW_NOTE = """\
The label that the model finds likeliest behind the text, its probability divided by what it gets behind texts that
say nothing (contextual calibration). The four examples are drawn by seed 0 from the training rows. The base learned no
labels; the adapter instruct has seen reviews with what they say of a film, a shop or an app among T0's rows."""
_ANSWERS_NOTE = """\
Greedy answers of at most 64 tokens. F1 of words and exact match as SQuAD counts them; ROUGE-L without stemming; 95 %
intervals behind each. A base model, which has no template, is asked with Alpaca's and cut where serving cuts it. The
adapter instruct learned from FairytaleQA's training split, of other tales; the others did not."""


def texts_table(figures: Figures) -> Table:
    """The base on running text, and what goes on a text: beside the 5-gram and the stronger model."""
    stronger = figures["stronger"]
    rows, shown = [], []
    for title, name, task, data, figure in _shown(figures):
        ours, theirs = (measure(figures, f"{model}-{name}", task, data) for model in ("base", "stronger"))
        rows.append(_text_row(title, figure, ours, theirs))
        shown.append((title.partition(":")[0], ours, figure))
    parts = [_TEXT_NOTE, _validation_note(figures), _scope([result for _, result, _ in shown]), *_conventions(shown)]
    header = ["", BASE, "5-gram", stronger or ""]
    if stronger is None:
        parts.append("No stronger model was measured beside it.")
        return Table("Text", header[:3], [row[:3] for row in rows], _joined(parts))
    about = figures["measures"]["stronger-text"]["model"]
    parts.append(
        f"{stronger} has {about['parameters'] / 1e6:.0f} M parameters and reads {about['context']:,} tokens at once where the base "
        f"reads {figures['base']['context']:,}; it was measured in {about['arithmetic']}."
    )
    return Table("Text", header, rows, _joined(parts))


_TASKS = (
    ("LAMBADA: last word right", "text", "lambada", "", WORD_ACCURACY),
    ("LAMBADA: last word's perplexity", "text", "lambada", "", WORD_PERPLEXITY),
    ("HellaSwag: right by characters", "hellaswag", "hellaswag", "", BY_CHARACTERS),
)


def _shown(figures: Figures) -> list[tuple[str, str, str, str, str]]:
    """(title, measure, task, data, figure) of each row."""
    found = [
        (f"{title}: bits a byte", "text", "text", data, BITS)
        for data, title in TEXTS.items()
        if measure(figures, "base-text", "text", data) is not None
    ]
    return [*found, (f"{TEXTS['wikitext2']}: word perplexity", "text", "text", "wikitext2", WORDS), *_TASKS]


def _text_row(title: str, name: str, ours: Result | None, theirs: Result | None) -> list[str]:
    beside = _beside(ours, "chance" if name == BY_CHARACTERS else "5-gram")
    return [
        title,
        _cell(ours, name),
        beside.shown(ours.figure(name)) if ours and beside else _NONE,
        _cell(theirs, name),
    ]


def _validation_note(figures: Figures) -> str:
    about = figures["base"]["validation"]
    return _VALIDATION_NOTE.format(documents=about["documents"], megabytes=about["bytes"] / 1e6)


def _conventions(shown: Sequence[tuple[str, Result | None, str]]) -> list[str]:
    """How each figure was taken, and what is to be said of its rows; each once."""
    said: dict[str, None] = {}
    for title, result, name in shown:
        if result is not None:
            said[f"{title}, {name}: {result.figure(name).convention}."] = None
            said |= {f"{title}: {note}.": None for note in result.notes if "n-gram" not in note}
    return [sentence for sentence in said if not sentence.endswith(": .")]


def _joined(parts: Sequence[str]) -> str:
    return " ".join(part for part in parts if part)


def margin(figures: Figures) -> dict[str, float]:
    """Bits a byte by which the base is better than the 5-gram, by text; only those that both were measured on."""
    found = {}
    for data, title in TEXTS.items():
        result = measure(figures, "base-text", "text", data)
        gram = beside(result, "5-gram", BITS) if result else None
        if result is not None and gram is not None:
            found[title] = gram - result.figure(BITS).value
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
    """The test result of a classifier: by its adapter's name the rows of its run, else by the measure's name others."""
    if key not in figures["classifiers"]:
        return measure(figures, key, "classify")
    results = [result_of(result) for result in figures["classifiers"][key]]
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
    """Runs of the base's recipe, cut short, on the same text; the note says how far they lie apart."""
    reached = {run["name"]: measure(figures, f"{run['name']}-text", "text") for run in figures["short"]}
    bits = {name: result.figure(BITS).value for name, result in reached.items() if result is not None}
    rows = [[str(run["seed"]), f"{bits[run['name']]:.4f}"] for run in figures["short"]]
    by_seed: dict[int, list[float]] = {}
    for run in figures["short"]:
        by_seed.setdefault(run["seed"], []).append(bits[run["name"]])
    firsts = [values[0] for values in by_seed.values()]
    note = (
        f"Runs of different seeds lie {max(firsts) - min(firsts):.4f} bits a byte apart"
        if firsts
        else "No such run was made"
    )
    note += "".join(f"; those of seed {seed} {max(v) - min(v):.4f}" for seed, v in by_seed.items() if len(v) > 1)
    return Table("Short runs", ["seed", f"{TEXTS['wikitext2']}: bits a byte"], rows, f"{note}.")


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
