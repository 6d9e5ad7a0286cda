"""Put the finished models into checkpoints/: one directory, the base with its adapters inside, each with its card, its recipe
and the command that made it."""

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from model.adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS, read_adapter_config
from model.errors import CheckpointError
from model.files import WEIGHTS, staged_directory, write_json
from model.prompts import CHAT_TEMPLATE_FILE, INSTRUCTION_TEMPLATE_FILE
from training.models.figures import Figures, collect
from training.models.places import ADAPTERS, BASE, Places, shown
from training.models.tables import answers_table, classifiers_table, few_shot_table, texts_table
from training.table import Table

MB = 1_000_000
MODEL_LIMIT, ALL_LIMIT = 45 * MB, 100 * MB
RECIPE = "recipe.toml"
RECIPES = {
    BASE: "$RECIPES/base.toml", "instruct": "$RECIPES/instruct.toml", "sms-spam": "$RECIPES/classify_sms.toml",
    "sentiment": "$RECIPES/classify_sentiment.toml",
}  # fmt: skip
_TABLES: dict[str, tuple[Callable[[Figures], Table], ...]] = {
    BASE: (texts_table, few_shot_table), "instruct": (answers_table, few_shot_table), "sms-spam": (classifiers_table,),
    "sentiment": (classifiers_table,),
}  # fmt: skip


def publish(places: Places, commands: Mapping[str, str]) -> Path:
    """Put the base and its adapters in the place of checkpoints/homegrown-base, all or nothing, and return it. `commands`: by
    model, what makes it. CheckpointError when a run's result isn't what it should be, or all of it is too large to be shipped."""
    figures = collect(places, commands)
    target = places.checkpoints / BASE
    with staged_directory(target, overwrite=True) as stage:
        _copy(places, BASE, stage, (WEIGHTS,))
        _complete(places, BASE, stage, figures, commands)
        for name in ADAPTERS:
            adapter = stage / "adapters" / name
            _copy(places, name, adapter, (ADAPTER_CONFIG, ADAPTER_WEIGHTS))
            _spare_tokenizer(adapter, stage)
            write_json(adapter / ADAPTER_CONFIG, read_adapter_config(adapter) | {"base_model_name_or_path": BASE})
            _complete(places, name, adapter, figures, commands)
        check_sizes(stage, places.checkpoints, target.name)
    return target


def check_sizes(stage: Path, checkpoints: Path, name: str) -> None:
    """CheckpointError when the model in `stage`, which becomes checkpoints/NAME, is too large, or with it all models together."""
    size = _size(stage)
    if size >= MODEL_LIMIT:
        parts = ", ".join(f"{path.relative_to(stage)} {_size(path) / MB:.1f}" for path in _largest(stage))
        raise CheckpointError(
            f"{name}: {size / MB:.1f} MB, but a bundled model is to be under {MODEL_LIMIT / MB:.0f} MB (its largest files, MB: "
            f"{parts}). A larger rank or a wider model needs more room than there is: change the recipe"
        )
    others = [path for path in checkpoints.glob("*") if path.name != name and not path.name.startswith(".")]
    total = size + sum(map(_size, others))
    if total >= ALL_LIMIT:
        there = ", ".join(path.name for path in others)
        raise CheckpointError(
            f"{checkpoints}: {total / MB:.1f} MB with {name}, but all models are to be under {ALL_LIMIT / MB:.0f} MB; take one "
            f"of the others away ({there})"
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


def _largest(stage: Path) -> list[Path]:
    return sorted((p for p in stage.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size, reverse=True)[:4]


def _copy(places: Places, name: str, to: Path, needed: tuple[str, ...]) -> None:
    """A run's model and its recipe. CheckpointError when a file of it is missing, as where an adapter is a whole model."""
    run, recipe = places.path(f"$WORK/{name}/model"), RECIPES[name]
    for file in (*needed, "README.md"):
        if not (run / file).is_file():
            remedy = (
                f'{shown(recipe)} must have method = "lora"'
                if file.startswith("adapter")
                else f"make it with --only {name}"
            )
            raise CheckpointError(f"{run}: holds no {file}; {remedy}")
    shutil.copytree(run, to, dirs_exist_ok=True, copy_function=shutil.copyfile)
    shutil.copyfile(places.path(recipe), to / RECIPE)


def _spare_tokenizer(adapter: Path, base: Path) -> None:
    """Take out an adapter's tokenizer where it is the base's: half a megabyte. One with templates keeps it, since they are read
    together."""
    own, bases = adapter / "tokenizer.json", base / "tokenizer.json"
    templates = any((adapter / name).is_file() for name in (CHAT_TEMPLATE_FILE, INSTRUCTION_TEMPLATE_FILE))
    if not templates and own.is_file() and bases.is_file() and own.read_bytes() == bases.read_bytes():
        own.unlink()
        (adapter / "tokenizer_config.json").unlink(missing_ok=True)


def _complete(places: Places, name: str, directory: Path, figures: Figures, commands: Mapping[str, str]) -> None:
    card = (directory / "README.md").read_text("utf-8")
    text = completed(card, name, figures, commands[name], shown(RECIPES[name]))
    (directory / "README.md").write_text(places.scrubbed(text), "utf-8")


def completed(card: str, name: str, figures: Figures, command: str, recipe: str) -> str:
    """A run's card with the evaluation's tables, the recipe and the exact command; an adapter's names its base in front."""
    if name != BASE and "\nbase_model:" not in card:
        card = re.sub(r"^---\n", f"---\nbase_model: {json.dumps(BASE)}\n", card, count=1)
    tables = "\n\n".join(
        f"### {table.title}\n\n{table.markdown()}" for table in (make(figures) for make in _TABLES[name])
    )
    made = (
        f"`{RECIPE}` beside this card is `{recipe}`. With `DATA` naming the texts' directory, in the repository's root:\n\n"
        f"```sh\n{command}\n```\n\n`make models` does this and the rest: docs/models.md."
    )
    return f"{card.rstrip()}\n\n## Evaluation\n\n{tables}\n\n## Making it again\n\n{made}\n"
