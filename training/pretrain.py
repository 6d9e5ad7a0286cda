"""Pretraining: a corpus -> tokenizer -> shards -> a trained model directory with its model card. From scratch, or going on from
any model directory, with its own tokenizer: then the domain's text and general text are measured before and after.

A run's directory holds `data/` (tokenizer.json and shards), what every run holds (training.fit), and at the end the report and
`model/`, the directory to serve.
"""

import hashlib
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.checkpoint import load_model, save_model
from model.config import ModelConfig, preset
from model.errors import ConfigError
from model.files import read_json, staged_directory, write_json
from model.generate import generate
from model.gpt import GPT
from model.hub import resolve_model
from model.sampling_params import SamplingParams
from model.tokenizer import Tokenizer
from training.card import Change, PretrainResult, changes_table, data_table, measures_table, model_card
from training.data.account import utf8_length
from training.data.loader import Windows
from training.data.prepare import TOKENIZER, prepare_data
from training.data.readers import corpus_files, read_documents
from training.data.shards import SPLITS, open_split
from training.distributed import join
from training.environment import environment
from training.evaluate.corpus import tokenize_stream
from training.evaluate.ngram import baselines
from training.evaluate.perplexity import Score, score_documents, score_windows
from training.evaluate.scoring import Scorer
from training.fit import Job, check_directory, fit, set_threads
from training.objectives import LanguageModelLoss
from training.pretrain_recipe import PretrainSettings
from training.report import write_report
from training.state import Counters

_SAMPLE_TOKENS = 120


def pretrain(settings: PretrainSettings, directory: Path, *, resume: bool = False) -> Path:
    """Run a recipe in `directory` and return the finished model's directory.

    With `resume` it goes on from the newest saved state; without, a directory that holds states already is refused. Under
    torchrun every process calls it.
    """
    check_directory(directory, resume=resume)
    if settings.model.start is None:  # a mistake in it is to be known before the corpus is read
        model_config(settings, settings.data.vocab_size, None)
    with join(settings.run.device) as world:
        set_threads(settings.run)
        if world.is_main:
            directory.mkdir(parents=True, exist_ok=True)
            prepare_data(settings, directory / "data")
        world.barrier()
        run = _Run(settings, directory)
        if world.is_main:
            run.measure_start()
        world.barrier()
        outcome = fit(run.job(), directory, resume=resume)
        target = directory / "model"
        if world.is_main:
            run.export(target, outcome.counters)
        world.barrier()
        return target


