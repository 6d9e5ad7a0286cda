"""The spam classifier's rows as its recipe splits them, written out: few-shot examples are drawn from those that train, and asked
about are those that test."""

from pathlib import Path

from model.errors import ConfigError
from model.files import staged_directory, write_json
from training.classify_recipe import ClassifySettings
from training.data.held_out import HeldOut
from training.data.labelled import read_data
from training.data.tables import write_jsonl

TRAIN, TEST, TEST_APART, REPORT = "train.jsonl", "test.jsonl", "test_apart.jsonl", "report.json"
_RUN = 6  # words in a row that two messages share: they are copies of one


def write_sms(data: Path, directory: Path, recipe: Path) -> Path:
    """Write `directory` with train.jsonl (validation rows too), test.jsonl, those of them that share no six words in a row with a
    training row (test_apart.jsonl: spam comes in series), and how many rows each has (report.json); return it.

    `data`: the folder with classify/. DataError names a file or row that can't be used, ConfigError the recipe's field.
    """
    settings = ClassifySettings.from_toml(recipe)
    found = read_data(settings.data, [data / "classify/sms_spam.tsv"], seed=settings.run.seed)
    if not found.test:
        raise ConfigError(f"{recipe}: data.test_fraction must be above 0, so that there are test rows")
    learned = [*found.train, *found.validation]
    known = HeldOut((row.text for row in learned), run=_RUN)
    apart = [row for row in found.test if not known.passages(row.text)]
    sides = {TRAIN: learned, TEST: found.test, TEST_APART: apart}
    with staged_directory(directory, overwrite=True) as stage:
        for name, rows in sides.items():
            write_jsonl(({"text": row.text, "label": row.label} for row in rows), stage / name)
        write_json(stage / REPORT, {name: {"rows": len(rows)} for name, rows in sides.items()})
    return directory
