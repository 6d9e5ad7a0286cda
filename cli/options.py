"""Options that several commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

Command = TypeVar("Command", bound=Callable[..., Any])


class ModelName(click.ParamType):
    """A bundled or pulled model's name, or a directory; the shell completes both."""

    name = "model"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        from model.hub import known_models

        names = [name for name in known_models() if name.startswith(incomplete)]
        return [CompletionItem(incomplete, type="dir"), *(CompletionItem(name) for name in names)]


MODEL = ModelName()


def model_option(command: Command) -> Command:
    """--model."""
    text = "Bundled or pulled model's name, or a model directory.  [default: homegrown-base]"
    return click.option("--model", type=MODEL, default=None, help=text)(command)


def engine_options(command: Command) -> Command:
    """How the engine computes; to be passed to `engine_spec`."""
    options = (
        click.option("--quantize", type=click.Choice(["none", "int8", "int4"]), help="Weights in 8 or 4 bits."),
        click.option("--dtype", type=click.Choice(["auto", "float32", "bfloat16"]), help="Of weights that aren't quantised."),
        click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), help="By default a GPU if there is one."),
        click.option("--backend", type=click.Choice(["auto", "native", "torch"]), help="What computes."),
        click.option("--threads", type=click.IntRange(min=1), help="Compute threads; by default all processors."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


ENGINE_FIELDS = ("quantize", "dtype", "device", "backend", "threads")


def engine_spec(given: dict[str, Any]) -> dict[str, Any]:
    """The engine's options among `given`, those that were set."""
    return {name: given[name] for name in ENGINE_FIELDS if given.get(name) is not None}


def json_option(what: str) -> Callable[[Command], Command]:
    """--json, a flag, for scripts."""
    return click.option("--json", "as_json", is_flag=True, help=f"Print {what} as one JSON object, and nothing else.")


def say_result(as_json: bool, fields: dict[str, Any] | Callable[[], dict[str, Any]], text: str) -> None:
    """What a command ends with, on stdout: `fields` (or what makes them) as JSON, or `text` for a person."""
    import json

    if not as_json:
        click.echo(text)
        return
    fields = fields() if callable(fields) else fields
    shown = {name: str(value) if isinstance(value, Path) else value for name, value in fields.items()}
    click.echo(json.dumps(shown, ensure_ascii=False))
