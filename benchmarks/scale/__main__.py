"""The plan's tables, printed or written into docs/scale.md; see the package."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.scale import __doc__ as about
from benchmarks.scale.markdown import filled
from benchmarks.scale.scenarios import SCENARIOS, Row
from benchmarks.scale.tables import SIMULATED, all_tables, kept

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"
PICTURE = PAGE.parent / "images" / "scale-nodes-and-load.png"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print or write; 1 where the page has other marks than there are tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--simulate", action="store_true", help="run the simulations; else what they last found is shown"
    )
    parser.add_argument("--write", action="store_true", help="put the tables into docs/scale.md, and draw its picture")
    options = parser.parse_args(arguments)
    simulated = simulate_all() if options.simulate else None
    tables = all_tables(simulated)
    if not options.write:
        print("\n".join(f"## {name}\n\n{text}" for name, text in tables.items()))
        return 0
    if simulated is not None:
        SIMULATED.write_text(json.dumps(simulated, indent=1) + "\n", "utf-8")
    try:
        PAGE.write_text(filled(PAGE.read_text("utf-8"), tables), "utf-8")
    except ValueError as error:
        print(f"{PAGE}: {error}", file=sys.stderr)
        return 1
    from benchmarks.scale.plots import draw  # matplotlib is slow to import

    draw(kept()["loads"], PICTURE)
    print(PAGE, PICTURE, sep="\n")
    return 0


def simulate_all() -> dict[str, list[Row]]:
    """Every scenario's rows, rounded to what is worth keeping; its time goes to standard error."""
    found: dict[str, list[Row]] = {}
    for name, scenario in SCENARIOS.items():
        begun = time.process_time()
        found[name] = [{key: _short(value) for key, value in row.items()} for row in scenario()]
        print(f"{name}: {time.process_time() - begun:.1f} s", file=sys.stderr)
    return found


def _short(value: str | float) -> str | float:
    return float(f"{value:.5g}") if isinstance(value, float) else value


if __name__ == "__main__":
    sys.exit(main())
