"""`python -m training.models` as a whole, and what its command line says."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tiny_course import tiny_mixture, write_data, write_recipes

from model.adapters import load_with_adapter
from model.checkpoint import load_model
from model.errors import ConfigError
from model.files import read_json
from training.models import steps
from training.models.__main__ import do, models
from training.models.page import BEGIN, END
from training.models.places import ADAPTERS, BASE, Places
from training.models.steps import course
from training.models.tables import short_table


def asked(*arguments: str | Path) -> Result:
    return CliRunner().invoke(models, [str(argument) for argument in arguments])


def test_a_dry_run_prints_every_command_and_does_nothing(places: Places) -> None:
    done = asked(
        "--data",
        places.data,
        "--work",
        places.work / "new",
        "--stronger",
        places.checkpoints.parent / "stronger",
        "--dry-run",
    )
    assert isinstance(done.exception, ConfigError)
    (places.work / "stronger").mkdir()
    (places.work / "stronger" / "config.json").write_text("{}")
    done = asked(
        "--data", places.data, "--work", places.work / "new", "--stronger", places.work / "stronger", "--dry-run"
    )
    assert done.exit_code == 0, done.output
    said = re.findall(r"^([\w-]+): ", done.output, re.M)
    tuned = ["instruct-data", "sms-data", "sentiment-data", "instruct", "sms-spam", "sentiment"]
    assert said == ["base", *tuned, "base-short", "measure", "publish", "page"]
    commands = re.findall(r"^  \[\w+\] (homegrown .*)$", done.output, re.M)
    assert len(commands) >= 30
    assert len(set(commands)) == len(commands)
    assert sum(" $STRONGER " in command for command in commands) == 8
    assert not any("$UNSEEN" in command for command in commands)
    (places.work / "unseen.txt").write_text("They put to sea at dawn.")
    more = ("--unseen", places.work / "unseen.txt", "--only", "measure")
    done = asked("--data", places.data, "--work", places.work / "new", *more, "--dry-run")
    assert done.output.count("--on 'text=$UNSEEN'") + done.output.count("--on text=$UNSEEN") == 1
    assert str(places.work) not in done.output
    assert not (places.work / "new").exists()


def test_mistakes_on_the_command_line_are_named(places: Places) -> None:
    assert "--only and --from" in asked("--data", places.data, "--only", "base", "--from", "page").output
    for arguments, text in (
        (("--data", places.data / "nowhere"), "name that of the texts with --data"),
        (("--data", places.data, "--only", "bass"), "there is no step 'bass'; the steps are base, instruct-data"),
        (("--data", places.data, "--stronger", places.data), "holds no config.json"),
        (("--data", places.data, "--unseen", places.data / "none.txt"), "--unseen names a text"),
    ):
        done = asked(*arguments, "--work", places.work)
        assert isinstance(done.exception, ConfigError)
        assert text in str(done.exception)


def test_only_and_from_choose_steps(places: Places) -> None:
    names = [step.name for step in course(places)]
    assert [step.name for step in steps.named(places, "instruct", None)] == ["instruct"]
    assert [step.name for step in steps.named(places, None, "measure")] == names[names.index("measure") :]
    assert [step.name for step in steps.named(places, None, None)] == names


def test_two_courses_in_one_directory_wait_for_no_one(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    def inside(*_: object) -> None:
        second = asked("--data", places.data, "--work", places.work, "--only", "page")
        assert "another process makes the models there" in str(second.exception)
        raise ConfigError("as far as here")

    monkeypatch.setattr("training.models.__main__.do", inside)
    first = asked("--data", places.data, "--work", places.work, "--only", "page")
    assert str(first.exception) == "as far as here"


def test_every_task_has_a_name_of_its_own_and_a_record(places: Places) -> None:
    tasks = [task for step in course(replace(places, stronger=places.data)) for task in step.tasks]
    assert len({task.name for task in tasks}) == len(tasks)
    results = [result for task in tasks for result in task.results]
    assert len(set(results)) == len(results)
    assert all(bool(task.command) != bool(task.call) for task in tasks)


@pytest.mark.slow
@pytest.mark.walk
@pytest.mark.timeout(1800)
def test_a_whole_course(tmp_path: Path, tiny_llama_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.models.mixture.write_mixture", tiny_mixture)
    monkeypatch.setattr(steps, "_CUT_SHORT", ("--steps", "4"))
    monkeypatch.setattr(steps, "PROMPTS", ("Once upon a time",))
    write_data(tmp_path / "data")
    write_recipes(tmp_path / "recipes")
    (tmp_path / "README.md").write_text(f"{BEGIN}\n{END}\n")
    places = Places(
        tmp_path / "data", tmp_path / "work", tiny_llama_dir, "a stronger one", recipes=tmp_path / "recipes",
        checkpoints=tmp_path / "checkpoints", docs=tmp_path / "docs", readme=tmp_path / "README.md",
    )  # fmt: skip
    every = course(places)
    for step in every:
        do(step, places)
    target = places.checkpoints / BASE
    load_model(target)
    for name in ADAPTERS:
        load_with_adapter(target / "adapters" / name, str(target))
    page = (places.docs / "models.md").read_text("utf-8")
    assert "a stronger one" in page
    assert "homegrown generate 'Once upon a time'" in page
    for text in (
        page,
        places.readme.read_text("utf-8"),
        *(path.read_text("utf-8") for path in target.rglob("README.md")),
    ):
        assert str(tmp_path) not in text
    first, again, *others = (row[1] for row in short_table(read_json(places.docs / "models" / "figures.json")).rows)
    assert first == again  # the same seed, the same model
    assert {first, *others} > {first}
    # Once more: nothing is trained or measured, and the same is written.
    before = (places.docs / "models" / "figures.json").read_bytes()
    assert {task.state(places) for step in every for task in step.tasks if task.results} == {"done"}
    monkeypatch.setattr("training.models.tasks.subprocess.run", None)
    for step in every:
        do(step, places)
    assert (places.docs / "models" / "figures.json").read_bytes() == before
