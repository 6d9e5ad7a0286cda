"""One run of `homegrown classify`, from its options to the file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from app.likelihood import DEFAULT_TEMPLATE, LABEL_PLACE, TEXT_PLACE
from cli.labelling.journal import Journal
from cli.labelling.labellers import Labeller, Zeroshot, identity, make_labeller
from cli.labelling.output import check_kind, is_flat, json_line, try_out
from cli.labelling.source import Facts, Source
from cli.labelling.work import Names, Tally, check_names, label_rows, say_stopped, stream_rows, write_output
from cli.local import Chosen, LocalEngine, choose, explained
from cli.screen import busy
from model.errors import ConfigError
from training.data.labelled import read_labelled
from training.data.tables import table_files


@dataclass(frozen=True)
class Order:
    """What was asked for. `out` None: rows are printed as they are done."""

    source: Source
    out: Path | None
    names: Names
    chosen: Chosen
    told: Zeroshot | None
    spec: dict[str, Any]

    @classmethod
    def of(cls, file: Path, out: Path | None, spec: dict[str, Any], given: Mapping[str, Any]) -> "Order":
        """From the command line's options. ConfigError or DataError for what can't be."""
        columns = given["columns"]
        named = tuple(name.strip() for name in columns.split(",")) if columns else None
        told = _told_labels(given["labels"], given["examples"], given["template"], given["text_field"])
        if out is not None:
            check_kind(out)
        chosen = choose(given["model"], given["adapter"])
        return cls(Source(file, given["text_field"], named), out, Names(given["label_field"]), chosen, told, spec)


def _told_labels(
    labels: tuple[str, ...], examples: Path | None, template: str | None, text_field: str
) -> Zeroshot | None:
    """None for a classifier, which needs no telling."""
    if not labels:
        if examples is not None or template is not None:
            raise click.UsageError("--examples and --template are for --label: a classifier needs none")
        return None
    labels = tuple(label.strip() for label in labels)
    if len(labels) < 2 or len(set(labels)) < len(labels) or not all(labels):
        raise ConfigError(f"--label: {', '.join(map(repr, labels))}: give two labels or more, each once, none blank")
    template = DEFAULT_TEMPLATE if template is None else template.replace("\\n", "\n")
    if template.count(TEXT_PLACE) != 1 or template.count(LABEL_PLACE) != 1 or not template.endswith(LABEL_PLACE):
        raise ConfigError(f"--template: must have {TEXT_PLACE} once and end in {LABEL_PLACE}, its only one")
    shown = [] if examples is None else list(read_labelled([examples], text_field=text_field, label_field="label"))
    for row in shown:
        if row.label not in labels:
            raise ConfigError(f"{row.where}: the label {row.label!r} is none of {', '.join(labels)}")
    return Zeroshot(labels, tuple((row.text, row.label) for row in shown), template)


def run(order: Order, *, resume: bool, force: bool) -> dict[str, Any] | None:
    """What was done, for a script; None where the rows were printed."""
    if order.out is None:
        facts = _look(order)
        with LocalEngine(order.chosen.directory, adapters=order.chosen.adapters, **order.spec) as engine, explained():
            _print(order, facts, make_labeller(engine, order.chosen, order.told))
        return None
    # Unfinished work on a file that is there was begun with --force.
    if order.out.exists() and not force and not (resume and _place(order.out).exists()):
        raise ConfigError(f"{order.out}: is already there; name another file with --out, or replace it with --force")
    facts = _look(order)
    journal = _journal(order, order.out, facts, resume=resume, force=force)
    try:
        tally = _fill(order, order.out, facts, journal)
    except KeyboardInterrupt:
        if journal.done:
            say_stopped(journal, facts.rows)
        raise
    finally:
        journal.close()
        if not journal.done:
            journal.remove()  # there is nothing to go on with
    journal.remove()
    return {
        "out": str(order.out),
        "rows": tally.rows,
        "counts": dict(tally.counts),
        "blank": tally.blank,
        "truncated": tally.truncated,
        "model": order.chosen.name,
        "adapter": order.chosen.adapter,
        "seconds": round(tally.seconds, 3),
        "rows_per_second": round(tally.fresh / tally.seconds, 1) if tally.fresh else None,
    }


def _look(order: Order) -> Facts:
    """What the file holds. DataError for a row that can't be read, or that the file to write can't hold."""
    source, out = order.source, order.out
    table_files([source.path])  # that it is there at all
    with busy(f"reading {source.path.name}"):
        if out is None or not is_flat(out):
            return source.look()
        way = {"delimiter": source.delimiter, "schema": source.schema}
        return source.look(lambda rows: try_out(out, rows, **way))


def _place(out: Path) -> Path:
    """Of the journal: beside the file to write."""
    return out.with_name(f".{out.name}.unfinished")


def _journal(order: Order, out: Path, facts: Facts, *, resume: bool, force: bool) -> Journal:
    """What has been done of it, or an empty one."""
    path = _place(out)
    if force:
        path.unlink(missing_ok=True)
    if resume and not path.exists():
        click.echo("there is nothing to go on with; all rows are to be labelled", err=True)
    work = {"texts": facts.sha256, "text_field": order.source.text_field}
    return Journal(path, work | identity(order.chosen, order.told, order.spec), resume=resume)


def _fill(order: Order, out: Path, facts: Facts, journal: Journal) -> Tally:
    """Label what isn't labelled yet, and write the file."""
    with LocalEngine(order.chosen.directory, adapters=order.chosen.adapters, **order.spec) as engine, explained():
        labeller = make_labeller(engine, order.chosen, order.told)
        check_names(order.source, facts.fields, order.names.of(labeller.labels, is_flat(out)))
        tally = Tally.over(labeller.labels)
        label_rows(order.source, labeller, journal, facts.rows, tally)
    write_output(order.source, labeller.labels, journal, order.names, out, tally)
    return tally


def _print(order: Order, facts: Facts, labeller: Labeller) -> None:
    check_names(order.source, facts.fields, order.names.of(labeller.labels, flat=False))
    stream_rows(order.source, labeller, order.names, facts.rows, lambda record: click.echo(json_line(record)))
