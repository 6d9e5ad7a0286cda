"""`homegrown evaluate`: a model's measures on data, each with its convention and beside baselines."""

import json
from pathlib import Path
from typing import Any

import click

from cli import needs
from cli.options import MODEL
from cli.overrides import named_pairs


class _WithKinds(click.Command):
    """Lists the kinds of data below the options."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        from training.evaluate.kinds import KINDS

        with formatter.section("Kinds of data"):
            formatter.write_dl([(name, kind.about) for name, kind in KINDS.items()])


@click.command(cls=_WithKinds)
@click.argument("model", type=MODEL)
@click.option(
    "--on",
    "targets",
    multiple=True,
    required=True,
    metavar="[KIND=]PATH",
    help="Data to measure on; may be repeated. Without KIND it is told by the file's content.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="Take at most so many items: of texts the first, of rows some drawn by the seed.",
)
@click.option("--paper", is_flag=True, help="Lay the published figures beside those of a model of GPT-2's shape.")
@click.option(
    "--baseline-corpus", type=click.Path(path_type=Path), help="Count n-grams on this text or shard directory."
)
@click.option(
    "--json", "json_file", metavar="FILE", help="Write everything as JSON; - prints it in place of the tables."
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Write a page, its pictures and the JSON into this directory."
)
@click.option("--stride", type=click.IntRange(min=1), help="Perplexity: tokens from one window to the next.")
@click.option("--text-field", default="text", show_default=True, help="Labelled rows: the column of the text.")
@click.option("--label-field", default="label", show_default=True, help="Labelled rows: the column of the label.")
@click.option("--columns", metavar="A,B", help="Rows: the columns of a .csv or .tsv without a header line.")
@click.option("--label-name", "names", multiple=True, metavar="LABEL=NAME", help="What a label of the data is called.")
@click.option(
    "--field", "fields", multiple=True, metavar="NAME=COLUMN", help="Answers: a column's name, as output=answer."
)
@click.option(
    "--train", type=click.Path(path_type=Path), help="Labelled rows to learn baselines from and draw examples from."
)
@click.option(
    "--shots", type=click.IntRange(min=0), default=0, show_default=True, help="Few-shot: examples in the prompt."
)
@click.option("--prompt", metavar="TEXT", help=r"Few-shot: the template, as 'Review: {text}\nSentiment: {label}'.")
@click.option("--no-calibration", is_flag=True, help="Few-shot: take the labels' probabilities as they are.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of drawn rows, examples and bootstrap samples.",
)
@click.option("--max-tokens", type=click.IntRange(min=1), default=64, show_default=True, help="Of a generated answer.")
@click.option("--tasks", type=click.Path(path_type=Path), help="lm-eval: a directory of task files of one's own.")
@click.option("--base", help="An adapter's base model, where it isn't the one that the adapter names.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1; auto: a GPU if there is one.")
@click.option("--bf16", is_flag=True, help="Products in bfloat16: faster, figures change in the third or fourth digit.")
@click.option(
    "--quantize",
    type=click.Choice(["none", "int8", "int4"]),
    help="Score as the service would with this setting; also --dtype and --backend.",
)
@click.option("--dtype", type=click.Choice(["auto", "float32", "bfloat16"]), help="Of weights that aren't quantised.")
@click.option("--backend", type=click.Choice(["auto", "native", "torch"]), help="What computes the scores.")
@click.option("--threads", type=click.IntRange(min=1), help="Processor threads; by default as many as there are.")
@click.option(
    "--batch-tokens", type=click.IntRange(min=1), default=4096, show_default=True, help="Tokens computed at a time."
)
def evaluate(
    model: str, targets: tuple[str, ...], json_file: str | None, out: Path | None, paper: bool, **given: Any
) -> None:  # fmt: skip
    """Measure MODEL (a bundled or pulled model's name, a model directory, or an adapter's).

    \b
    homegrown evaluate homegrown-base --on wiki.valid.txt.gz --on lambada_test.jsonl --limit 500
    homegrown evaluate gpt2 --on wikitext2=wiki.test.tokens --on hellaswag_val.jsonl --paper --out report/
    homegrown evaluate runs/spam/model --on classify=test.csv --train train.csv
    homegrown evaluate gpt2 --on fewshot=reviews.tsv --train more.tsv --shots 4 --label-name 0=bad --label-name 1=good
    """
    with needs("eval"):
        from training.evaluate.page import write_page
        from training.evaluate.results import table
        from training.evaluate.suite import evaluate as run

        subject, options = _load(model, given)
        quiet = json_file == "-"
        if not quiet:
            click.echo(subject.headline())
        found = run(
            subject,
            targets,
            options,
            paper=paper,
            done=lambda result: None if quiet else click.echo(f"\n{table(result)}"),
        )
    if quiet:
        click.echo(json.dumps(found.to_json(), ensure_ascii=False, indent=2))
    elif paper:
        click.echo(f"\n{found.paper_text()}")
    if json_file is not None and not quiet:
        from model.files import write_json

        write_json(Path(json_file), found.to_json())
    if out is not None:
        click.echo(f"\n{write_page(found, out)}", err=quiet)


def _load(model: str, given: dict[str, Any]) -> tuple[Any, Any]:
    """The model and the options of the command line."""
    import os

    import torch

    from training.evaluate.ngram_baseline import Ngrams
    from training.evaluate.subject import Options, load_backend_subject, load_subject

    threads = given["threads"] or os.cpu_count() or 1
    torch.set_num_threads(threads)
    served = {name: given[name] for name in ("quantize", "dtype", "backend") if given[name] is not None}
    if served:
        for name in ("base", "bf16"):
            if given[name]:
                raise click.UsageError(f"--{name} can't be combined with --{', --'.join(served)}")
        subject = load_backend_subject(
            model, device=given["device"], threads=threads, batch_tokens=given["batch_tokens"], **served
        )
    else:
        subject = load_subject(
            model, base=given["base"], device=given["device"], bf16=given["bf16"], batch_tokens=given["batch_tokens"]
        )
    corpus = given["baseline_corpus"]
    options = Options(
        ngrams=Ngrams(corpus, subject.tokenizer, threads=threads) if corpus else None,
        columns=tuple(name.strip() for name in given["columns"].split(",")) if given["columns"] else None,
        names=tuple(named_pairs(given["names"], "--label-name", "LABEL=NAME")),
        fields=tuple(named_pairs(given["fields"], "--field", "NAME=COLUMN")),
        calibrate=not given["no_calibration"],
        threads=threads,
        **{
            name: given[name]
            for name in (
                "limit", "stride", "train", "text_field", "label_field", "shots", "prompt", "seed", "max_tokens", "tasks",
            )
        },
    )  # fmt: skip
    return subject, options
