"""Tables in Markdown, figures as people read them, and their places in a document."""

import re
from collections.abc import Mapping, Sequence

_MARK = re.compile(r"(<!-- scale: (?P<name>[a-z-]+) -->\n)(?P<body>.*?)(<!-- scale end -->)", re.DOTALL)
_TIMES = ((1e-3, "µs", 1e-6), (1.0, "ms", 1e-3), (120.0, "s", 1.0), (7200.0, "min", 60.0), (172_800.0, "h", 3600.0))
_YEAR = 365.25 * 86400


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; every row as long as the head."""
    if any(len(row) != len(head) for row in rows):
        raise ValueError(f"a row has another length than the head {head}")
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def number(value: float, digits: int = 2) -> str:
    """At least `digits` significant digits, no more behind the point: 0.012, 3.4, 56, 7,891."""
    if value != value:
        return "-"
    if value == 0:
        return "0"
    size = abs(value)
    places = 0 if size >= 10 ** (digits - 1) - 0.05 else digits - 1 - _exponent(size, digits)
    return f"{value:,.{places}f}"


def _exponent(size: float, digits: int) -> int:
    """Of ten, once rounded: 0.999 is 1.0."""
    return int(f"{size:.{digits - 1}e}".partition("e")[2])


def metric(value: float, unit: str) -> str:
    """With a prefix: 1.2 TB, 790 TFLOP/s."""
    for factor, prefix in (
        (1e24, "Y"),
        (1e21, "Z"),
        (1e18, "E"),
        (1e15, "P"),
        (1e12, "T"),
        (1e9, "G"),
        (1e6, "M"),
        (1e3, "k"),
    ):
        if abs(value) >= 0.9995 * factor:
            return f"{number(value / factor)} {prefix}{unit}"
    return f"{number(value)} {unit}"


def count(value: float) -> str:
    """A number of things: 1.3 B, 4.2 M, 28 k."""
    for factor, name in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * factor:
            return f"{number(value / factor)} {name}"
    return number(value)


def seconds(value: float) -> str:
    """A time in the unit that suits it."""
    if value == 0:
        return "0"
    for below, unit, size in _TIMES:
        if value < below:
            return f"{number(value / size)} {unit}"
    return f"{number(value / 86400)} days" if value < 2 * _YEAR else f"{number(value / _YEAR)} years"


def percent(value: float) -> str:
    """A share: 0.4 %, 12 %, 99.1 %."""
    if value != value:
        return "-"
    hundred = 100 * value
    if 0 < abs(hundred) < 0.05:
        return "0 %" if abs(hundred) < 1e-4 else "under 0.1 %"
    plain = hundred == 0 or 1 <= abs(hundred) < 99 or abs(hundred) >= 100
    return f"{hundred:,.0f} %" if plain else f"{hundred:.1f} %"


def dollars(value: float) -> str:
    """$ 3.4, $ 870, $ 12 k, $ 1.3 M."""
    for factor, prefix in ((1e6, " M"), (1e3, " k")):
        if value >= 0.995 * factor:
            return f"${number(value / factor)}{prefix}"
    return f"${number(value)}"


def filled(document: str, tables: Mapping[str, str]) -> str:
    """The document with what `tables` has between its marks; other marks keep what they hold. ValueError for a name that has no
    place in it, and for a place whose name isn't known."""
    places = [match["name"] for match in _MARK.finditer(document)]
    if missing := sorted(set(tables) - set(places)):
        raise ValueError(f"the document has no place for {', '.join(missing)}")
    return _MARK.sub(lambda m: m[1] + (tables[m["name"]] if m["name"] in tables else m["body"]) + m[4], document)


def places(document: str) -> dict[str, str]:
    """What stands between the marks, by name."""
    return {match["name"]: match["body"].strip("\n") + "\n" for match in _MARK.finditer(document)}
