"""Labelled rows for the two classifiers: which train, which measure.

SMS: the recipe's own split, written out so that few-shot examples come from its training rows and questions from its test rows.

Sentiment: SST-2 was made of rt-polarity's sentences and of their phrases, so the two share text. Test and validation rows are
sentences of rt-polarity, a further test set is SST-2's own; from all others every row goes that shares a run of six words with one
of them, or, being shorter, stands in one as a whole.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from model.errors import ConfigError
from model.files import staged_directory, write_json
from training.classify_recipe import ClassifySettings
from training.data.labelled import Labelled, deduplicate, read_class_files, read_data, read_labelled, split_rows
from training.models.places import Places

RUN = 6  # words
_WORD = re.compile(r"[^\W_]+")
_SST2 = {"0": "neg", "1": "pos"}
_HELD_OUT = 0.1  # of rt-polarity for the test, and of the rest to choose the weights by

FILES = (
    "sms-train.jsonl", "sms-test.jsonl", "sentiment-train.jsonl", "sentiment-validation.jsonl", "sentiment-test.jsonl",
    "sst2-dev.jsonl", "report.json",
)  # fmt: skip


def write_rows(places: Places) -> None:
    """Write FILES into $WORK/rows, all or none. DataError names a file or row that can't be used, ConfigError a recipe's field."""
    files = {**_sms(places), **_sentiment(places)}
    with staged_directory(places.path("$WORK/rows"), overwrite=True) as stage:
        for name, rows in files.items():
            lines = (json.dumps({"text": row.text, "label": row.label}, ensure_ascii=False) + "\n" for row in rows)
            (stage / name).write_text("".join(lines), "utf-8")
        write_json(stage / "report.json", {name.removesuffix(".jsonl"): len(rows) for name, rows in files.items()})


def _sms(places: Places) -> dict[str, list[Labelled]]:
    recipe = places.path("$RECIPES/classify_sms.toml")
    settings = ClassifySettings.from_toml(recipe)
    data = read_data(settings.data, [places.path("$DATA/classify/sms_spam.tsv")], seed=settings.run.seed)
    if not data.test:
        raise ConfigError(f"{recipe}: data.test_fraction must be above 0, so that there are test rows")
    return {"sms-train.jsonl": [*data.train, *data.validation], "sms-test.jsonl": data.test}


def _sentiment(places: Places) -> dict[str, list[Labelled]]:
    pairs = [(label, places.path(f"$DATA/classify/rt-polarity.{label}.txt")) for label in ("neg", "pos")]
    rest, test = split_rows(deduplicate(read_class_files(pairs)).rows, _HELD_OUT, 0, "test")
    rest, validation = split_rows(rest, _HELD_OUT, 0, "validation")
    dev = _sst2(places.path("$DATA/classify/sst2_dev.tsv"), "content")
    more = _sst2(places.path("$DATA/classify/sst2_train.tsv.gz"), "sentence")
    train = unseen(deduplicate([*rest, *more]).rows, [*validation, *test, *dev])
    return {
        "sentiment-train.jsonl": train,
        "sentiment-validation.jsonl": unseen(validation, [*test, *dev]),
        "sentiment-test.jsonl": test,
        "sst2-dev.jsonl": dev,
    }


def _sst2(path: Path, field: str) -> list[Labelled]:
    rows = read_labelled([path], text_field=field, label_field="label")
    found = []
    for row in rows:
        if row.label not in _SST2:
            raise ConfigError(f"{row.where}: the label is {row.label!r}; SST-2 has 0 and 1")
        found.append(Labelled(row.text, _SST2[row.label], row.where))
    return found


def unseen(rows: Iterable[Labelled], held_out: Iterable[Labelled]) -> list[Labelled]:
    """The rows that share no run of six words with a held-out one, nor, being shorter, stand in one as a whole. A word is letters
    and digits, in any case."""
    known = {run for row in held_out for n in range(1, RUN + 1) for run in _runs(_words(row.text), n)}
    return [row for row in rows if not _seen(_words(row.text), known)]


def _seen(words: Sequence[str], known: set[tuple[str, ...]]) -> bool:
    return any(run in known for run in _runs(words, min(RUN, len(words))))


def _runs(words: Sequence[str], n: int) -> Iterator[tuple[str, ...]]:
    """Every run of n words, n at least 1."""
    return (tuple(words[i : i + n]) for i in range(len(words) - n + 1)) if n else iter(())


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())
