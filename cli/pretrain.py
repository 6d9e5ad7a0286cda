"""`homegrown pretrain` and `homegrown tokenizer`: from text to a model."""

from pathlib import Path

import click

from cli import needs


@click.command()
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
    with needs("train"):
        from training.pretrain import pretrain as run
        from training.recipe import PretrainSettings

        run_changes = {key: value for key, value in (("minutes", minutes), ("steps", steps)) if value is not None}
        data_changes = {"corpus": list(corpus)} if corpus else {}
        settings = PretrainSettings.from_toml(recipe, {"run": run_changes, "data": data_changes})
        model = run(settings, out, resume=resume)
    click.echo(f"{model}\nserve it: homegrown serve --model {model}")


@click.group()
def tokenizer() -> None:
    """Train a tokenizer, or look at one."""


@tokenizer.command("train")
@click.argument("corpus", nargs=-1, required=True, type=click.Path())
@click.option("--vocab-size", type=int, default=4096, show_default=True)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The tokenizer.json to write.")
def tokenizer_train(corpus: tuple[str, ...], vocab_size: int, out: Path) -> None:
    """Train a byte-level BPE tokenizer on CORPUS (files or directories)."""
    with needs("train"):
        from training.data.bpe import train_bpe
        from training.data.readers import corpus_files, read_documents

        train_bpe(read_documents(corpus_files(corpus)), vocab_size, out)
    click.echo(out)
