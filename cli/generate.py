"""`homegrown generate`: the model without a server."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from model.errors import ConfigError, HomegrownError

if TYPE_CHECKING:
    from app.templates import Templates
    from model.prompts import InstructionTemplate, PromptTemplate
    from model.tokenizer import Tokenizer


@click.command()
@click.argument("prompt")
@click.option("--model", default=None, help="Bundled or pulled model's name, or a model directory.")
@click.option(
    "--adapter",
    default=None,
    help="One of the adapters that the model carries, by name, or an adapter's directory. By default --chat and --instruct "
    "take the one that was tuned to answer, if the model wasn't.",
)
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
@click.option("--instruct", is_flag=True, help="Put PROMPT into the model's template for instructions, and follow it.")
@click.option("--input", "text", metavar="TEXT", help="With --instruct: what the instruction is about.")
@click.option(
    "--quantize",
    type=click.Choice(["none", "int8", "int4"]),
    default="none",
    show_default=True,
    help="Bits of weights.",
)
@click.option("--threads", type=click.IntRange(min=1), default=None, help="Compute threads; by default all processors.")
@click.option("--json-schema", "schema", default=None, help="A JSON schema; the answer is JSON that fits it.")
def generate(
    prompt: str,
    model: str | None,
    adapter: str | None,
    max_tokens: int,
    temperature: float,
    top_p: float,
    seed: int | None,
    chat: bool,
    instruct: bool,
    text: str | None,
    quantize: str,
    threads: int | None,
    schema: str | None,
) -> None:
    """Continue PROMPT without a server, printing as it goes.

    \b
    homegrown generate "Once upon a time" --seed 1
    homegrown generate "Who is it about?" --instruct --input "Anna had a dog." --temperature 0
    """
    from app.engine import Engine, Grammar, SamplingParams
    from app.engine.messages import EngineError
    from app.settings import Settings
    from model.hub import resolve_model

    if chat and instruct:
        raise click.UsageError("--chat and --instruct exclude each other: each is a template")
    if text is not None and not instruct:
        raise click.UsageError("--input is for --instruct alone")
    params = SamplingParams(temperature=temperature, top_p=top_p, seed=seed)
    directory = resolve_model(model or Settings.model_fields["model"].default)
    adapters, templates = _choose(directory, adapter, answers=chat or instruct)
    name = next(iter(adapters), None)
    with Engine(directory, quantize=quantize, max_slots=1, threads=threads, adapters=adapters) as engine:
        if engine.info.labels or any(engine.info.adapters.values()):
            raise HomegrownError(
                f"{name or directory}: is a classifier; it has no language-model head to generate with"
            )
        template = templates.chat if chat else templates.instruction if instruct else None
        ids = _encode(template, engine.tokenizer, prompt, text or "")
        if template is None:
            click.echo(prompt, nl=False)
        room = min(max_tokens, max(1, engine.info.context - len(ids)))
        grammar = None if schema is None else Grammar("json_schema", schema)
        try:
            for piece in engine.stream(
                ids, params, max_tokens=room, stop=template.stops if template else (), adapter=name, grammar=grammar
            ):
                click.echo(piece, nl=False)
        except EngineError as error:
            raise HomegrownError(str(error)) from None
    click.echo()


def _encode(
    template: "PromptTemplate | InstructionTemplate | None", tokenizer: "Tokenizer", prompt: str, text: str
) -> list[int]:
    """The prompt's token ids, in a template if there is one; `text` is what an instruction is about."""
    from model.prompts import InstructionTemplate

    if template is None:
        return tokenizer.encode_prompt(prompt)
    if isinstance(template, InstructionTemplate):
        return template.encode(tokenizer, prompt, text)
    return template.encode([{"role": "user", "content": prompt}], tokenizer)


def _choose(model: Path, adapter: str | None, *, answers: bool) -> tuple[dict[str, str], "Templates"]:
    """The adapter to generate with, if any, as name -> directory, and the prompt templates: as the server chooses. ConfigError
    for an adapter that isn't there."""
    from app.adapters import adapters_folder, adapters_to_load, classifies
    from app.templates import Templates, tuned_adapter

    base = Templates.of_model(model)
    carried = adapters_to_load(adapters_folder(None, model))
    if adapter is None and answers:
        found = {name: base.of_adapter(Path(path)) for name, path in carried.items() if not classifies(Path(path))}
        adapter = tuned_adapter(base, found)
    if adapter is None:
        return {}, base
    if adapter not in carried and not (Path(adapter) / "adapter_config.json").is_file():
        raise ConfigError(
            f"adapter: {adapter} is no adapter's directory, and the model carries {', '.join(carried) or 'none'}"
        )
    path = carried.get(adapter, adapter)
    return {Path(path).resolve().name: path}, base.of_adapter(Path(path))
