"""A task is done once, goes on where it was stopped, and is done again when what it follows from is another."""

import json
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model.errors import CheckpointError, ConfigError, HomegrownError
from training.models.places import ROOT, Places, command_line, held_out_arguments
from training.models.tasks import Task

RUN = Task(
    "tune",
    ("$WORK/tune/model/README.md",),
    ("$DATA/rows.txt", "$RECIPES/a.toml"),
    ("finetune", "$DATA/rows.txt", "--out", "$WORK/tune"),
    run="$WORK/tune",
)
MEASURE = Task(
    "measure",
    ("$WORK/measures/m.json",),
    ("$WORK/tune/model/README.md",),
    ("evaluate", "--json", "$WORK/measures/m.json"),
)


class Machine:
    """In the place of subprocess: writes what a command would, and remembers the commands."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.commands: list[list[str]] = []
        self.files: dict[Path, str] = {}
        self.code = 0
        monkeypatch.setattr("training.models.tasks.subprocess.run", self)

    def __call__(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        assert command[:3] == [sys.executable, "-m", "cli"]
        assert options["cwd"] == ROOT
        self.commands.append(command[3:])
        for path, text in self.files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return subprocess.CompletedProcess(command, self.code, b"A story.\n" if options["stdout"] else None)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


@pytest.fixture
def here(tmp_path: Path) -> Places:
    for name in ("data", "recipes"):
        (tmp_path / name).mkdir()
    (tmp_path / "data" / "rows.txt").write_text("rows")
    (tmp_path / "recipes" / "a.toml").write_text("a = 1")
    return replace(Places(tmp_path / "data", tmp_path / "work"), recipes=tmp_path / "recipes")


def test_a_run_is_done_once_and_goes_on_from_its_states(here: Places, machine: Machine) -> None:
    result = here.work / "tune" / "model" / "README.md"
    machine.code = 3
    machine.files = {here.work / "tune" / "states" / "step-00000002" / "manifest.json": "{}"}
    with pytest.raises(
        HomegrownError, match=r"tune: ended with 3: homegrown finetune \$DATA/rows.txt --out runs/models/tune"
    ):
        RUN.do(here)
    assert RUN.state(here) == "open"
    machine.code, machine.files = 0, {result: "a model"}
    RUN.do(here)
    assert [command[-1] for command in machine.commands] == [str(here.work / "tune"), "--resume"]
    assert machine.commands[0][1] == str(here.data / "rows.txt")
    assert RUN.state(here) == "done"
    RUN.do(here)
    assert len(machine.commands) == 2


def test_a_run_of_something_else_is_never_thrown_away(here: Places, machine: Machine) -> None:
    machine.files = {here.work / "tune" / "model" / "README.md": "a model"}
    RUN.do(here)
    recipe = here.recipes / "a.toml"
    recipe.write_text("# what it reached\na = 1")
    assert RUN.state(here) == "done"
    recipe.write_text("a = 2")
    assert RUN.state(here) == "stale"
    with pytest.raises(
        ConfigError, match=r"another training/recipes/a.toml; move it away .*records/tune.json to take it as it is"
    ):
        RUN.do(here)
    (here.work / "records" / "tune.json").unlink()
    assert RUN.state(here) == "found"
    RUN.do(here)
    assert RUN.state(here) == "done"
    assert len(machine.commands) == 1


def test_a_measure_follows_its_model(here: Places, machine: Machine) -> None:
    model, result = here.work / "tune" / "model" / "README.md", here.work / "measures" / "m.json"
    with pytest.raises(ConfigError, match=r"measure: needs .*README.md, which isn't there; an earlier step makes it"):
        MEASURE.do(here)
    machine.files = {model: "a model"}
    RUN.do(here)
    machine.files = {result: "1"}
    MEASURE.do(here)
    assert MEASURE.state(here) == "done"
    model.write_text("another model")
    assert MEASURE.state(here) == "stale"
    machine.code = 1
    machine.files = {}
    with pytest.raises(HomegrownError):
        MEASURE.do(here)
    assert not result.exists()  # the figures of the old model are not left to be taken for the new one's
    assert MEASURE.state(here) == "open"
    changed = replace(MEASURE, command=(*MEASURE.command, "--limit", "5"))
    machine.code, machine.files = 0, {result: "2"}
    MEASURE.do(here)
    assert changed.changed(here) == ["command"]
    (here.work / "records" / "measure.json").write_text("{")
    with pytest.raises(ConfigError, match=r"measure.json: .*delete it"):
        MEASURE.state(here)


def test_a_task_that_leaves_nothing_is_not_done(here: Places, machine: Machine) -> None:
    with pytest.raises(CheckpointError, match=r"tune: ended without leaving .*README.md"):
        RUN.do(here)
    assert RUN.state(here) == "open"


def test_what_a_command_prints_is_kept_with_it(here: Places, machine: Machine) -> None:
    told = Task("tale", ("$WORK/tale.json",), (), ("generate", "Once upon"), printed="$WORK/tale.json")
    told.do(here)
    content = json.loads((here.work / "tale.json").read_text())
    assert content == {"command": "homegrown generate 'Once upon'", "text": "A story."}


def test_what_is_done_here_is_done_each_time_or_until_its_sources_change(here: Places) -> None:
    done: list[str] = []
    always = Task("page", call=lambda _: done.append("page"))
    once = Task(
        "rows",
        ("$WORK/rows.txt",),
        ("$DATA",),
        call=lambda p: (done.append("rows"), (p.work / "rows.txt").write_text("x")),
    )
    here.work.mkdir()
    for _ in range(2):
        always.do(here)
        once.do(here)
    assert done == ["page", "rows", "page"]
    (here.data / "more.txt").write_text("more")
    once.do(here)
    assert done[-1] == "rows"


def test_commands_are_shown_without_paths_of_the_machine_and_can_be_typed() -> None:
    given = (
        "evaluate",
        "$WORK/a/model",
        "--prompt",
        r"Text: {text}\nLabel: {label}",
        "--set",
        'held_out=["$DATA/a b.txt"]',
    )
    line = command_line(given)
    assert line.startswith("homegrown evaluate runs/models/a/model --prompt 'Text: {text}")
    words = subprocess.run(
        ["bash", "-c", f"DATA='/my data'; printf '%s\\n' {line}"], capture_output=True, text=True, check=True
    )
    assert words.stdout.splitlines()[1:] == [
        "evaluate",
        "runs/models/a/model",
        *given[2:5],
        'held_out=["/my data/a b.txt"]',
    ]
    assert shlex.split(command_line(("x", "it's"))) == ["homegrown", "x", "it's"]


def test_the_held_out_texts_are_looked_for_where_the_data_is(here: Places) -> None:
    recipe = here.recipes / "base.toml"
    recipe.write_text('[data.filters]\nheld_out = ["../shared/data/eval/a.txt.gz"]\n')
    assert held_out_arguments(here) == ["--set", 'data.filters.held_out=["$DATA/eval/a.txt.gz"]']
    assert held_out_arguments(replace(here, data=ROOT / ".." / "shared" / "data")) == []
    recipe.write_text('[data.filters]\nheld_out = ["elsewhere/a.txt.gz"]\n')
    with pytest.raises(ConfigError, match=r"base.toml: data.filters.held_out: elsewhere/a.txt.gz"):
        held_out_arguments(here)
    recipe.write_text("name = ")
    with pytest.raises(ConfigError, match=r"base.toml: not readable"):
        held_out_arguments(here)
    with pytest.raises(ConfigError, match="--stronger DIR"):
        here.real("$STRONGER/model.safetensors")
