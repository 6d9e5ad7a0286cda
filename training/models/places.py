"""Where the course reads and writes, and the names that these places have in commands that others are to run."""

import json
import os
import shlex
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
BASE = "homegrown-base"
ADAPTERS = ("instruct", "sms-spam", "sentiment")
STRONGER_NAME = "SmolLM2-135M-Instruct, 4 bits (Q4_1)"  # the form in which it can be had without a model hub
# What the recipe of the base calls the data's directory, which may lie elsewhere.
_RECIPES_DATA = "../shared/data/"
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./=,:+$-@%")


@dataclass(frozen=True)
class Places:
    """`data`: the directory of texts; `work`: the runs and their measures; `stronger`: a directory of other open weights to be
    measured beside ours, called `stronger_name`; `unseen`: a text of authors of whom nothing was learned. The rest lies in the
    repository. In commands these are $DATA, $WORK, $STRONGER, $UNSEEN and $RECIPES."""

    data: Path
    work: Path
    stronger: Path | None = None
    stronger_name: str = STRONGER_NAME
    unseen: Path | None = None
    recipes: Path = ROOT / "training" / "recipes"
    checkpoints: Path = ROOT / "checkpoints"
    docs: Path = ROOT / "docs"
    readme: Path = ROOT / "README.md"

    def real(self, argument: str) -> str:
        """An argument with this machine's paths for the names, as the processes that the course starts need it."""
        for name, path in self._named().items():
            argument = argument.replace(name, _from_root(path))
        if "$STRONGER" in argument:
            raise ConfigError("no directory of a stronger model was given; name one with --stronger DIR")
        if "$UNSEEN" in argument:
            raise ConfigError("no text of unseen authors was given; name one with --unseen FILE")
        return argument

    def path(self, name: str) -> Path:
        """The path that a name such as "$WORK/instruct" means."""
        return ROOT / self.real(name)

    def scrubbed(self, value: Any) -> Any:
        """JSON with the names, as others are shown them, in the place of this machine's paths."""
        if isinstance(value, dict):
            return {key: self.scrubbed(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.scrubbed(item) for item in value]
        if not isinstance(value, str):
            return value
        for name, path in self._named().items():
            spellings = {_from_root(path), str(path), str(path.absolute()), str(path.resolve())}
            for spelt in sorted(
                (s for s in spellings if os.sep in s), key=len, reverse=True
            ):  # a mere word may be in any text
                value = value.replace(spelt, shown(name))
        return value

    def _named(self) -> dict[str, Path]:
        named = {"$DATA": self.data, "$WORK": self.work, "$RECIPES": self.recipes}
        given = {"$STRONGER": self.stronger, "$UNSEEN": self.unseen}
        return named | {name: path for name, path in given.items() if path is not None}


def shown(argument: str) -> str:
    """An argument as it is shown: $DATA, $STRONGER and $UNSEEN stay, the others lie in the repository."""
    return argument.replace("$WORK", "runs/models").replace("$RECIPES", "training/recipes")


def command_line(arguments: Sequence[str]) -> str:
    """The command of homegrown with these arguments, fit for a shell in which DATA, STRONGER and UNSEEN are set."""
    return " ".join(["homegrown", *(_quoted(shown(argument)) for argument in arguments)])


def _quoted(argument: str) -> str:
    if argument and set(argument) <= _PLAIN:
        return argument
    if "$" not in argument:
        return shlex.quote(argument)
    for special in '\\"`':
        argument = argument.replace(special, f"\\{special}")
    return f'"{argument}"'


def _from_root(path: Path) -> str:
    """A path as seen from the repository, where it lies in it or beside it: so it stands in a run's own card. Else the whole."""
    absolute = path.absolute()
    return os.path.relpath(absolute, ROOT) if absolute.is_relative_to(ROOT.parent) else str(absolute)


def held_out_arguments(places: Places) -> list[str]:
    """What tells pretraining where the texts lie that it must not learn from; nothing where the recipe's own paths are right."""
    recipe = places.path("$RECIPES/base.toml")
    try:
        content = tomllib.loads(recipe.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{recipe}: not readable as TOML ({error})") from None
    files: list[str] = content.get("data", {}).get("filters", {}).get("held_out", [])
    if not files or (ROOT / _RECIPES_DATA).resolve() == places.data.resolve():
        return []
    if stray := next((file for file in files if not file.startswith(_RECIPES_DATA)), None):
        raise ConfigError(
            f"{recipe}: data.filters.held_out: {stray} is not below {_RECIPES_DATA}, so where it lies under --data isn't known"
        )
    return ["--set", f"data.filters.held_out={json.dumps(['$DATA/' + f.removeprefix(_RECIPES_DATA) for f in files])}"]
