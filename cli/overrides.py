"""Single values of a recipe given on the command line: `--set SECTION.FIELD=VALUE`."""

import tomllib
from collections.abc import Iterable
from typing import Any

import click


def apply_changes(changes: Iterable[str], to: dict[str, Any]) -> dict[str, Any]:
    """Put each SECTION.FIELD=VALUE into the nested tables of `to`, and return it. BadParameter when one has another form, takes a
    value for a table, or a table for a value."""
    for change in changes:
        name, equals, text = change.partition("=")
        *sections, field = name.split(".")
        if not equals or not field:
            raise click.BadParameter(f"{change!r} is not SECTION.FIELD=VALUE", param_hint="--set")
        table = to
        for section in sections:
            table = table.setdefault(section, {})
            if not isinstance(table, dict):
                raise click.BadParameter(f"{change!r}: {section} is no table, so it has no fields", param_hint="--set")
        if isinstance(table.get(field), dict):
            raise click.BadParameter(f"{change!r}: {field} is a table; set one of its fields", param_hint="--set")
        table[field] = _value(text)
    return to


def _value(text: str) -> Any:
    """A value as TOML reads it (true, 3, 0.1, [1, 2]); anything else is a text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def named_pairs(given: Iterable[str], option: str, shape: str) -> list[tuple[str, str]]:
    """The two sides of each NAME=VALUE that `option` was given; `shape` is what it is called. BadParameter when one is empty."""
    pairs = []
    for text in given:
        name, _, value = text.partition("=")
        if not name or not value:
            raise click.BadParameter(f"{text!r} is not {shape}", param_hint=option)
        pairs.append((name, value))
    return pairs
