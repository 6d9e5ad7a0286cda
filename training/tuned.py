"""What instruction and preference tuning share: the course of a run, and what it leaves: evaluation.json, the report, and the model
directory with its card."""

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tqdm import tqdm

from model.files import write_json
from model.gpt import GPT
from training.card import base_name, card, environment_text, training_text
from training.distributed import World, join
from training.environment import environment
from training.evaluate.results import Figure
from training.finetune import Start, export, method_text
from training.fit import Job, Outcome, check_directory, fit, load_best, set_threads
from training.instruct_recipe import InstructSettings, PreferSettings
from training.questions import Questions
from training.recipe import RunSection
from training.report import write_report
from training.table import Table
from training.templates import Templates

_QUOTED_CHARACTERS = 1500  # of a request or an answer that a card shows
_LIMITS = (
    "It answers in the manner of the rows that it was tuned on. What it says is neither checked nor filtered, and often wrong: "
    "tuning teaches a small model the form of answers more than their content."
)


@dataclass(frozen=True)
class Measured:
    """A model on the validation rows: `figures`, and its `answers` to the run's questions."""

    figures: list[Figure]
    answers: list[str]


class TuningRun(Protocol):
    """A task's parts. `notes`: what became of the rows."""

    model: GPT
    notes: list[str]

    def job(self) -> Job:
        """What the loop needs."""
        ...

    def measure(self, *, base: bool = False) -> Measured:
        """The model as it is, on the validation rows."""
        ...

    def finish(self, directory: Path, before: Measured, outcome: Outcome) -> None:
        """Write the result."""
        ...


Run = TypeVar("Run", bound=TuningRun)


def tune(
    begin: Callable[[], Run],
    options: RunSection,
    directory: Path,
    *,
    resume: bool,
    prepare: Callable[[Run, World], None] | None = None,
) -> Path:
    """Carry out the run that `begin` makes, and return the finished model's directory: measured before and after, with the best
    state's weights. `prepare` is called by every process before the first measure."""
    check_directory(directory, resume=resume)
    with join(options.device) as world:
        set_threads(options)
        run = begin()
        run.model.to(world.device)
        if world.is_main:
            for note in run.notes:
                tqdm.write(f"{note}.", file=sys.stderr)
        if prepare is not None:
            prepare(run, world)
        before = run.measure(base=True) if world.is_main else None
        world.barrier()
        job = run.job()
        outcome = fit(job, directory, resume=resume)
        load_best(job, directory, outcome.counters)
        if before is not None:
            run.finish(directory, before, outcome)
        world.barrier()
        return directory / "model"


@dataclass(frozen=True)
class Tuned:
    """A finished run. `kind`: what was done, in words; `before` and `after`: the base, and the model as it is stored; `notes`: what
    became of the rows; `batch`: what an update was made of; `passes`: over the training rows."""

    kind: str
    settings: InstructSettings | PreferSettings
    started: Start
    templates: Templates
    questions: Questions
    outcome: Outcome
    before: Measured
    after: Measured
    notes: Sequence[str]
    batch: str
    passes: float


def write_result(result: Tuned, directory: Path) -> Path:
    """Write `model/`, `evaluation.json` and the report into a run's directory, and return the first."""
    settings, made_with = result.settings, environment(result.outcome.world.device)
    asked = [
        {"request": q.request.shown, "reference": q.reference, "base": before, "answer": answer}
        for q, before, answer in zip(result.questions.chosen, result.before.answers, result.after.answers, strict=True)
    ]
    figures = {
        side: [_json(figure) for figure in measured.figures]
        for side, measured in (("base", result.before), ("model", result.after))
    }
    # The model first: what comes after it can fail, and be made again.
    text = _card(result, made_with)
    model = export(result.started, settings, directory, card=text, templates=result.templates.files)
    write_json(directory / "evaluation.json", {**figures, "rows": list(result.notes), "answers": asked})
    rows = Table("Rows", ["what became of them"], [[note] for note in result.notes])
    write_report(
        directory,
        settings.name,
        settings=settings.model_dump(mode="json"),
        environment=made_with,
        tables=[measures_table(result), rows],
        summary=_summary(result),
    )
    return model


def _json(figure: Figure) -> dict[str, Any]:
    """A figure as JSON's own types: it has no number for what is infinite, so that becomes null."""
    fields = asdict(figure).items()
    return {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in fields}


def measures_table(result: Tuned) -> Table:
    """Each figure before and after."""
    rows = [
        [after.name, before.shown, after.shown, after.interval]
        for before, after in zip(result.before.figures, result.after.figures, strict=True)
    ]
    conventions = "; ".join(f"{figure.name}: {figure.convention}" for figure in result.after.figures)
    if stops := result.templates.base_stops:
        ends = " or ".join(map(json.dumps, stops))
        conventions += f"; the base has no template, so its answers end at {ends}, as when it is served"
    return Table(
        "Measures on the validation rows",
        ["measure", "base model", "this model", "95 % interval"],
        rows,
        f"{conventions}.",
    )


def _card(result: Tuned, made_with: Mapping[str, str]) -> str:
    settings = result.settings
    measures = measures_table(result)
    sections = {
        measures.title: measures.markdown(),
        "Answers": _answers(result),
        "How to ask it": _usage(result),
        "Data": "\n\n".join([settings.data.about.strip(), "\n".join(f"- {note}" for note in result.notes)]),
        "Training": training_text(
            settings.optim,
            settings.run,
            result.outcome.counters,
            batch=result.batch,
            passes=result.passes,
            method=method_text(result.started, settings),
        ),
        "Made with": environment_text(made_with),
        "What it is not for": _LIMITS,
    }
    return card(
        settings.name,
        _summary(result),
        sections,
        tags=[result.started.model.config.architecture],
        library="peft" if settings.method == "lora" else "transformers",
        base=settings.model,
    )


def _summary(result: Tuned) -> str:
    made = "a low-rank adapter of" if result.settings.method == "lora" else "made from"
    best = result.outcome.counters
    return (
        f"{result.kind} by Homegrown, {made} {base_name(result.settings.model)}. These are the weights of step {best.best_step:,}, "
        f"which had the lowest validation loss of {best.step:,} steps."
    )


def _usage(result: Tuned) -> str:
    if not result.templates.files:
        return "The rows are texts and how they go on, without a template: give it a prompt like theirs, and it goes on from there."
    names = " and ".join(f"`{name}`" for name in result.templates.files)
    example = result.templates.chat.render([{"role": "user", "content": "..."}])
    return f"{names} hold the template; an answer ends with the end-of-text token. A message becomes:\n\n{_quoted(example)}"


def _answers(result: Tuned) -> str:
    shown = result.questions.chosen[: result.settings.answers.shown]
    if not shown:
        return ""
    parts = [f"Greedy answers to validation requests, drawn by seed {result.settings.run.seed}, as they are."]
    for q, before, answer in zip(shown, result.before.answers, result.after.answers, strict=False):
        texts = {"Request": q.request.shown, "Reference": q.reference, "Base model": before, "This model": answer}
        parts += [f"**{name}**\n\n{_quoted(text)}" for name, text in texts.items()]
        parts.append("---")
    return "\n\n".join(parts[:-1])


def _quoted(text: str) -> str:
    """A text as an indented block, so that nothing in it is taken for Markdown."""
    shown = text if len(text) <= _QUOTED_CHARACTERS else text[:_QUOTED_CHARACTERS] + " [...]"
    return "\n".join(f"    {line}" for line in (shown or "(nothing)").splitlines())
