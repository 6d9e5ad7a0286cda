"""`homegrown bench`: how fast a model runs on this machine, measured in a minute."""

import json
from typing import Any

import click

from cli.options import engine_options, engine_spec, json_option, model_option


def _numbers(_: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    """1,8,32 as numbers."""
    try:
        found = tuple(int(part) for part in value.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise click.BadParameter(f"{value!r} is not a list of numbers of streams, as 1,8,32", param=parameter)
    return tuple(sorted(set(found)))


@click.command()
@model_option
@click.option(
    "--streams", callback=_numbers, default="1,8,32", show_default=True, metavar="N,N,...", help="Requests at once."
)
@click.option("--prompt-tokens", type=click.IntRange(min=1), default=128, show_default=True, help="Of each request.")
@click.option("--new-tokens", type=click.IntRange(min=2), default=64, show_default=True, help="Of each answer.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="Medians are of so many.")
@engine_options
@json_option("all figures")
def bench(
    model: str | None,
    streams: tuple[int, ...],
    prompt_tokens: int,
    new_tokens: int,
    rounds: int,
    as_json: bool,
    **given: Any,
) -> None:
    """Measure a model on this machine: prompt and decoded tokens a second, the wait for the first token, and memory, for 1, 8 and
    32 requests at once.

    Prompts are random and all different, so nothing is reused; nothing is drafted; an answer never ends early. A rate of
    decoding is without the prompts' time. What is shown is the median of the rounds, and how far they lay apart.

    \b
    homegrown bench
    homegrown bench --model gpt2 --quantize int8 --streams 1,4
    homegrown bench --json > figures.json
    """
    from cli.benching import measure, table

    found = measure(
        model, engine_spec(given), streams=streams, prompt_tokens=prompt_tokens, new_tokens=new_tokens, rounds=rounds
    )
    click.echo(json.dumps(found) if as_json else table(found))
