"""Values given on the command line, and what a process of a run says at its end."""

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from cli.overrides import apply_changes
from cli.pretrain import pretrain


def test_values_are_set_in_their_tables() -> None:
    given: dict[str, Any] = {"data": {"corpus": ("a.txt",)}, "run": {"steps": None}}
    changes = ["run.steps=3", "optim.lr=0.1", "data.field=body", "model.changes.n_layer=2", "name=x", "data.about=a=b"]
    assert apply_changes(changes, given) == {
        "data": {"corpus": ("a.txt",), "field": "body", "about": "a=b"},
        "run": {"steps": 3}, "optim": {"lr": 0.1}, "model": {"changes": {"n_layer": 2}}, "name": "x",
    }  # fmt: skip


@pytest.mark.parametrize(("changes", "said"), [
    (["steps"], "is not SECTION.FIELD=VALUE"),
    (["run.=3"], "is not SECTION.FIELD=VALUE"),
    (["data=3"], "data is a table"),
    (["name=x", "name.y=3"], "name is no table"),
    (["run.minutes.x=3"], "minutes is no table"),
    (["model.changes.n_layer=2", "model.changes=3"], "changes is a table"),
])  # fmt: skip
def test_a_table_that_is_none_is_said(changes: list[str], said: str) -> None:
    with pytest.raises(click.BadParameter, match=said):
        apply_changes(changes, {"data": {"corpus": None}, "run": {"minutes": None}})


@pytest.mark.parametrize(("rank", "speaks"), [(None, True), ("0", True), ("1", False)])
def test_one_process_says_where_the_model_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: str | None, speaks: bool
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr("training.pretrain.pretrain", lambda settings, out, resume: out / "model")
    (tmp_path / "r.toml").write_text("[run]\nsteps = 3\n")
    done = CliRunner().invoke(pretrain, [str(tmp_path / "r.toml"), "--out", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    assert done.output == (f"{tmp_path}/run/model\nserve it: homegrown serve --model {tmp_path}/run/model\n" * speaks)
