"""`homegrown generate`: the model without a server."""

import click

from model.errors import HomegrownError


@click.command()
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
    max_tokens: int,
    temperature: float,
    top_p: float,
    seed: int | None,
    chat: bool,
    quantize: str,
    threads: int | None,
    schema: str | None,
) -> None:
    """Continue PROMPT without a server, printing as it goes.

    \b
    homegrown generate "Once upon a time" --seed 1
    """
    from app.engine import Engine, Grammar, SamplingParams
    from app.engine.messages import EngineError
    from app.settings import Settings
    from model.hub import resolve_model
    from model.prompts import PromptTemplate

    params = SamplingParams(temperature=temperature, top_p=top_p, seed=seed)
    directory = resolve_model(model or Settings.model_fields["model"].default)
    template = PromptTemplate.from_directory(directory)
    with Engine(directory, quantize=quantize, max_slots=1, threads=threads) as engine:
        if engine.info.labels:
            raise HomegrownError(f"{directory}: is a classifier; it has no language-model head to generate with")
        if chat:
            ids = template.encode([{"role": "user", "content": prompt}], engine.tokenizer)
        else:
            ids = engine.tokenizer.encode_prompt(prompt)
            click.echo(prompt, nl=False)
        room = min(max_tokens, max(1, engine.info.context - len(ids)))
        grammar = None if schema is None else Grammar("json_schema", schema)
        stops = template.stops if chat else ()
        try:
            for text in engine.stream(ids, params, max_tokens=room, stop=stops, grammar=grammar):
                click.echo(text, nl=False)
        except EngineError as error:
            raise HomegrownError(str(error)) from None
    click.echo()
