"""Preference tuning (DPO; Rafailov et al., 2023): a better and a worse answer to each request -> a model that writes more like the
better ones.

A run's directory holds what every run holds (training.fit), `reference.safetensors` (the log-probabilities of all answers under the
model it started from, so that a resumed run goes on with exactly these), `evaluation.json`, the report, and at the end `model/`.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from model.prompts import PromptError
from training.data.batch import epoch_order
from training.data.dialogues import Preference, Request, read_preference
from training.data.pairs import Pair, PairRows, fit_pairs, pairs_sha256
from training.data.tables import Row
from training.distributed import World
from training.errors import DataError, TrainingError
from training.evaluate.results import Figure, mean_figure, share_figure
from training.finetune import fingerprint, round_weights, start
from training.fit import Job, Outcome
from training.instruct_recipe import PreferSettings
from training.objectives import PreferenceLoss
from training.questions import Questions
from training.reference import Reference, margins, pair_logprobs, without_dropout
from training.requests import read_split, templates_for, token_limit
from training.tuned import Measured, Tuned, tune, write_result

REFERENCE = "reference.safetensors"


def prefer(settings: PreferSettings, data: Sequence[Path | str], directory: Path, *, resume: bool = False) -> Path:
    """Tune settings.model on the pairs of `data` in `directory`, and return the finished model's directory.

    Rows: see training.data.dialogues. With `resume` it goes on from the newest saved state; without, a directory that holds
    states already is refused. DataError names file and row; ConfigError the setting. Under torchrun every process calls it.
    """
    return tune(
        lambda: PreferRun(settings, data),
        settings.run,
        directory,
        resume=resume,
        prepare=lambda run, world: run.refer(directory, world),
    )


class PreferRun:
    """A run's parts: model, templates, pairs, and what is measured of them. `notes`: what became of the rows."""

    def __init__(self, settings: PreferSettings, data: Sequence[Path | str]) -> None:
        self.settings = settings
        self.started = start(settings)
        self.model, self.limit = self.started.language_model, token_limit(self.started, settings.data)
        without_dropout(self.model)
        split = read_split(data, settings.data, settings.run.seed, self._read)
        self.templates = templates_for(self.started, settings.data, split.requests)
        self.notes = [*split.notes]
        self.train = self._pairs([row for _, row in split.train], "training")
        self.validation = self._pairs([row for _, row in split.validation], "validation")
        self.questions = Questions(
            [(request, row.chosen) for request, row in split.validation],
            self.templates,
            settings.answers,
            context=self.model.config.context_length,
            seed=settings.run.seed,
        )
        self.reference = Reference.unknown(len(self.train), len(self.validation))  # until `refer`
        self._watched = [int(i) for i in epoch_order(settings.run.seed, 0, len(self.validation))][
            : settings.data.eval_rows
        ]
        self._fingerprint = fingerprint(
            self.started,
            settings,
            data=pairs_sha256(self.train),
            validation=pairs_sha256(self.validation),
            beta=settings.beta,
            max_tokens=self.limit,
        )

    def refer(self, directory: Path, world: World) -> None:
        """Find the reference's log-probabilities: those that the run's directory keeps, or anew, under the model, which must still
        be the one before tuning."""
        path = directory / REFERENCE
        key = hashlib.sha256(json.dumps(self._fingerprint, sort_keys=True).encode()).hexdigest()
        if world.is_main and Reference.load(path, key) is None:
            directory.mkdir(parents=True, exist_ok=True)
            Reference.of(self.model, self.train, self.validation).save(path, key)
        world.barrier()
        reference = Reference.load(path, key)
        if reference is None:
            raise TrainingError(f"{path}: can't be read again; start anew in another directory")
        self.reference = reference

    def job(self) -> Job:
        """What the loop needs."""
        settings, bf16 = self.settings, self.settings.run.precision_bf16
        positions = sum(pair.positions for pair in self.train) / len(self.train)
        return Job(
            objective=PreferenceLoss(self.model, bf16=bf16, beta=settings.beta),
            source=PairRows(
                self.train, self.reference.train, seed=settings.run.seed, batch_rows=settings.optim.batch_rows
            ),
            optim=settings.optim,
            run=settings.run,
            batch_rows=settings.optim.batch_rows,
            fingerprint=self._fingerprint,
            evaluate=self._watch,
            samples=lambda: self.questions.samples(self.model, bf16=bf16),
            tokens_per_sample=max(1, round(positions)),  # one answer: they are rows of their own
            rows_per_sample=2,
        )

    def measure(self, *, base: bool = False) -> Measured:
        """The model as it is, on the validation pairs, in float32. `base`: it is the one before tuning."""
        logprobs = pair_logprobs(self.model, self.validation)
        answers = self.questions.ask(self.model, bf16=False, base=base)
        figures = self._figures(logprobs, self.settings.beta * margins(logprobs, self.reference.validation))
        return Measured([*figures, *self.questions.overlap(answers)], answers)

    def _figures(self, logprobs: np.ndarray, rewards: np.ndarray) -> list[Figure]:
        """logprobs [n, 2] of the validation answers; rewards [n]: beta times the margins."""
        n, beta = len(self.validation), self.settings.beta
        n_tokens = sum(pair.chosen.n_targets for pair in self.validation)
        shorter = sum(pair.chosen.n_targets < pair.rejected.n_targets for pair in self.validation) / n
        return [
            mean_figure("DPO loss", np.logaddexp(0.0, -rewards), f"nats a pair, over {n:,} pairs"),
            share_figure(
                "preferred more than before",
                rewards > 0,
                f"pairs whose better answer gained on the worse one (reward accuracy; none has before tuning); always to prefer "
                f"the shorter answer would be right in {shorter:.2%}",
            ),
            mean_figure("margin", rewards, f"how much it gained, in nats times beta ({beta:g})"),
            share_figure(
                "better answer likelier",
                logprobs[:, 0] > logprobs[:, 1],
                "pairs whose better answer has the higher probability, as a whole and whatever the lengths",
            ),
            Figure(
                "better answers' loss", float(-logprobs[:, 0].sum() / n_tokens), f"nats a token, {n_tokens:,} tokens"
            ),
        ]

    def finish(self, directory: Path, before: Measured, outcome: Outcome) -> None:
        """Measure the model as it is, with its weights as they will be stored, and write all results."""
        round_weights(self.started, self.settings)
        write_result(
            Tuned(
                kind="Tuned to prefer the better of two answers (DPO)",
                settings=self.settings,
                started=self.started,
                templates=self.templates,
                questions=self.questions,
                outcome=outcome,
                before=before,
                after=self.measure(),
                notes=self.notes,
                batch=f"{self.settings.optim.batch_rows} pairs",
                passes=outcome.counters.samples / len(self.train),
            ),
            directory,
        )

    def _watch(self) -> dict[str, float]:
        """Loss (nats a pair), accuracy and margin on the watched validation pairs, in float32."""
        pairs = [self.validation[i] for i in self._watched]
        after = pair_logprobs(self.model, pairs)
        rewards = self.settings.beta * margins(after, self.reference.validation[self._watched])
        return {
            "validation_loss": float(np.logaddexp(0.0, -rewards).mean()),
            "validation_accuracy": float((rewards > 0).mean()),
            "validation_margin": float(rewards.mean()),
        }

    def _read(self, row: Row) -> tuple[Request, Preference] | None:
        preference = read_preference(row, self.settings.data.fields)
        answered = preference.chosen.strip() and preference.rejected.strip()
        return (preference.request, preference) if answered else None

    def _pairs(self, rows: Sequence[Preference], side: str) -> list[Pair]:
        """The rows' pairs that can be learned from; what became of the others is counted in the notes."""
        fitted = fit_pairs((self._pair(row) for row in rows), self.limit, self.settings.data.too_long)
        self.notes += [f"{side}: {count:,} pairs {what}" for what, count in fitted.dropped.items()]
        if not fitted.pairs:
            raise DataError(f"no {side} pair is left ({'; '.join(self.notes)})")
        return fitted.pairs

    def _pair(self, row: Preference) -> Pair:
        try:
            return Pair(*(self.templates.example(row.request, answer) for answer in (row.chosen, row.rejected)))
        except PromptError as error:
            raise DataError(f"{row.where}: {error}") from None