class _Run:
    """A run's parts: model, tokenizer, shards, and what is measured of them."""

    def __init__(self, settings: PretrainSettings, directory: Path) -> None:
        self.settings, self.directory = settings, directory
        self.shards = directory / "data" / "shards"
        self.manifest = prepare_data(settings, directory / "data")
        self.tokenizer = Tokenizer.from_file(directory / "data" / TOKENIZER)
        self.model = initial_model(settings, self.tokenizer)
        self.eot = int(open_split(self.shards, "train")[:1][0])  # the first document stands behind it, as all do

    def job(self) -> Job:
        """What the loop needs."""
        settings, context = self.settings, self.model.config.context_length
        mask = self.eot if settings.data.document_mask else None
        return Job(
            objective=LanguageModelLoss(self.model, bf16=settings.run.precision_bf16),
            source=Windows(open_split(self.shards, "train"), context, settings.run.seed, eot=mask),
            optim=settings.optim,
            run=settings.run,
            batch_rows=max(1, round(settings.optim.batch_tokens / context)),
            fingerprint=self._fingerprint(),
            evaluate=self._evaluate,
            samples=self._samples,
            tokens_per_sample=context,
        )

    def measure_start(self) -> None:
        """Before the first update of a run that goes on from a model: how well it knows the domain's text, and general text."""
        if self.settings.model.start is not None and not self._before.is_file():
            scores = self._measure(self.model)
            write_json(self._before, {name: asdict(score) for name, (score, _) in scores.items()})

    def export(self, target: Path, counters: Counters) -> None:
        """Write the model directory (weights in bfloat16, tokenizer, card with the final measures and the baselines) and the
        report."""
        # What is measured is what is shipped: the weights rounded to bfloat16.
        rounded = GPT(self.model.config).eval().requires_grad_(False)
        rounded.load_state_dict({name: tensor.to(torch.bfloat16) for name, tensor in self.model.state_dict().items()})
        result = self._result(rounded, counters)
        with staged_directory(target, overwrite=True) as stage:
            save_model(rounded, stage, dtype=torch.bfloat16)
            self.tokenizer.save(stage)
            (stage / "README.md").write_text(model_card(result), "utf-8")
        tables = [measures_table(result), *([changes_table(result.changes)] if result.changes else [])]
        write_report(
            self.directory,
            self.settings.name,
            settings=self.settings.model_dump(),
            environment=result.environment,
            tables=[*tables, data_table(self.manifest)],
            references={f"{row['order']:.0f}-gram": row["loss"] for row in result.baselines},
        )

    def _result(self, model: GPT, counters: Counters) -> PretrainResult:
        after = self._measure(model)
        score, n_bytes = after["the new text, held out"]
        changes = []
        if self.settings.model.start is not None:
            before = {name: Score(**values) for name, values in read_json(self._before).items()}
            changes = [Change(name, before[name], *measure) for name, measure in after.items()]
        train, validation = (open_split(self.shards, split) for split in SPLITS)
        return PretrainResult(
            settings=self.settings,
            config=model.config,
            manifest=self.manifest,
            counters=counters,
            score=score,
            baselines=baselines(np.asarray(train), np.asarray(validation), self.manifest.vocab_size, n_bytes),
            base=self.settings.model.start,
            changes=changes,
            environment=environment(next(self.model.parameters()).device),
        )

    def _measure(self, model: GPT) -> dict[str, tuple[Score, int]]:
        """The scores of the held-out text and of the recipe's general text, each with the text's bytes."""
        found = {
            "the new text, held out": (
                self._score(model, open_split(self.shards, "validation")),
                self.manifest.splits["validation"].bytes,
            )
        }
        for path in self.settings.data.general:
            documents = list(read_documents(corpus_files([path])))
            tokens = tokenize_stream(documents, self.tokenizer, threads=os.cpu_count() or 1)
            found[Path(path).name] = self._score(model, tokens), sum(utf8_length(text) for text in documents)
        return found

    def _score(self, model: GPT, tokens: Any, *, stride: int | None = None, bf16: bool = False) -> Score:
        """As the model was trained: documents alone, or as one stream."""
        scorer = Scorer(model, bf16=bf16, progress=stride is None)
        if self.settings.data.document_mask:
            return score_documents(scorer, tokens, self.eot, stride=stride)
        return score_windows(scorer, tokens, stride=stride)

    @property
    def _before(self) -> Path:
        return self.directory / "before.json"

    def _fingerprint(self) -> dict[str, Any]:
        shape = {key: value for key, value in asdict(self.model.config).items() if key != "labels"}
        optim = self.settings.optim
        return {
            "model": hashlib.sha256(repr(shape).encode()).hexdigest(),
            "start": self.settings.model.start,
            "data": self.manifest.splits["train"].sha256,
            "document_mask": self.settings.data.document_mask,
            "general": [Path(path).name for path in self.settings.data.general],
            "seed": self.settings.run.seed,
            "optimizer": optim.optimizer,
            "batch_tokens": optim.batch_tokens,
        }

    def _evaluate(self) -> dict[str, float]:
        some = open_split(self.shards, "validation")[: self.settings.run.eval_tokens]
        context = self.model.config.context_length
        score = self._score(self.model, some, stride=context, bf16=self.settings.run.precision_bf16)
        return {"validation_loss": score.loss}

    def _samples(self) -> list[str]:
        """A continuation of each of the recipe's prompts, by the run's seed."""
        params = SamplingParams(temperature=0.8, top_p=0.95, seed=self.settings.run.seed)
        texts = []
        self.model.eval()
        for prompt in self.settings.run.prompts:
            ids = self.tokenizer.encode_prompt(prompt) or [self.tokenizer.eos_token_id or 0]
            room = min(_SAMPLE_TOKENS, self.model.config.context_length - len(ids))
            texts.append(prompt + self.tokenizer.decode(list(generate(self.model, ids, params, room))))
        return texts


def model_config(settings: PretrainSettings, vocab_size: int, end: int | None) -> ModelConfig:
    """The recipe's model for a tokenizer of `vocab_size` tokens, of which `end` ends a text. ConfigError names a preset or a
    field that there isn't."""
    base = preset(settings.model.preset)
    unknown = set(settings.model.changes) - set(asdict(base))
    if unknown:
        raise ConfigError(f"model.changes names {', '.join(sorted(unknown))}, which no model configuration has")
    ends = () if end is None else (end,)
    # Products are fastest over multiples of 64; the padding's logits are learned to be small.
    padded = -(-vocab_size // 64) * 64
    ids = {"vocab_size": padded, "bos_token_id": end, "eos_token_ids": ends, "pad_token_id": None}
    return replace(base, **settings.model.changes, **ids)  # type: ignore[arg-type]


def initial_model(settings: PretrainSettings, tokenizer: Tokenizer) -> GPT:
    """The model to train, on the CPU in float32: drawn from the seed, or the one to go on from."""
    if settings.model.start is None:
        torch.manual_seed(settings.run.seed)
        return GPT(model_config(settings, tokenizer.vocab_size, tokenizer.eos_token_id))
    directory = resolve_model(settings.model.start)
    model = load_model(directory)
    if not isinstance(model, GPT):
        raise ConfigError(f"{directory}: is a classifier; pretraining goes on from a language model")
    return model.requires_grad_(True)
