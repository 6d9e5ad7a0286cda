"""`homegrown finetune`: a trained model made to classify, to follow instructions, or to prefer some answers."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from cli import needs
from cli.options import MODEL, json_option, say_result
from cli.overrides import apply_changes, named_pairs
from cli.runs import done_fields, plan_fields


@click.group()
def finetune() -> None:
    """Go on training a model for a task: classify, instruct or prefer.

    \b
    homegrown finetune classify reviews.csv --text-field review --label-field stars --out runs/reviews
    homegrown finetune instruct answers.jsonl --model gpt2 --out runs/instruct
    homegrown finetune prefer pairs.jsonl --model runs/instruct/model --out runs/preferred
    """


def _task(command: Callable[..., None]) -> Callable[..., None]:
    """The arguments that every task has. Those that a recipe has too are None when not given, so that the recipe's hold."""
    options = (
        click.argument("data", nargs=-1, type=click.Path()),
        click.option("--out", required=True, type=click.Path(path_type=Path), help="Directory of the run: states, log, model."),
        click.option("--recipe", type=click.Path(path_type=Path), help="A TOML file of settings; the options below win over it."),
        click.option("--model", type=MODEL, help="The model to start from: a bundled or pulled one's name, or a directory."),
        click.option("--method", type=click.Choice(["full", "last_block", "lora"]), help="Which weights are trained."),
        click.option("--epochs", type=float, help="Passes over the training rows."),
        click.option("--minutes", type=float, help="End after this long at the latest."),
        click.option("--lr", type=float, help="Peak learning rate."),
        click.option("--batch-rows", type=int, help="Rows an update."),
        click.option("--seed", type=int, help="Of the split, the order and all that is drawn."),
        click.option("--device", help="cpu, cuda, cuda:1; by default a GPU if there is one."),
        click.option("--validation", multiple=True, type=click.Path(), help="A file of validation rows; may be repeated."),
        click.option("--set", "changes", multiple=True, metavar="SECTION.FIELD=VALUE", help="Any other field of the recipe."),
        click.option("--dry-run", is_flag=True, help="Say what the run would do and cost, and stop."),
        click.option("--resume", is_flag=True, help="Go on from the run's newest saved state."),
        json_option("the result, or the plan"),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def _overrides(given: dict[str, Any], **data: Any) -> dict[str, Any]:
    """The options as a recipe's sections, `data` those of a task's own; what wasn't given is None or missing. --set wins."""
    found: dict[str, Any] = {
        "model": given["model"],
        "method": given["method"],
        "run": {name: given[name] for name in ("epochs", "minutes", "seed", "device")},
        "optim": {name: given[name] for name in ("lr", "batch_rows")},
        "data": {"validation": given["validation"] or None, **data},
    }
    return apply_changes(given["changes"], found)


@finetune.command(short_help="Train a classifier on texts with labels.")
@_task
@click.option("--text-field", help="The column or key of the text.  [default: text]")
@click.option("--label-field", help="The column or key of the label.  [default: label]")
@click.option("--columns", help="Names of the columns, apart by commas, of files without a header line.")
@click.option("--class-file", multiple=True, metavar="LABEL=FILE", help="A file of one text a line, all of one label.")
@click.option(
    "--label-name", multiple=True, metavar="LABEL=NAME", help="Another name for a label of the data, as in 0=negative."
)
@click.option("--test", multiple=True, type=click.Path(), help="A file of rows to measure once, at the end.")
@click.option("--class-weights", type=click.Choice(["none", "balanced"]), help="balanced: every label counts the same.")
@click.option("--max-length", type=int, help="Tokens of a text that training reads.")
def classify(
    data: tuple[str, ...],
    out: Path,
    recipe: Path | None,
    dry_run: bool,
    resume: bool,
    as_json: bool,
    text_field: str | None,
    label_field: str | None,
    columns: str | None,
    class_file: tuple[str, ...],
    label_name: tuple[str, ...],
    test: tuple[str, ...],
    class_weights: str | None,
    max_length: int | None,
    **shared: Any,
) -> None:
    """Train a classifier on DATA: .csv, .tsv, .jsonl, .json or .parquet files of texts with labels.

    \b
    homegrown finetune classify reviews.csv --text-field review --label-field stars --out runs/reviews
    homegrown finetune classify --class-file neg=neg.txt --class-file pos=pos.txt --out runs/tone
    """
    changes = _overrides(
        shared,
        text_field=text_field,
        label_field=label_field,
        columns=[name.strip() for name in columns.split(",")] if columns else None,
        test=test or None,
        class_weights=class_weights,
        max_length=max_length,
    )
    names = dict(named_pairs(label_name, "--label-name", "LABEL=NAME"))
    if names and isinstance(section := changes["data"], dict):  # beside those that --set may have given
        more = section.get("label_names")
        section["label_names"] = names | more if isinstance(more, dict) else more or names
    with needs("train"):
        from training.classify import ClassifierRun
        from training.classify import classify as run
        from training.classify_recipe import ClassifySettings
        from training.data.labelled import read_data

        settings, files = (
            ClassifySettings.from_toml(recipe, changes),
            named_pairs(class_file, "--class-file", "LABEL=FILE"),
        )
        if dry_run:
            _show_plan(
                ClassifierRun(settings, read_data(settings.data, data, files, seed=settings.run.seed)), out, as_json
            )
            return
        model = run(settings, data, out, class_files=files, resume=resume)
    _say_done(model, out, as_json, settings.method, f"measure it: homegrown evaluate {model} --on classify=FILE")


@finetune.command(short_help="Tune a model to follow instructions.")
@_task
def instruct(
    data: tuple[str, ...], out: Path, recipe: Path | None, dry_run: bool, resume: bool, as_json: bool, **shared: Any
) -> None:
    """Tune a model to follow instructions, on DATA: rows of instruction / input / output, prompt / completion, or messages.

    \b
    homegrown finetune instruct answers.jsonl --model gpt2 --out runs/instruct
    homegrown serve --model runs/instruct/model
    """
    with needs("train"):
        from training.instruct import InstructRun
        from training.instruct import instruct as run
        from training.instruct_recipe import InstructSettings

        settings = InstructSettings.from_toml(recipe, _overrides(shared))
        if dry_run:
            _show_plan(InstructRun(settings, data), out, as_json)
            return
        model = run(settings, data, out, resume=resume)
    _say_done(model, out, as_json, settings.method, f"serve it: homegrown serve --model {model}")


@finetune.command(short_help="Tune a model towards the better of two answers.")
@_task
def prefer(
    data: tuple[str, ...], out: Path, recipe: Path | None, dry_run: bool, resume: bool, as_json: bool, **shared: Any
) -> None:
    """Tune a model towards the better of two answers (DPO), on DATA: rows of a prompt, a chosen and a rejected answer.

    \b
    homegrown finetune prefer pairs.jsonl --model runs/instruct/model --out runs/preferred
    """
    with needs("train"):
        from training.instruct_recipe import PreferSettings
        from training.prefer import PreferRun
        from training.prefer import prefer as run

        settings = PreferSettings.from_toml(recipe, _overrides(shared))
        if dry_run:
            _show_plan(PreferRun(settings, data), out, as_json)
            return
        model = run(settings, data, out, resume=resume)
    _say_done(model, out, as_json, settings.method, f"serve it: homegrown serve --model {model}")


def _say_done(model: Path, out: Path, as_json: bool, method: str, then: str) -> None:
    """Where the result is and what comes next; once, of all processes that torchrun started."""
    if os.environ.get("RANK", "0") == "0":
        after = f"merge it: homegrown merge {model} --out DIRECTORY" if method == "lora" else then
        say_result(as_json, lambda: done_fields(model, out), f"{model}\n{after}")


def _show_plan(run: Any, out: Path, as_json: bool) -> None:
    """What the run would do; `run`: a task's parts, with `settings`, `notes`, `job` and both sides' examples."""
    from training.plan import plan_job

    for note in run.notes:
        click.echo(note, err=True)
    data = f"{len(run.train):,} examples to train on, {len(run.validation):,} to validate with"
    plan = plan_job(run.job(), out, name=run.settings.name, data=data)
    say_result(as_json, plan_fields(plan), plan.table())
