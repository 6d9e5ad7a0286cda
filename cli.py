"""The command `homegrown`. Each command imports what it needs when it runs, so that `--help` answers at once."""

import sys
import types
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from model.errors import HomegrownError


def main() -> None:
    """Entry point of the console script: a mistake that a person can mend is one line, and exit code 1."""
    try:
        commands()
    except (HomegrownError, OSError) as error:  # OSError: a directory that can't be made, a full disk
        click.echo(f"homegrown: {error}", err=True)
        sys.exit(1)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="homegrown", prog_name="homegrown")
def commands() -> None:
    """A GPT you train, own and serve."""


def _serve_options() -> list[click.Parameter]:
    """One flag for each field of the service's settings: their names, choices and help are said once, there."""
    from pydantic_core import PydanticUndefined

    from app.settings import Settings

    options: list[click.Parameter] = []
    for name, field in Settings.model_fields.items():
        flag, kinds = f"--{name.replace('_', '-')}", _kinds(field.annotation)
        choices = [str(value) for kind in kinds if typing.get_origin(kind) is typing.Literal for value in kind.__args__]
        default = field.default
        shown = "" if default in (None, "", False, PydanticUndefined) or default == [] else f"  [default: {default}]"
        help_text = f"{field.description or ''}{shown}"
        if bool in kinds:
            options.append(click.Option([f"{flag}/--no-{flag[2:]}", name], default=None, help=help_text))
        else:
            kind = click.Choice(choices) if choices else click.STRING
            metavar = None if choices else "NUMBER" if {int, float} & set(kinds) else "TEXT"
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


@commands.command(cls=_ServeCommand)
@click.option("--config", type=click.Path(path_type=Path), help="TOML file with any of these settings.")
@click.option("--print-config", is_flag=True, help="Print the effective settings as TOML keys, and stop.")
def serve(config: Path | None, print_config: bool, **overrides: Any) -> None:
    """Serve a model over HTTP.

    A setting's flag wins over its environment variable (HOMEGROWN_PORT for --port), that over the TOML file.

    \b
    homegrown serve
    homegrown serve --model gpt2 --port 9000
    """
    from app.main import serve as run
    from app.settings import load_settings

    settings = load_settings(overrides, config)
    if print_config:
        for name, value in settings.model_dump(mode="json").items():
            click.echo(f"{name} = {_toml(value)}" if value is not None else f"# {name} is not set")
        return
    sys.exit(run(settings))


def _toml(value: object) -> str:
    import json

    return json.dumps(value)  # strings, numbers, booleans and lists of strings read the same in TOML


@commands.command()
@click.argument("prompt")
@click.option("--model", default=None, help="Bundled or pulled model's name, or a model directory.")
@click.option(
    "--max-tokens", type=click.IntRange(min=1), default=128, show_default=True, help="Most tokens to generate."
)
@click.option(
    "--temperature", type=float, default=0.8, show_default=True, help="0 takes the likeliest token every time."
)
@click.option(
    "--top-p", type=float, default=0.95, show_default=True, help="Keep the likeliest tokens that reach this share."
)
@click.option("--seed", type=int, default=None, help="The same seed gives the same text.")
@click.option(
    "--chat", is_flag=True, help="Put PROMPT as a user's message into the model's chat template, and answer it."
)
def generate(
    prompt: str, model: str | None, max_tokens: int, temperature: float, top_p: float, seed: int | None, chat: bool
) -> None:
    """Continue PROMPT without a server, printing as it goes.

    \b
    homegrown generate "Once upon a time" --seed 1
    """
    from app.engine.output import StopMatcher
    from app.settings import Settings
    from model.checkpoint import load_model
    from model.generate import generate as run
    from model.gpt import GPT
    from model.hub import resolve_model
    from model.prompts import PromptTemplate
    from model.sampling_params import SamplingParams
    from model.tokenizer import IncrementalDecoder, Tokenizer

    params = SamplingParams(temperature=temperature, top_p=top_p, seed=seed)
    directory = resolve_model(model or Settings.model_fields["model"].default)
    loaded, tokenizer = load_model(directory), Tokenizer.from_directory(directory)
    if not isinstance(loaded, GPT):
        raise HomegrownError(f"{directory}: is a classifier; it has no language-model head to generate with")
    template = PromptTemplate.from_directory(directory)
    if chat:
        ids = template.encode([{"role": "user", "content": prompt}], tokenizer)
    else:
        ids = tokenizer.encode_prompt(prompt)
        click.echo(prompt, nl=False)
    decoder, stops = IncrementalDecoder(tokenizer), StopMatcher(template.stops if chat else ())
    room = min(max_tokens, max(1, loaded.config.context_length - len(ids)))
    for token in run(loaded, ids, params, room):
        click.echo(stops.push(decoder.push(token)), nl=False)
        if stops.matched:
            break
    click.echo("" if stops.matched else stops.push(decoder.flush()) + stops.flush())


