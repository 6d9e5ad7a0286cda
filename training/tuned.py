"""What instruction and preference tuning leave: evaluation.json, the report, and the model directory with its card."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from model.files import write_json
from training.card import base_name, card, environment_text, training_text
from training.costs import count_parameters
from training.environment import environment
from training.evaluate.results import Figure
from training.finetune import Start, export
from training.fit import Outcome
from training.instruct_recipe import InstructSettings, PreferSettings
from training.questions import Questions
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
    """Write `evaluation.json`, the report and `model/` into a run's directory, and return the last."""
    settings, made_with = result.settings, environment(result.outcome.world.device)
    asked = [
        {"request": q.request.shown, "reference": q.reference, "base": before, "answer": answer}
        for q, before, answer in zip(result.questions.chosen, result.before.answers, result.after.answers, strict=True)
    ]
    figures = {
        side: [asdict(figure) for figure in measured.figures]
        for side, measured in (("base", result.before), ("model", result.after))
    }
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
    text = _card(result, made_with)
    return export(result.started, settings, directory, card=text, templates=result.templates.files)


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
            method=_method(result),
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
        base=None if Path(settings.model).is_dir() else settings.model,
    )


def _summary(result: Tuned) -> str:
    made = "a low-rank adapter of" if result.settings.method == "lora" else "made from"
    best = result.outcome.counters
    return (
        f"{result.kind} by Homegrown, {made} {_base(result)}. These are the weights of step {best.best_step:,}, "
        f"which had the lowest validation loss of {best.step:,} steps."
    )


def _base(result: Tuned) -> str:
    """The base's name; every run calls its result "model", so then the run's."""
    path = Path(result.settings.model)
    return base_name(str(path.parent if path.is_dir() and path.name == "model" else path))


def _method(result: Tuned) -> str:
    settings, count = result.settings, count_parameters(result.started.model)
    lora = settings.lora
    names = lora.targets if lora.targets == "all" else ", ".join(lora.targets)
    what = {
        "full": "All weights were trained",
        "last_block": "The last block, the final norm and the head, where it has weights of its own, were trained",
        "lora": f"Low-rank pairs were trained (rank {lora.rank}, alpha {lora.alpha:g}, dropout {lora.dropout:g}, targets {names})",
    }
    return f"{what[settings.method]}: {count.trainable:,} of {count.total:,} parameters"


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
