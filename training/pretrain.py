"""Pretraining: a corpus -> tokenizer -> shards -> a trained model directory with its model card.

A run's directory holds `data/` (tokenizer.json and shards), `states/` (to resume from), `log.jsonl`, and at the end
`model/`, the directory to serve.
"""

import hashlib
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from model.checkpoint import save_model
from model.config import ModelConfig, preset
from model.errors import ConfigError
from model.files import file_sha256, staged_directory
from model.gpt import GPT
from model.tokenizer import Tokenizer
from training import state as states
from training.data.bpe import train_bpe
from training.data.loader import Batch, Windows
from training.data.readers import corpus_files, read_documents
from training.data.shards import MANIFEST, Manifest, open_split, read_manifest, write_shards
from training.evaluate.ngram import baselines
from training.evaluate.perplexity import score_stream
from training.loop import RunSettings, StepSettings, language_model_loss, run
from training.optim import Schedule, make_optimizers
from training.recipe import PretrainSettings
from training.report import PretrainResult, model_card

TOKENIZER = "tokenizer.json"


def pretrain(settings: PretrainSettings, directory: Path, *, resume: bool = False) -> Path:
    """Run a recipe in `directory` and return the finished model's directory.

    With `resume` it goes on from the newest saved state; without, a directory that holds states already is refused.
    """
    saved = states.saved_states(directory / "states")
    if saved and not resume:
        raise ConfigError(f"{directory}: holds a run already; add --resume to go on with it, or name another directory")
    directory.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(settings.run.threads or os.cpu_count() or 1)
    manifest = prepare_data(settings, directory / "data")
    state, fingerprint = _start(settings, manifest, Tokenizer.from_file(directory / "data" / TOKENIZER))
    if saved:
        states.restore(state, saved[-1], fingerprint=fingerprint)
    _train(settings, directory, state, fingerprint)
    return export(settings, directory, state, manifest)


def _train(settings: PretrainSettings, directory: Path, state: states.TrainState, fingerprint: dict[str, Any]) -> None:
    model, options = state.model, settings.run
    assert isinstance(model, GPT)
    context, shards = model.config.context_length, directory / "data" / "shards"
    rows = max(1, round(settings.optim.batch_tokens / context))
    some = open_split(shards, "validation")[: options.eval_tokens]
    run(
        state,
        _OnDevice(Windows(open_split(shards, "train"), context, options.seed), torch.device(options.device)),
        language_model_loss(model, bf16=options.bf16, compiled=options.compile),
        schedule(settings),
        StepSettings(min(options.micro_batch, rows), settings.optim.clip),
        RunSettings(rows, options.log_every, options.eval_every, options.save_every),
        log=directory / "log.jsonl",
        evaluate=lambda: score_stream(model, some, stride=context, bf16=options.bf16).loss,
        save=lambda: states.save(state, directory / "states", fingerprint=fingerprint, keep=options.keep),
    )


def prepare_data(settings: PretrainSettings, directory: Path) -> Manifest:
    """Tokenizer and shards in `directory`, made when they aren't there, and their manifest.

    ConfigError when what is there was made with other data settings.
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
    if data.tokenizer is None:
        train_bpe(read_documents(files), data.vocab_size, tokenizer_file)
    else:
        Tokenizer.from_file(Path(data.tokenizer)).save(directory)
    return write_shards(
        read_documents(files),
        tokenizer_file,
        directory / "shards",
        corpus=names,
        validation_fraction=data.validation_fraction,
        seed=settings.run.seed,
        threads=os.cpu_count() or 1,
    )


def schedule(settings: PretrainSettings) -> Schedule:
    """The recipe's learning-rate schedule."""
    seconds = settings.run.minutes * 60 if settings.run.minutes else None
    optim = settings.optim
    return Schedule(optim.warmup_steps, optim.cooldown, optim.floor, settings.run.steps, seconds)


def model_config(settings: PretrainSettings, tokenizer: Tokenizer) -> ModelConfig:
    """The recipe's model, with the tokenizer's vocabulary. ConfigError names a field that there isn't."""
    base = preset(settings.model.preset)
    unknown = set(settings.model.changes) - set(asdict(base))
    if unknown:
        raise ConfigError(f"model.changes names {', '.join(sorted(unknown))}, which no model configuration has")
    end = tokenizer.eos_token_id
    ends = () if end is None else (end,)
    # Products are fastest over multiples of 64; the padding's logits are learned to be small.
    vocab_size = -(-tokenizer.vocab_size // 64) * 64
    ids = {"vocab_size": vocab_size, "bos_token_id": end, "eos_token_ids": ends, "pad_token_id": None}
    return replace(base, **settings.model.changes, **ids)  # type: ignore[arg-type]


def export(settings: PretrainSettings, directory: Path, state: states.TrainState, manifest: Manifest) -> Path:
    """Write the model directory: weights in bfloat16, tokenizer, model card with the final measures and the
    baselines."""
    model, shards = state.model, directory / "data" / "shards"
    assert isinstance(model, GPT)
    validation = open_split(shards, "validation")
    # What is measured is what is shipped: the weights rounded to bfloat16.
    rounded = GPT(model.config).eval()
    rounded.load_state_dict({name: tensor.to(torch.bfloat16) for name, tensor in model.state_dict().items()})
    n_bytes = manifest.splits["validation"].bytes
    result = PretrainResult(
        settings=settings,
        config=model.config,
        manifest=manifest,
        counters=state.counters,
        score=score_stream(rounded, validation),
        baselines=baselines(open_split(shards, "train"), validation, manifest.vocab_size, n_bytes),
    )
    target = directory / "model"
    with staged_directory(target, overwrite=True) as stage:
        save_model(rounded, stage, dtype=torch.bfloat16)
        Tokenizer.from_file(directory / "data" / TOKENIZER).save(stage)
        (stage / "README.md").write_text(model_card(result), "utf-8")
    return target


class _OnDevice:
    """Batches of `windows`, brought to the device."""

    def __init__(self, windows: Windows, device: torch.device) -> None:
        self.windows, self.device = windows, device

    def batch(self, cursor: int, rows: int) -> Batch:
        batch = self.windows.batch(cursor, rows)
        return Batch(batch.tokens.to(self.device), batch.targets.to(self.device))


def _start(
    settings: PretrainSettings, manifest: Manifest, tokenizer: Tokenizer
) -> tuple[states.TrainState, dict[str, Any]]:
    """A fresh state, its weights drawn from the seed, and what a resumption must share with it."""
    torch.manual_seed(settings.run.seed)
    config = model_config(settings, tokenizer)
    model = GPT(config).to(settings.run.device)
    optim = settings.optim
    optimizers = make_optimizers(
        model,
        optim.optimizer,
        lr=optim.lr,
        matrix_lr=optim.matrix_lr,
        weight_decay=optim.weight_decay,
        beta2=optim.beta2,
    )
    shape = {key: value for key, value in asdict(config).items() if key != "labels"}
    fingerprint = {
        "model": hashlib.sha256(repr(shape).encode()).hexdigest(),
        "data": manifest.splits["train"].sha256,
        "seed": settings.run.seed,
        "optimizer": optim.optimizer,
        "batch_tokens": optim.batch_tokens,
    }
    return states.TrainState(model, optimizers), fingerprint
