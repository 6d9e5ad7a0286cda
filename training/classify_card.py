"""What a classifier's run writes about its result: tables for the report, and the model card."""

from collections.abc import Mapping, Sequence

from training.card import base_name, card, environment_text, training_text
from training.classify_recipe import ClassifySettings
from training.data.labelled import LabelledData
from training.evaluate.results import Result, percent
from training.finetune import Start, method_text
from training.state import Counters
from training.table import Table

_USE = """```python
from transformers import pipeline
print(pipeline("text-classification", model="DIRECTORY", top_k=None)(["a text"]))
```

In batches the tokenizer's padding token pads; a text longer than `model_max_length` is to be cut (`truncation=True`)."""
_USE_ADAPTER = """`homegrown merge DIRECTORY --out MODEL` makes a model of it that needs neither adapter nor base; `peft` loads the
directory as it is, on the base model with a head of as many labels. `labels.json` names them."""
_LIMITS = (
    "It gives every text one of its labels, whatever the text is about. Its measures above hold for texts like those that it was "
    "trained on, and for no others."
)


def result_tables(results: Sequence[Result]) -> list[Table]:
    """Measures beside the baselines', then each label's, then the confusion matrix, of each result."""
    tables: list[Table] = []
    for result in results:
        tables += [_measures(result), _classes(result), _confusion(result)]
    return tables


def data_table(data: LabelledData) -> Table:
    """How many rows of each label each split has."""
    splits = {"training": data.train, "validation": data.validation, "test": data.test}
    counts = {name: [row.label for row in rows] for name, rows in splits.items() if rows}
    rows = [[label, *(f"{labels.count(label):,}" for labels in counts.values())] for label in data.labels]
    rows.append(["all", *(f"{len(labels):,}" for labels in counts.values())])
    return Table("Rows", ["label", *counts], rows)


def classify_card(
    started: Start,
    settings: ClassifySettings,
    data: LabelledData,
    results: Sequence[Result],
    notes: Sequence[str],
    counters: Counters,
    environment: Mapping[str, str],
) -> str:
    """The README.md of a classifier, with the front matter that model hubs read."""
    adapter = settings.method == "lora"
    about = [settings.data.about.strip(), data_table(data).markdown(), *(f"{note}." for note in notes)]
    sections = {
        **{table.title: table.markdown() for table in result_tables(results)},
        "How to use it": _USE_ADAPTER if adapter else _USE,
        "Data": "\n\n".join(part for part in about if part),
        "Training": training_text(
            settings.optim,
            settings.run,
            counters,
            batch=f"{settings.optim.batch_rows} texts",
            passes=counters.samples / len(data.train),
            method=method_text(started, settings),
        )
        + f" The weights are those after update {counters.best_step:,}, where the validation loss was lowest.",
        "Made with": environment_text(environment),
        "What it is not for": _LIMITS,
    }
    kind = "adapter (PEFT) that makes a classifier of" if adapter else "classifier on"
    summary = f"A {kind} {base_name(settings.model)}, by Homegrown: {', '.join(data.labels)}. It reads each text's last token."
    return card(
        settings.name,
        summary,
        sections,
        tags=["lora"] if adapter else [],
        task="text-classification",
        library="peft" if adapter else "transformers",
        base=settings.model,
    )


def _measures(result: Result) -> Table:
    rows = [[figure.name, figure.shown, figure.interval, *beside] for figure, beside in result.rows()]
    conventions = [f"{each.name}: {each.convention}." for each in (*result.figures, *result.baselines)]
    header = ["measure", "this model", "95 % interval", *(baseline.name for baseline in result.baselines)]
    title = f"Measures on the {result.data} rows ({result.items:,})"
    differences = [baseline.difference_text for baseline in result.baselines if baseline.difference_text]
    return Table(title, header, rows, " ".join([*conventions, *(f"{note}." for note in (*differences, *result.notes))]))


def _classes(result: Result) -> Table:
    rows = [
        [each["label"], *(percent(each[name]) for name in ("precision", "recall", "f1")), f"{each['rows']:,}"]
        for each in result.details["classes"]
    ]
    return Table(f"Labels ({result.data})", ["label", "precision", "recall", "F1", "rows"], rows)


def _confusion(result: Result) -> Table:
    labels = result.details["labels"]
    rows = [
        [label, *(f"{count:,}" for count in counts)]
        for label, counts in zip(labels, result.details["confusion"], strict=True)
    ]
    return Table(f"Confusion ({result.data})", ["true label", *(f"said {label}" for label in labels)], rows)
