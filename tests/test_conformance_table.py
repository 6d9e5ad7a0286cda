"""Reports of the conformance suite become one table."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent / "conformance" / "table.py"


def case(rule: str, outcome: str, group: str = "errors") -> dict[str, str]:
    return {"group": group, "rule": rule, "outcome": outcome}


def test_rules_side_by_side(tmp_path: Path) -> None:
    ours = [case("A.", "passed"), case("A.", "passed"), case("B.", "passed"), case("C.", "passed", "chat")]
    theirs = [case("A.", "passed"), case("A.", "failed"), case("B.", "skipped"), case("C.", "failed", "chat")]
    arguments = []
    for name, report in (("ours", ours), ("theirs", theirs)):
        (tmp_path / name).write_text(json.dumps(report))
        arguments.append(f"{name}={tmp_path / name}")
    out = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines() == [
        "| | ours | theirs |",
        "|---|---|---|",
        "| **Errors** | | |",
        "| A. | yes | 1 of 2 |",
        "| B. | yes | - |",
        "| **Chat** | | |",
        "| C. | yes | no |",
        "| **Cases passed** | 4 of 4 | 1 of 3 |",
    ]
