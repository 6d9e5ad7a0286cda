"""The plan of a pretraining run (`homegrown pretrain --dry-run`): before there are shards, or a tokenizer even, from the corpus's
size and a sample of it.
"""

import math
import zlib
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import torch

from model.config import ModelConfig
from model.gpt import GPT
from model.hub import resolve_model
from model.tokenizer import Tokenizer
from training.data.archives import plain_suffix
from training.data.batch import TokenBatch
from training.data.prepare import TOKENIZER
from training.data.readers import Corpus, corpus_files, read_documents
from training.data.shards import MANIFEST, read_manifest
from training.fit import Job
from training.objectives import LanguageModelLoss
from training.plan import Plan, plan_job, si
from training.pretrain import initial_model, model_config
from training.pretrain_recipe import PretrainSettings

_SAMPLE_DOCUMENTS, _SAMPLE_CHARACTERS = 300, 2_000_000
# Bytes of English a token, by byte-level BPE of a vocabulary: ours of 4,096 on the bundled model's corpus, GPT-2's on WebText.
_MEASURED = ((4096, 3.41), (50257, 4.4))


def pretrain_plan(settings: PretrainSettings, directory: Path) -> Plan:
    """What `pretrain` with these settings would do in `directory`. Nothing is written there or elsewhere; the updates that are
    timed are on random tokens. Errors as of a run whose corpus, model or tokenizer can't be read."""
    tokenizer = _tokenizer(settings, directory)
    if tokenizer is None:  # the recipe trains one first; its size is known
        torch.manual_seed(settings.run.seed)
        model = GPT(model_config(settings, settings.data.vocab_size, 0))
    else:
        model = initial_model(settings, tokenizer)
    context = model.config.context_length
    n_tokens, data = _data(settings, directory, tokenizer)
    windows = max(1, (n_tokens - 1) // context - 1) if n_tokens else None
    job = Job(
        objective=LanguageModelLoss(model, bf16=settings.run.precision_bf16),
        source=RandomWindows(model.config, windows or 1, masked=settings.data.document_mask),
        optim=settings.optim,
        run=settings.run,
        batch_rows=max(1, round(settings.optim.batch_tokens / context)),
        fingerprint={},
        evaluate=dict,
        tokens_per_sample=context,
    )
    return plan_job(job, directory, name=settings.name, data=data, sized=windows is not None)


class RandomWindows:
    """A source of random tokens, to time updates with: they cost what text costs."""

    def __init__(self, config: ModelConfig, samples_per_epoch: int, *, masked: bool) -> None:
        self.config, self.samples_per_epoch, self.masked = config, samples_per_epoch, masked

    def batch(self, cursor: int, rows: int) -> TokenBatch:
        """[rows, context]; as one document each, with `documents` when they are `masked`."""
        generator = torch.Generator().manual_seed(cursor)
        shape = (rows, self.config.context_length + 1)
        block = torch.randint(0, self.config.vocab_size, shape, generator=generator)
        tokens = block[:, :-1].contiguous()
        return TokenBatch(tokens, block[:, 1:].contiguous(), torch.zeros_like(tokens) if self.masked else None)


def _tokenizer(settings: PretrainSettings, directory: Path) -> Tokenizer | None:
    """The one that the run would use; None when it would train one first."""
    if (directory / "data" / TOKENIZER).is_file():
        return Tokenizer.from_file(directory / "data" / TOKENIZER)
    if settings.model.start is not None:
        return Tokenizer.from_directory(resolve_model(settings.model.start))
    return None if settings.data.tokenizer is None else Tokenizer.from_file(Path(settings.data.tokenizer))


def _data(settings: PretrainSettings, directory: Path, tokenizer: Tokenizer | None) -> tuple[int | None, str]:
    """Tokens of the training split, None when they can't be known, and how that is known."""
    shards = directory / "data" / "shards"
    if (shards / MANIFEST).is_file():
        train = read_manifest(shards).splits["train"]
        return train.tokens, f"{train.tokens:,} tokens of {train.documents:,} documents, prepared in {shards.parent}"
    files = corpus_files(settings.data.corpus)
    paths = [file for file in files if isinstance(file, Path)]
    if len(paths) < len(files):
        return None, "streamed from the Hugging Face Hub; how much isn't known before it is read"
    text = sample_text(files, settings.data.field)
    n_bytes = estimated_bytes(paths, text)
    per_token = bytes_per_token(text, tokenizer, settings.data.vocab_size)
    n_tokens = round(n_bytes / per_token * (1 - settings.data.validation_fraction))
    source = "the tokenizer on a sample" if tokenizer else f"a vocabulary of {settings.data.vocab_size:,} on English"
    return n_tokens, (
        f"about {si(n_tokens, ' tokens')} to train on, estimated: {len(paths)} file{'s' * (len(paths) > 1)}, about "
        f"{si(n_bytes, 'B')} of text at {per_token:.2f} bytes a token ({source}), before any filter"
    )


def sample_text(files: Sequence[Corpus], field: str) -> str:
    """The beginnings of the first files' first documents. DataError where they can't be read."""
    share = max(1, _SAMPLE_DOCUMENTS // min(len(files), 8))
    documents = (text for file in files[:8] for text in islice(read_documents([file], field=field), share))
    return "\n\n".join(text[: _SAMPLE_CHARACTERS // 20] for text in documents)[:_SAMPLE_CHARACTERS]


def estimated_bytes(paths: Sequence[Path], text: str) -> float:
    """Bytes of text in the files, given a sample of it: compressed files, and parquet, hold about as much as zlib makes room
    for."""
    sample = text.encode()
    ratio = len(sample) / len(zlib.compress(sample))
    return sum(path.stat().st_size * (ratio if _is_compressed(path) else 1.0) for path in paths)


def bytes_per_token(text: str, tokenizer: Tokenizer | None, vocab_size: int) -> float:
    """Of a sample by the tokenizer; without one what a vocabulary of that size reaches on English."""
    if tokenizer is not None:
        return len(text.encode()) / max(1, len(tokenizer.encode(text)))
    (small, low), (large, high) = _MEASURED
    return low + (high - low) * math.log(vocab_size / small) / math.log(large / small)


def _is_compressed(path: Path) -> bool:
    return plain_suffix(path) == ".parquet" or path.suffix.lower() != plain_suffix(path)
