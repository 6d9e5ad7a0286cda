"""Which metrics and labels a PromQL expression asks for: enough of its grammar for our own alerts and dashboards."""

import re
from collections.abc import Iterator
from typing import NamedTuple

_STRING = r'"(?:\\.|[^"\\])*"'
_SELECTOR = re.compile(rf"([A-Za-z_:][\w:]*)\s*(?:\{{((?:{_STRING}|[^}}\"])*)\}})?")
_MATCHER = re.compile(rf"(\w+)\s*(=~|!~|!=|=)\s*({_STRING})")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_WORDS = frozenset({"and", "or", "unless", "bool", "offset", "inf", "nan"})


class Matcher(NamedTuple):
    """One `label=~"value"`."""

    label: str
    operator: str
    value: str


class Selector(NamedTuple):
    """A metric's name with what is asked of its labels."""

    metric: str
    matchers: tuple[Matcher, ...]


def selectors(expression: str) -> Iterator[Selector]:
    """The selectors of an expression."""
    text = re.sub(r"\[[^\]]*\]", "", _GROUPING.sub("", expression))
    for match in _SELECTOR.finditer(text):
        if text[match.start() - 1 : match.start()].isdigit():  # 5e3, 10m
            continue
        called = text[match.end() :].lstrip().startswith("(")
        if called or match[1].lower() in _WORDS:
            continue
        yield Selector(match[1], tuple(Matcher(m[1], m[2], m[3][1:-1]) for m in _MATCHER.finditer(match[2] or "")))
