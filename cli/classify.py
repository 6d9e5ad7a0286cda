"""`homegrown classify`: the texts of a file, labelled."""

from pathlib import Path
from typing import Any

import click

from cli.options import MODEL, engine_options, engine_spec, json_option, say_result


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--model", type=MODEL, help="A classifier, or with --label any model that generates; a directory or a name."
)
@click.option("--adapter", help="An adapter that the model carries, by name, or its directory.")
@click.option(
    "--label", "labels", multiple=True, help="For a model that is no classifier: a label to choose; name each."
)
@click.option(
    "--examples",
    type=click.Path(path_type=Path),
    help="With --label: a file of rows to show first (few-shot), their texts in the same column, their labels in one called label.",
)
@click.option(
    "--template", help="With --label: how a text and its label are shown, as 'Review: {text}\\nTone: {label}'."
)
@click.option("--text-field", default="text", show_default=True, help="The column or key of the text.")
@click.option("--label-field", default="label", show_default=True, help="What the answer's column is called.")
@click.option("--columns", metavar="A,B", help="The columns of a .csv or .tsv file without a header line.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="The file to write, of any of these kinds, by default FILE.classified.csv (or as FILE's name ends); - prints a line of "
    "JSON for each row as it is done.",
)
@click.option("--resume", is_flag=True, help="Go on with what an interrupted run has done.")
@click.option("--force", is_flag=True, help="Replace the file to write, and begin anew.")
@engine_options
@json_option("what was done")
def classify(file: Path, out: Path | None, resume: bool, force: bool, as_json: bool, **given: Any) -> None:
    """Label the texts of FILE (.csv, .tsv, .jsonl, .json or .parquet): its rows come out with the likeliest label and every
    label's probability.

    The model is a classifier (from homegrown finetune classify: a model, or an adapter), or, with --label, a language model that
    finds the likeliest of your labels. A row without a text gets no label. The new file appears when it is whole; what was done
    before Ctrl-C is kept for --resume.

    \b
    homegrown classify reviews.csv --model runs/reviews/model --text-field review
    homegrown classify mails.jsonl --label urgent --label later --examples few.csv
    homegrown classify tickets.parquet --model models/trunk --adapter topics --out labelled.csv
    homegrown classify reviews.csv --model runs/reviews/model --out - | head
    """
    from cli.labelling.command import Order, run

    if resume and force:
        raise click.UsageError("--resume goes on, and --force begins anew: give one of them")
    printed = out is not None and str(out) == "-"
    if printed and (as_json or resume or force):
        raise click.UsageError("--out - prints the rows as they are done; --json, --resume and --force are for a file")
    order = Order.of(file, None if printed else out or _beside(file), engine_spec(given), given)
    done = run(order, resume=resume, force=force)
    if done is not None:
        say_result(as_json, done, _told(done))


def _beside(file: Path) -> Path:
    """reviews.classified.csv for reviews.csv.gz."""
    from training.data.archives import COMPRESSIONS

    plain = Path(file.stem) if file.suffix.lower() in COMPRESSIONS else Path(file.name)
    return file.with_name(f"{plain.stem}.classified{plain.suffix}")


def _told(done: dict[str, Any]) -> str:
    counts = ", ".join(f"{name} {count:,}" for name, count in done["counts"].items())
    lines = [f"{done['out']}: {done['rows']:,} rows: {counts}"]
    if done["blank"]:
        lines.append(f"{done['blank']:,} rows have no text, and got no label")
    if done["truncated"]:
        lines.append(f"{done['truncated']:,} texts were too long; their ends were not read")
    if done["rows_per_second"]:
        lines.append(f"{done['rows_per_second']:,.0f} rows a second")
    return "\n".join(lines)
