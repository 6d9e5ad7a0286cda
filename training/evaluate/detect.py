"""What kind of data a file holds, told by its content."""

import re
from itertools import islice
from pathlib import Path

from model.errors import ConfigError
from training.data.archives import DAMAGED, open_bytes
from training.data.hub import HubCorpus
from training.data.tables import Row, read_rows, required, table_files
from training.errors import DataError
from training.evaluate.answers import answer_columns
from training.evaluate.subject import Options
from training.evaluate.wikitext import TITLE


def detect(path: Path, options: Options, *, classifier: bool) -> str:
    """The kind of `path` (a file, a directory of texts, or a data set of the Hub): text, wikitext2, lambada, hellaswag, classify,
    fewshot or answers. DataError for what can't be read, ConfigError when its fields fit no kind."""
    hub = str(path).startswith(HubCorpus.PREFIX)
    if not hub and not path.exists():
        raise DataError(f"{path}: no such file")
    if path.is_dir():
        return "text"
    if not hub and not _is_table(path):
        return _of_text(path)
    rows = list(islice(read_rows([path], columns=options.columns), 20))
    fields = set(rows[0].values)
    if {"endings", "label"} <= fields:
        return "hellaswag"
    if {options.text_field, options.label_field} <= fields:
        return "classify" if classifier else "fewshot"
    if fields.intersection(answer_columns(options)):
        return "answers"
    if "text" in fields:
        return "lambada" if all(_ends_open(row) for row in rows) else "text"
    raise ConfigError(
        f"{path}: can't tell what to do with rows of {', '.join(map(repr, sorted(fields)))}; say it: --on KIND={path}, or name the "
        "fields (--text-field, --label-field, --field)"
    )


def _is_table(path: Path) -> bool:
    try:
        return bool(table_files([path]))
    except DataError:
        return False


def _of_text(path: Path) -> str:
    try:
        with open_bytes(path) as file:
            begin = file.read(1 << 16).decode("utf-8", "ignore")
    except DAMAGED as error:
        raise DataError(f"{path}: damaged or unreadable ({error})") from None
    cut_words = re.search(r" @[-,.]@ |<unk>| , .* \. ", begin)
    return "wikitext2" if TITLE.search(begin) and cut_words else "text"


def _ends_open(row: Row) -> bool:
    """Whether a text is many words that end in a word, without the full stop that whole texts have."""
    text = required(row, "text").strip()
    return len(text.split()) >= 8 and text[-1].isalnum()
