"""A pretraining run's data: the tokenizer and the shards, made once, kept beside the run."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from model.errors import ConfigError
from model.files import file_sha256
from model.hub import resolve_model
from model.processors import available_cpus
from model.tokenizer import Tokenizer
from training.data.account import Account
from training.data.bpe import train_bpe
from training.data.filters import filtered
from training.data.readers import Corpus, corpus_files, read_documents
from training.data.shards import MANIFEST, Manifest, read_manifest, write_shards
from training.pretrain_recipe import PretrainSettings

TOKENIZER = "tokenizer.json"


def prepare_data(settings: PretrainSettings, directory: Path) -> Manifest:
    """Tokenizer and shards in `directory`, made when they aren't there, and their manifest.

    The tokenizer is that of the model to go on from, or the recipe's, or trained on the documents that the filters keep.
    ConfigError when what is there was made with other data settings.
    """
    data, tokenizer_file = settings.data, directory / TOKENIZER
    files = corpus_files(data.corpus)
    if (directory / "shards" / MANIFEST).is_file():
        return _checked(settings, directory, files)
    if settings.model.start is not None:
        Tokenizer.from_directory(resolve_model(settings.model.start)).save(directory)
    elif data.tokenizer is not None:
        Tokenizer.from_file(Path(data.tokenizer)).save(directory)
    else:
        train_bpe(_documents(settings, files, Account()), data.vocab_size, tokenizer_file)
    account = Account()
    manifest = write_shards(
        _documents(settings, files, account),
        tokenizer_file,
        directory / "shards",
        corpus=files,
        validation_fraction=data.validation_fraction,
        seed=settings.run.seed,
        threads=available_cpus(),
        account=account,
        asked=_asked(settings),
    )
    for line in account.lines():
        tqdm.write(line, file=sys.stderr)
    return manifest


def _documents(settings: PretrainSettings, files: Sequence[Corpus], account: Account) -> Iterator[str]:
    data = settings.data
    return filtered(read_documents(files, field=data.field, account=account), data.filters, account)


def _checked(settings: PretrainSettings, directory: Path, files: Sequence[Corpus]) -> Manifest:
    """The manifest of shards made before, by these settings from these files."""
    manifest, data = read_manifest(directory / "shards"), settings.data
    now = {
        "the files": [_name_and_size(file) for file in files],
        "validation_fraction": data.validation_fraction,
        "run.seed": settings.run.seed,
        "the tokenizer": file_sha256(directory / TOKENIZER) if (directory / TOKENIZER).is_file() else None,
        "data.filters": _without_places(data.filters.model_dump(mode="json")),
        **_asked(settings),
    }
    then = {
        "the files": [(source.name, source.bytes) for source in manifest.sources],
        "validation_fraction": manifest.validation_fraction,
        "run.seed": manifest.seed,
        "the tokenizer": manifest.tokenizer_sha256,
        "data.filters": _without_places(manifest.account["settings"]),
        **manifest.asked,
    }
    if changed := [name for name in now if name not in then or now[name] != then[name]]:
        raise ConfigError(
            f"{directory}: was prepared with other data settings ({', '.join(changed)} changed); delete it or name another run "
            "directory"
        )
    return manifest


def _without_places(filters: Mapping[str, Any]) -> dict[str, Any]:
    """The filters but for where held-out files lie: those are known by their hashes, and may have been moved."""
    return {name: value for name, value in filters.items() if name != "held_out"}


def _asked(settings: PretrainSettings) -> dict[str, Any]:
    """What else of the settings the shards follow from. What goes unused, since another setting wins, is None."""
    data, start = settings.data, settings.model.start
    file = Path(data.tokenizer) if data.tokenizer is not None and start is None else None
    if file is not None and not file.is_file():
        raise ConfigError(f"{file}: no such file; data.tokenizer names it")
    return {
        "model.start": start,
        "data.tokenizer": None if file is None else file_sha256(file),
        "data.vocab_size": data.vocab_size if file is None and start is None else None,
        "data.field": data.field,
        "data.filters.held_out": [file_sha256(Path(name)) for name in data.filters.held_out if Path(name).is_file()],
    }


def _name_and_size(source: Corpus) -> tuple[str, int | None]:
    """A source's name, and a file's size: enough to see a change without reading it."""
    return (source.name, source.stat().st_size) if isinstance(source, Path) else (str(source), None)
