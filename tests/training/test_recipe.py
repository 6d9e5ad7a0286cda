"""What a recipe refuses, and how single values override it."""

from pathlib import Path
from typing import Any

import pytest

from model.errors import ConfigError
from training.finetune import FinetuneSettings
from training.pretrain_recipe import PretrainSettings

PLAIN = "name = 'x'\n[run]\nsteps = 3\n"


@pytest.mark.parametrize(("changes", "said"), [
    ({"run": {"seed": -1}}, "run.seed"),
    ({"run": {"seed": 2**32}}, "run.seed"),
    ({"run": {"eval_tokens": 1}}, "run.eval_tokens"),
    ({"data": {"general": ["a.txt"]}}, "data.general"),
    ({"name": {"x": 3}}, "name: is 'x', not a table"),
    ({"run": {"steps": {"x": 3}}}, "steps: is 3, not a table"),
])  # fmt: skip
def test_a_mistake_is_one_line_that_names_file_and_field(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    (tmp_path / "r.toml").write_text(PLAIN)
    with pytest.raises(ConfigError, match=r"r\.toml: \w") as caught:
        PretrainSettings.from_toml(tmp_path / "r.toml", changes)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_largest_seed_and_an_overridden_value(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(PLAIN)
    made = PretrainSettings.from_toml(tmp_path / "r.toml", {"run": {"seed": 2**32 - 1, "steps": None}})
    assert (made.run.seed, made.run.steps) == (2**32 - 1, 3)
    assert FinetuneSettings.from_toml(None, {"run": {"seed": 7}}).run.seed == 7
