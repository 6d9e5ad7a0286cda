"""`homegrown pretrain` and `homegrown tokenizer`: from text to a model."""

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from cli import needs
from cli.options import MODEL, json_option, say_result
from cli.overrides import apply_changes
from cli.runs import done_fields, plan_fields


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option(
    "--corpus", multiple=True, help="A text file, a directory or hf:owner/name to learn from; may be repeated."
)
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Directory of the run: data, states, model."
)
@click.option("--start", type=MODEL, help="A bundled or pulled model's name, or a model directory, to go on from.")
@click.option(
    "--general", multiple=True, type=click.Path(), help="With --start: other text, measured before and after."
)
@click.option("--minutes", type=float, help="End after this long, cooling down on the clock.")
@click.option("--steps", type=int, help="End after this many updates.")
@click.option("--epochs", type=float, help="End after this many passes over the corpus.")
@click.option("--seed", type=int, help="Of the split, the order, the first weights and all that is drawn.")
@click.option("--device", help="cpu, cuda, cuda:1; by default a GPU if there is one.")
@click.option("--set", "changes", multiple=True, metavar="SECTION.FIELD=VALUE", help="Any other field of the recipe.")
@click.option("--dry-run", is_flag=True, help="Say what the run would do and cost, and stop.")
@click.option("--resume", is_flag=True, help="Go on from the run's newest saved state.")
@json_option("the result, or the plan")
def pretrain(
    recipe: Path,
    corpus: tuple[str, ...],
    out: Path,
    start: str | None,
    general: tuple[str, ...],
    changes: tuple[str, ...],
    dry_run: bool,
    resume: bool,
    as_json: bool,
    **run_fields: Any,
) -> None:
    """Train a language model as RECIPE (TOML) says: from scratch, or with --start from a model that there is.

    \b
    homegrown pretrain training/recipes/cpu_base.toml --corpus my_texts/ --out runs/mine
    homegrown pretrain training/recipes/cpu_base.toml --corpus my_texts/ --out runs/mine --dry-run
    homegrown pretrain training/recipes/continue.toml --start gpt2 --corpus my_domain/ --out runs/domain
    torchrun --nproc-per-node 4 -m cli pretrain training/recipes/gpu_124m.toml --corpus texts/ --out runs/big
    homegrown serve --model runs/mine/model
    """
    given = {
        "run": run_fields,
        "data": {"corpus": corpus or None, "general": general or None},
        "model": {"start": start},
    }
    with needs("train"):
        from training.pretrain import pretrain as run
        from training.pretrain_plan import pretrain_plan
        from training.pretrain_recipe import PretrainSettings

        settings = PretrainSettings.from_toml(recipe, apply_changes(changes, given))
        if dry_run:
            plan = pretrain_plan(settings, out)
            say_result(as_json, plan_fields(plan), plan.table())
            return
        model = run(settings, out, resume=resume)
    if os.environ.get("RANK", "0") == "0":  # torchrun's others have nothing to say
        say_result(as_json, lambda: done_fields(model, out), f"{model}\nserve it: homegrown serve --model {model}")


@click.group()
def tokenizer() -> None:
    """Train a tokenizer of your own.

    \b
    homegrown tokenizer train my_texts/ --out tokenizer.json
    """


@tokenizer.command("train")
@click.argument("corpus", nargs=-1, required=True, type=click.Path())
@click.option("--vocab-size", type=int, default=4096, show_default=True)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The tokenizer.json to write.")
@json_option("the file and its size")
def tokenizer_train(corpus: tuple[str, ...], vocab_size: int, out: Path, as_json: bool) -> None:
    """Train a byte-level BPE tokenizer on CORPUS (files or directories).

    \b
    homegrown tokenizer train my_texts/ more.jsonl --vocab-size 8192 --out tokenizer.json
    """
    with needs("train"):
        from training.data.bpe import train_bpe
        from training.data.readers import corpus_files, read_documents

        train_bpe(_counted(read_documents(corpus_files(corpus))), vocab_size, out)
    say_result(as_json, {"tokenizer": out, "vocab_size": vocab_size}, str(out))


def _counted(documents: Iterable[str]) -> Iterator[str]:
    """The documents, and on a terminal how many have been read; learning the merges shows its own bars."""
    from tqdm import tqdm

    return iter(tqdm(documents, desc="reading", unit=" documents", disable=None, file=sys.stderr))
