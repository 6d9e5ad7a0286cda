"""`homegrown evaluate`: a model's measures on data, each with its convention and beside baselines."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli import needs
from cli.options import MODEL
from cli.overrides import named_pairs
from model.errors import ConfigError

if TYPE_CHECKING:
    from training.evaluate.suite import Evaluation


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
    "--json",
    "json_file",
    is_flag=False,
    flag_value="-",
    metavar="[FILE]",
    help="Print everything as JSON in place of the tables; or write it to FILE beside them, after each set of data.",
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
        from training.evaluate.suite import evaluate as run

        subject, options = _load(model, given)
        quiet = json_file == "-"
        told = _Told(None if quiet or json_file is None else Path(json_file), quiet=quiet)
        _check_places(told.file, out)
        if not quiet:
            click.echo(subject.headline())
        try:
            found = run(subject, targets, options, paper=paper, done=told)
        finally:  # an error in the last set of data, or Ctrl-C, takes nothing of the others'
            told.end()
    if paper and not quiet:
        click.echo(f"\n{found.paper_text()}")
    if out is not None:
        click.echo(f"\n{write_page(found, out)}", err=quiet)


class _Told:
    """What the user gets of each set of data as soon as it is measured: a table, and all so far in `file`; or, `quiet`, one JSON
    at the end."""

    def __init__(self, file: Path | None, *, quiet: bool) -> None:
        self.file, self._quiet = file, quiet
        self._newest: Evaluation | None = None

    def __call__(self, found: "Evaluation") -> None:
        from model.files import write_json
        from training.evaluate.results import table

        self._newest = found
        if not self._quiet:
            click.echo(f"\n{table(found.results[-1])}")
        if self.file is not None:
            write_json(self.file, found.to_json())

    def end(self) -> None:
        """No more comes."""
        if self._quiet and self._newest is not None:
            click.echo(json.dumps(self._newest.to_json(), ensure_ascii=False, indent=2))


def _check_places(file: Path | None, out: Path | None) -> None:
    """Make what is to hold the results, before hours go into them. ConfigError for what can't."""
    if file is not None and file.is_dir():
        raise ConfigError(f"{file}: is a directory; name a file with --json")
    for directory in filter(None, (file and file.parent, out)):
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{directory}: can't be made: {error.strerror}") from None
        if not os.access(directory, os.W_OK):
            raise ConfigError(f"{directory}: can't be written to")


def _load(model: str, given: dict[str, Any]) -> tuple[Any, Any]:
    """The model and the options of the command line."""
    import torch

    from model.processors import available_cpus
    from training.evaluate.ngram_baseline import Ngrams
    from training.evaluate.subject import Options, load_backend_subject, load_subject

    threads = given["threads"] or available_cpus()
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
