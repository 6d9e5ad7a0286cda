"""`homegrown serve`: one flag for each of the service's settings."""

import sys
import types
import typing
from pathlib import Path
from typing import Any

import click


def _serve_options() -> list[click.Parameter]:
    """One flag for each field of the service's settings: their names, choices and help are said once, there."""
    from pydantic_core import PydanticUndefined

    from app.settings import Settings

    options: list[click.Parameter] = []
    for name, field in Settings.model_fields.items():
        flag, kinds = f"--{name.replace('_', '-')}", _kinds(field.annotation)
        choices = [str(value) for kind in kinds if typing.get_origin(kind) is typing.Literal for value in kind.__args__]
        default = field.default
        unset = default in (None, "", False, PydanticUndefined) or default in ([], {})
        shown = "" if unset else f"  [default: {default}]"
        help_text = f"{field.description or ''}{shown}"
        if bool in kinds:
            options.append(click.Option([f"{flag}/--no-{flag[2:]}", name], default=None, help=help_text))
        else:
            kind = click.Choice(choices) if choices else click.STRING
            metavar = (
                None if choices else "NUMBER" if {int, float} & set(kinds) else "PATH" if Path in kinds else "TEXT"
            )
            options.append(click.Option([flag, name], type=kind, metavar=metavar, default=None, help=help_text))
    return options


def _kinds(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, or the annotation alone."""
    return typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)


class _ServeCommand(click.Command):
    """`serve` reads the settings' fields when it is asked for, so that other commands don't load them."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        known = {parameter.name for parameter in self.params}
        self.params += [option for option in _serve_options() if option.name not in known]
        return super().get_params(ctx)


@click.command(cls=_ServeCommand)
@click.option("--config", type=click.Path(path_type=Path), help="TOML file with any of these settings.")
@click.option(
    "--print-config", is_flag=True, help="Print the effective settings as a TOML file, without secrets, and stop."
)
def serve(config: Path | None, print_config: bool, **overrides: Any) -> None:
    """Serve a model over HTTP.

    A setting's flag wins over its environment variable (HOMEGROWN_PORT for --port), that over the TOML file.

    \b
    homegrown serve
    homegrown serve --model gpt2 --port 9000
    """
    from pydantic import SecretStr

    from app.main import serve as run
    from app.settings import load_settings

    settings = load_settings(overrides, config)
    if print_config:
        for name, value in settings.model_dump(mode="json").items():
            secret = isinstance(getattr(settings, name), SecretStr)
            unset = f"# {name} is {'set, and not shown' if secret else 'not set'}"
            click.echo(unset if secret or value is None else f"{name} = {_toml(value)}")
        return
    sys.exit(run(settings))


def _toml(value: object) -> str:
    import json

    if isinstance(value, dict):
        return f"{{ {', '.join(f'{_toml(key)} = {_toml(item)}' for key, item in value.items())} }}" if value else "{}"
    # Strings, numbers, booleans and lists of strings read the same in TOML, but for pairs of surrogates.
    return json.dumps(value, ensure_ascii=False)
