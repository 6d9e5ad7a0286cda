"""A pretraining run's data: the tokenizer and the shards, made once, kept beside the run."""

import os
from pathlib import Path

from model.errors import ConfigError
from model.files import file_sha256
from model.hub import resolve_model
from model.tokenizer import Tokenizer
from training.data.bpe import train_bpe
from training.data.readers import corpus_files, read_documents
from training.data.shards import MANIFEST, Manifest, read_manifest, write_shards
from training.pretrain_recipe import PretrainSettings

TOKENIZER = "tokenizer.json"


def prepare_data(settings: PretrainSettings, directory: Path) -> Manifest:
    """Tokenizer and shards in `directory`, made when they aren't there, and their manifest.

    The tokenizer is that of the model to go on from, or the recipe's, or trained on the corpus. ConfigError when what is there
    was made with other data settings.
    """
    data, tokenizer_file = settings.data, directory / TOKENIZER
    files = corpus_files(data.corpus)
    names = [path.name for path in files]
    if (directory / "shards" / MANIFEST).is_file():
        manifest = read_manifest(directory / "shards")
        wanted = (names, data.validation_fraction, settings.run.seed, file_sha256(tokenizer_file))
        if wanted != (manifest.corpus, manifest.validation_fraction, manifest.seed, manifest.tokenizer_sha256):
            raise ConfigError(
                f"{directory}: was prepared with other data settings; delete it or name another run directory"
            )
        return manifest
    if settings.model.start is not None:
        Tokenizer.from_directory(resolve_model(settings.model.start)).save(directory)
    elif data.tokenizer is not None:
        Tokenizer.from_file(Path(data.tokenizer)).save(directory)
    else:
        train_bpe(read_documents(files, field=data.field), data.vocab_size, tokenizer_file)
    return write_shards(
        read_documents(files, field=data.field),
        tokenizer_file,
        directory / "shards",
        corpus=names,
        validation_fraction=data.validation_fraction,
        seed=settings.run.seed,
        threads=os.cpu_count() or 1,
    )
