"""`homegrown generate`: the model without a server."""

import json
import sys
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options import engine_options, engine_spec, json_option, model_option
from cli.screen import harmless, whole
from model.errors import HomegrownError

if TYPE_CHECKING:
    from app.engine.messages import Delta
    from app.templates import Templates
    from cli.local import Chosen
    from model.prompts import InstructionTemplate, PromptTemplate
    from model.tokenizer import Tokenizer


@click.command()
@click.argument("prompt")
@model_option
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
@click.option("--json-schema", "schema", default=None, help="A JSON schema; the answer is JSON that fits it.")
@engine_options
@json_option("the answer with its counts and times")
def generate(
    prompt: str,
    model: str | None,
    adapter: str | None,
    max_tokens: int,
    chat: bool,
    instruct: bool,
    text: str | None,
    schema: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Continue PROMPT without a server, printing as it goes.

    \b
    homegrown generate "Once upon a time" --seed 1
    homegrown generate "Who is it about?" --instruct --input "Anna had a dog." --temperature 0
    homegrown generate "The sea" --max-tokens 40 --json | python3 -m json.tool
    """
    from app.engine import Grammar, SamplingParams
    from cli.local import LocalEngine, choose, explained

    if chat and instruct:
        raise click.UsageError("--chat and --instruct exclude each other: each is a template")
    if text is not None and not instruct:
        raise click.UsageError("--input is for --instruct alone")
    prompt, text = whole(prompt), whole(text or "")
    params = SamplingParams(**{field: given[field] for field in ("temperature", "top_p", "seed")})
    chosen = choose(model, adapter)
    name, templates = _answering(chosen, answers=chat or instruct)
    adapters = {} if name is None else {name: chosen.adapters[name]}
    spec = {"max_slots": 1, "adapters": adapters, **engine_spec(given)}
    with LocalEngine(chosen.directory, **spec) as engine, explained():
        if engine.info.labels or any(engine.info.adapters.values()):
            raise HomegrownError(
                f"{name or chosen.name}: is a classifier; it has no language-model head to generate with"
            )
        template = templates.chat if chat else templates.instruction if instruct else None
        ids = _encode(template, engine.tokenizer, prompt, text)
        room = min(max_tokens, max(1, engine.info.context - len(ids)))
        grammar = None if schema is None else Grammar("json_schema", schema)
        deltas = engine.deltas(
            ids, params, max_tokens=room, stop=template.stops if template else (), adapter=name, grammar=grammar
        )
        if as_json:
            click.echo(_json(name or chosen.name, prompt, list(deltas)))
        else:
            _show("" if template else prompt, deltas)


def _show(before: str, deltas: "Generator[Delta]") -> None:
    """The text as it comes."""
    click.echo(before, nl=False)
    with closing(deltas):
        for delta in deltas:
            click.echo(harmless(delta.text) if sys.stdout.isatty() else delta.text, nl=False)
    click.echo()


def _json(model: str, prompt: str, deltas: "list[Delta]") -> str:
    """The whole answer, named as POST /generate names it."""
    finish = deltas[-1].finish
    assert finish is not None, "a whole answer has an end"
    times, count = finish.timings, finish.completion_tokens
    fields = {
        "model": model,
        "prompt": prompt,
        "text": "".join(delta.text for delta in deltas),
        "finish_reason": finish.reason,
        "stop_reason": finish.stop_reason,
        "usage": {
            "prompt_tokens": finish.prompt_tokens,
            "completion_tokens": count,
            "total_tokens": finish.prompt_tokens + count,
        },
        "timings": {
            "prefill_ms": round(1000 * times.prefill, 3),
            "decode_ms": round(1000 * times.decode, 3),
            "tokens_per_second": round((count - 1) / times.decode, 2) if times.decode and count > 1 else None,
        },
    }
    return json.dumps(fields, ensure_ascii=False)


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


def _answering(chosen: "Chosen", *, answers: bool) -> "tuple[str | None, Templates]":
    """The adapter to generate with, if any, and the prompt templates: as the server chooses."""
    from app.adapters import classifies
    from app.templates import Templates, tuned_adapter

    base, name = Templates.of_model(chosen.directory), chosen.adapter
    if name is None and answers:
        paths = {each: Path(path) for each, path in chosen.adapters.items()}
        name = tuned_adapter(base, {each: base.of_adapter(p) for each, p in paths.items() if not classifies(p)})
    return name, base if name is None else base.of_adapter(Path(chosen.adapters[name]))
