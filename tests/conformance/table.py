"""Reports of the conformance suite side by side: python table.py ours=a.json theirs=b.json prints a Markdown table.

A cell is yes, no, how many of a rule's cases passed, or - where the server was not asked.
"""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

Rule = tuple[str, str]  # group, rule


def cells(report: list[dict[str, Any]]) -> dict[Rule, str]:
    """What stands in a server's column."""
    found: dict[Rule, Counter[str]] = {}
    for case in report:
        found.setdefault((case["group"], case["rule"]), Counter())[case["outcome"]] += 1
    return {rule: _cell(outcomes) for rule, outcomes in found.items()}


def table(reports: dict[str, list[dict[str, Any]]]) -> str:
    """The Markdown table of reports by server name."""
    columns = {name: cells(report) for name, report in reports.items()}
    rules = list(dict.fromkeys(rule for column in columns.values() for rule in column))
    lines = [f"| | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    group = None
    for rule in rules:
        if rule[0] != group:
            group = rule[0]
            lines.append(f"| **{group.replace('_', ' ').capitalize()}** |{' |' * len(columns)}")
        lines.append(f"| {rule[1]} | {' | '.join(column.get(rule, '-') for column in columns.values())} |")
    sums = [f"{_passed(report)} of {_asked(report)}" for report in reports.values()]
    lines.append(f"| **Cases passed** | {' | '.join(sums)} |")
    return "\n".join(lines)


def _cell(outcomes: Counter[str]) -> str:
    asked = outcomes["passed"] + outcomes["failed"]
    if not asked:
        return "-"
    if not outcomes["failed"]:
        return "yes"
    return f"{outcomes['passed']} of {asked}" if outcomes["passed"] else "no"


def _passed(report: list[dict[str, Any]]) -> int:
    return sum(case["outcome"] == "passed" for case in report)


def _asked(report: list[dict[str, Any]]) -> int:
    return sum(case["outcome"] != "skipped" for case in report)


if __name__ == "__main__":
    given = dict(argument.partition("=")[::2] for argument in sys.argv[1:])
    print(table({name: json.loads(Path(file).read_text("utf-8")) for name, file in given.items()}))