@commands.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option(
    "--corpus", multiple=True, type=click.Path(), help="A text file or directory to learn from; may be repeated."
)
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Directory of the run: data, states, model."
)
@click.option("--minutes", type=float, default=None, help="End after this long, whatever the recipe says.")
@click.option("--steps", type=int, default=None, help="End after this many updates, whatever the recipe says.")
@click.option("--resume", is_flag=True, help="Go on from the run's newest saved state.")
def pretrain(
    recipe: Path, corpus: tuple[str, ...], out: Path, minutes: float | None, steps: int | None, resume: bool
) -> None:
    """Train a language model from scratch, as RECIPE (TOML) says.

    \b
    homegrown pretrain training/recipes/cpu_base.toml --corpus my_texts/ --out runs/mine
    homegrown serve --model runs/mine/model
    """
    with _needs("train"):
        from training.pretrain import pretrain as run
        from training.recipe import PretrainSettings

        run_changes = {key: value for key, value in (("minutes", minutes), ("steps", steps)) if value is not None}
        data_changes = {"corpus": list(corpus)} if corpus else {}
        settings = PretrainSettings.from_toml(recipe, {"run": run_changes, "data": data_changes})
        model = run(settings, out, resume=resume)
    click.echo(f"{model}\nserve it: homegrown serve --model {model}")


@commands.group()
def tokenizer() -> None:
    """Train a tokenizer, or look at one."""


@tokenizer.command("train")
@click.argument("corpus", nargs=-1, required=True, type=click.Path())
@click.option("--vocab-size", type=int, default=4096, show_default=True)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The tokenizer.json to write.")
def tokenizer_train(corpus: tuple[str, ...], vocab_size: int, out: Path) -> None:
    """Train a byte-level BPE tokenizer on CORPUS (files or directories)."""
    with _needs("train"):
        from training.data.bpe import train_bpe
        from training.data.readers import corpus_files, read_documents

        train_bpe(read_documents(corpus_files(corpus)), vocab_size, out)
    click.echo(out)


@commands.command()
@click.argument("name")
@click.option(
    "--revision", default=None, help="Commit, tag or branch; by default the newest, and its commit is recorded."
)
@click.option("--offline", is_flag=True, help="Use what was pulled before; never ask the network.")
def pull(name: str, revision: str | None, offline: bool) -> None:
    """Fetch open weights (safetensors): gpt2, gpt2-medium, gpt2-large, gpt2-xl, distilgpt2, or any repository of the two
    architectures on the Hugging Face Hub.

    \b
    homegrown pull gpt2 && homegrown serve --model gpt2
    """
    from model.hub import pull as run

    click.echo(run(name, revision=revision, offline=offline))


@commands.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace DIRECTORY if it holds something already.")
def import_(file: Path, directory: Path, force: bool) -> None:
    """Turn the GGUF FILE (gpt2 or llama, with its tokenizer and chat template) into a model DIRECTORY.

    \b
    homegrown import SmolLM2-135M-Instruct.Q4_1.gguf models/smollm2
    """
    from tqdm import tqdm

    from model.gguf_import import import_gguf

    with tqdm(desc="importing", unit=" tensors", disable=None) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        import_gguf(file, directory, overwrite=force, progress=show)
    click.echo(f"{directory}\nserve it: homegrown serve --model {directory}")


@contextmanager
def _needs(extra: str) -> Iterator[None]:
    """A library of an extra that isn't installed is named together with what installs it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise HomegrownError(f"{error.name} is not installed; run: pip install 'homegrown[{extra}]'") from None


if __name__ == "__main__":
    main()
