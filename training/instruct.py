"""Instruction tuning: requests and answers -> a model that answers; the loss is on the answers alone.

A run's directory holds what every run holds (training.fit), `evaluation.json`, and at the end `model/`, the directory to serve,
with the templates that it was tuned with.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from model.gpt import GPT
from training.data.batch import epoch_order
from training.data.dialogues import Dialogue, Request, read_dialogue
from training.data.examples import Example, collate, examples_sha256, fit_to_context, make_source
from training.data.tables import Row
from training.errors import DataError
from training.evaluate.forward import length_batches
from training.evaluate.results import Figure
from training.finetune import fingerprint, round_weights, start
from training.fit import Job, Outcome
from training.instruct_recipe import InstructSettings
from training.objectives import LanguageModelLoss
from training.questions import Questions
from training.requests import read_split, templates_for, token_limit
from training.tuned import Measured, Tuned, tune, write_result

_EVAL_TOKENS = 8192  # computed at a time, padding included


def instruct(settings: InstructSettings, data: Sequence[Path | str], directory: Path, *, resume: bool = False) -> Path:
    """Tune settings.model on the rows of `data` in `directory`, and return the finished model's directory.

    Rows: see training.data.dialogues. With `resume` it goes on from the newest saved state; without, a directory that holds
    states already is refused. DataError names file and row; ConfigError the setting.
    """
    return tune(lambda: InstructRun(settings, data), settings.run, directory, resume=resume)


class InstructRun:
    """A run's parts: model, templates, examples, and what is measured of them. `notes`: what became of the rows."""

    def __init__(self, settings: InstructSettings, data: Sequence[Path | str]) -> None:
        self.settings, seed = settings, settings.run.seed
        self.started = start(settings)
        self.model, self.limit = self.started.language_model, token_limit(self.started, settings.data)
        split = read_split(data, settings.data, seed, self._read)
        self.templates = templates_for(self.started, settings.data, split.requests)
        self.notes = [*split.notes]
        if silent := sum(dialogue.left_out for _, dialogue in (*split.train, *split.validation)):
            self.notes.append(
                f"left out of these rows: {silent:,} turns that lack an answer to learn, or a request before it"
            )
        self.train = self._examples([dialogue for _, dialogue in split.train], "training")
        self.validation = self._examples([dialogue for _, dialogue in split.validation], "validation")
        self.packed = settings.data.layout == "packed"
        self.source = make_source(
            self.train, settings.data.layout, self.limit, seed=seed, batch_rows=settings.optim.batch_rows
        )
        self.questions = Questions(
            [(request, dialogue.turns[0].answer) for request, dialogue in split.validation],
            self.templates,
            settings.answers,
            context=self.model.config.context_length,
            seed=seed,
        )
        order = epoch_order(seed, 0, len(self.validation))
        self._watched = [self.validation[int(i)] for i in order[: settings.data.eval_rows]]
        self._fingerprint = fingerprint(
            self.started,
            settings,
            data=examples_sha256(self.train),
            validation=examples_sha256(self.validation),
            layout=settings.data.layout,
            max_tokens=self.limit,
        )

    def job(self) -> Job:
        """What the loop needs."""
        settings, bf16 = self.settings, self.settings.run.precision_bf16
        positions = self.limit if self.packed else sum(e.positions for e in self.train) / len(self.train)
        return Job(
            objective=LanguageModelLoss(self.model, bf16=bf16),
            source=self.source,
            optim=settings.optim,
            run=settings.run,
            batch_rows=settings.optim.batch_rows,
            fingerprint=self._fingerprint,
            evaluate=lambda: {"validation_loss": answer_loss(self.model, self._watched, bf16=bf16)},
            samples=lambda: self.questions.samples(self.model, bf16=bf16),
            tokens_per_sample=max(1, round(positions)),
        )

    def measure(self, *, base: bool = False) -> Measured:
        """The model as it is, on the validation rows, in float32. `base`: it is the one before tuning."""
        loss = answer_loss(self.model, self.validation, bf16=False)
        answers = self.questions.ask(self.model, bf16=False, base=base)
        n_tokens = sum(example.n_targets for example in self.validation)
        convention = f"nats a token, of the {n_tokens:,} tokens of {len(self.validation):,} answers, their ends too"
        return Measured([Figure("answer loss", loss, convention), *self.questions.overlap(answers)], answers)

    def finish(self, directory: Path, before: Measured, outcome: Outcome) -> None:
        """Measure the model as it is, with its weights as they will be stored, and write all results."""
        round_weights(self.started, self.settings)
        rows = self.settings.optim.batch_rows
        what = f"{self.limit} tokens, filled with several examples each" if self.packed else "one example each"
        write_result(
            Tuned(
                kind="Tuned to follow instructions",
                settings=self.settings,
                started=self.started,
                templates=self.templates,
                questions=self.questions,
                outcome=outcome,
                before=before,
                after=self.measure(),
                notes=self.notes,
                batch=f"{rows} rows of {what}",
                passes=outcome.counters.samples / self.source.samples_per_epoch,
            ),
            directory,
        )

    def _read(self, row: Row) -> tuple[Request, Dialogue] | None:
        dialogue = read_dialogue(row, self.settings.data.fields)
        return (dialogue.turns[0].request, dialogue) if dialogue.turns else None

    def _examples(self, dialogues: Sequence[Dialogue], side: str) -> list[Example]:
        """The dialogues' examples that fit; what doesn't is counted in the notes. DataError when none does."""
        made = (example for dialogue in dialogues for example in self.templates.examples(dialogue))
        fitted = fit_to_context(made, self.limit, self.settings.data.too_long)
        self.notes += [f"{side}: {count:,} examples {what}" for what, count in fitted.dropped.items()]
        if not fitted.examples:
            raise DataError(f"no {side} example is left ({'; '.join(self.notes)})")
        return fitted.examples


@torch.no_grad()
def answer_loss(model: GPT, examples: Sequence[Example], *, bf16: bool) -> float:
    """The mean loss (nats) of the tokens that count in `examples`, the ends of answers among them."""
    was_training = model.training
    objective = LanguageModelLoss(model, bf16=bf16).eval()
    device = model.token_embedding.weight.device
    total = weight = 0.0
    for chosen in length_batches([example.positions for example in examples], _EVAL_TOKENS):
        batch = collate([examples[i] for i in chosen]).to(device)
        total += float(objective(**batch.tensors()))
        weight += batch.weight
    model.train(was_training)
    return total / weight
