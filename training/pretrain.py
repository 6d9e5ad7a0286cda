"""Pretraining: a corpus -> tokenizer -> shards -> a trained model directory with its model card. From scratch, or going on from
any model directory, with its own tokenizer: then the domain's text and general text are measured before and after.

A run's directory holds `data/` (tokenizer.json and shards), what every run holds (training.fit), and at the end the report and
`model/`, the directory to serve.
"""

import hashlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from model.checkpoint import load_model, save_model
from model.config import ModelConfig, preset
from model.errors import ConfigError
from model.files import staged_directory, sweep
from model.generate import generate
from model.gpt import GPT
from model.hub import resolve_model
from model.sampling_params import SamplingParams
from model.tokenizer import Tokenizer
from training.card import PretrainResult, changes_table, data_table, measures_table, model_card
from training.data.loader import Windows
from training.data.prepare import TOKENIZER, prepare_data
from training.data.readers import corpus_files
from training.data.shards import SPLITS, open_split
from training.distributed import World, join
from training.environment import environment
from training.fit import Job, check_directory, fit, set_threads
from training.objectives import LanguageModelLoss
from training.pretrain_measures import HELD_OUT, Measures
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
    # A mistake is to be known before the corpus is read.
    if settings.model.start is None:
        model_config(settings, settings.data.vocab_size, None)
    if settings.data.general:
        corpus_files(settings.data.general)
    with join(settings.run.device) as world:
        set_threads(settings.run)
        if world.is_main:
            _prepare(settings, directory)
        world.barrier()
        run = _Run(settings, directory, world)
        if world.is_main and settings.model.start is not None:
            run.measures.measure_start(run.model)
        world.barrier()
        outcome = fit(run.job(), directory, resume=resume)
        target = directory / "model"
        if world.is_main:
            run.export(target, outcome.counters)
        world.barrier()
        return target


def _prepare(settings: PretrainSettings, directory: Path) -> None:
    """The run's data, every byte of it compared with what was written: damage is to be known before it is learned from."""
    directory.mkdir(parents=True, exist_ok=True)
    for place in (directory, directory / "data"):
        sweep(place)
    prepare_data(settings, directory / "data")
    for split in SPLITS:
        open_split(directory / "data" / "shards", split, verify=True)


class _Run:
    """A run's parts: model, tokenizer, shards, and what is measured of them."""

    def __init__(self, settings: PretrainSettings, directory: Path, world: World) -> None:
        self.settings, self.directory, self.world = settings, directory, world
        self.shards = directory / "data" / "shards"
        self.manifest = prepare_data(settings, directory / "data")
        self.tokenizer = Tokenizer.from_file(directory / "data" / TOKENIZER)
        self.model = initial_model(settings, self.tokenizer)
        self.measures = Measures(
            settings, self.shards, self.manifest, self.tokenizer, world.device, directory / "before.json"
        )

    def job(self) -> Job:
        """What the loop needs."""
        settings, context = self.settings, self.model.config.context_length
        mask = self.measures.eot if settings.data.document_mask else None
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
        after = self.measures.scores(model)
        rows, note = self.measures.ngrams()
        return PretrainResult(
            settings=self.settings,
            config=model.config,
            manifest=self.manifest,
            counters=counters,
            score=after[HELD_OUT][0],
            baselines=rows,
            baselines_note=note,
            base=self.settings.model.start,
            changes=self.measures.changes(after),
            environment=environment(self.world.device),
        )

    def _fingerprint(self) -> dict[str, Any]:
        shape = {key: value for key, value in asdict(self.model.config).items() if key != "labels"}
        optim = self.settings.optim
        return {
            "model": hashlib.sha256(repr(shape).encode()).hexdigest(),
            "start": self.settings.model.start,
            "data": self.manifest.splits["train"].sha256,
            "document_mask": self.settings.data.document_mask,
            "seed": self.settings.run.seed,
            "optimizer": optim.optimizer,
            "batch_tokens": optim.batch_tokens,
        }

    def _evaluate(self) -> dict[str, float]:
        some = open_split(self.shards, "validation")[: self.settings.run.eval_tokens]
        context = self.model.config.context_length
        score = self.measures.score(self.model, some, stride=context, bf16=self.settings.run.precision_bf16)
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
