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
