"""`python -m training.models`: make the bundled models, or go on with making them."""

import fcntl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from model.errors import ConfigError, HomegrownError
from training.models.page import rebuild
from training.models.places import ROOT, STRONGER_NAME, Places, shown
from training.models.planned import check_planned
from training.models.steps import Step, named


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=Path("../shared/data"),
    show_default=True,
    help="The texts: pretrain/, instruct/, classify/, eval/.",
)
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    default=Path("runs/models"),
    show_default=True,
    help="Where the runs and their measures lie.",
)
@click.option(
    "--stronger", type=click.Path(path_type=Path), help="A directory of other open weights, to be measured beside ours."
)
@click.option("--stronger-name", default=STRONGER_NAME, show_default=True, help="What tables call them.")
@click.option(
    "--unseen", type=click.Path(path_type=Path), help="A text of authors of whom nothing was learned, to measure on."
)
@click.option("--only", metavar="STEP", help="Do this step alone.")
@click.option("--from", "start", metavar="STEP", help="Begin with this step.")
@click.option("--dry-run", is_flag=True, help="Print every step's state and commands, and stop.")
@click.option(
    "--rebuild-page",
    is_flag=True,
    help="Write the page again from docs/models/figures.json, without the runs, and stop.",
)
def models(only: str | None, start: str | None, dry_run: bool, rebuild_page: bool, **given: Any) -> None:
    """Make the bundled models: pretrain, tune, measure, put them into checkpoints/ and write docs/models.md.

    What is done already is skipped; a run that was stopped goes on from its newest saved state.

    \b
    python -m training.models --dry-run
    python -m training.models --stronger models/smollm2
    python -m training.models --only instruct
    """
    if only is not None and start is not None:
        raise click.UsageError("--only and --from can't be combined")
    places = Places(**given)
    if rebuild_page:
        click.echo(rebuild(places))
        return
    if not (ROOT / "pyproject.toml").is_file():
        raise ConfigError(f"{ROOT}: no checkout of the repository, which the models are made in and for; clone it")
    if not places.data.is_dir():
        raise ConfigError(f"{places.data}: no such directory; name that of the texts with --data")
    if places.unseen is not None and not places.unseen.is_file():
        raise ConfigError(f"{places.unseen}: no such file; --unseen names a text")
    if places.stronger is not None and not (places.stronger / "config.json").is_file():
        raise ConfigError(f"{places.stronger}: holds no config.json; --stronger names a model directory")
    steps = named(places, only, start)
    if dry_run:
        for step in steps:
            click.echo(f"{step.name}: {step.about}")
            click.echo("\n".join(f"  {line}" for line in _lines(step, places)))
        return
    check_planned(places)
    with _alone(places.work):
        for step in steps:
            do(step, places)


def do(step: Step, places: Places) -> None:
    """What of the step isn't done. HomegrownError when a command of it fails."""
    click.echo(f"{step.name}: {step.about}", err=True)
    for task in step.tasks:
        state = task.state(places)
        if state == "done":
            click.echo(f"  {task.name}: done", err=True)
            continue
        if state == "found":
            click.echo(f"  {task.name}: there already, not made by this course; taken as it is", err=True)
        elif task.line:
            click.echo(f"  {task.line}", err=True)
        task.do(places)


def _lines(step: Step, places: Places) -> Iterator[str]:
    """What --dry-run says of a step: each task's state and command."""
    for task in step.tasks:
        try:
            state = task.state(places)
        except ConfigError:  # what it follows from isn't there yet, or its record is damaged: said when it is its turn
            state = "stale"
        does = task.line or (f"writes {', '.join(map(shown, task.results))}" if task.results else "is done each time")
        yield f"[{state}] {does}"


@contextmanager
def _alone(work: Path) -> Iterator[None]:
    """While this process alone makes the models in `work`. ConfigError when another does."""
    work.mkdir(parents=True, exist_ok=True)
    with (work / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"{work}: another process makes the models there; wait for it, or name another --work"
            ) from None
        yield


def main() -> None:
    """A mistake that a person can mend is one line, and exit code 1."""
    try:
        models()
    except (HomegrownError, OSError) as error:
        click.echo(f"models: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
