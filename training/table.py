"""A table of a run's figures, for its model card and its report alike."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """`rows`: as many cells each as `header`, shown as they are; the first column names the row. `strong`: the row to stand out.
    `note`: below the table."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    strong: int | None = None

    def markdown(self) -> str:
        """The table and its note; bars and line breaks in cells are kept from breaking it."""
        lines = [_line(self.header), "|" + "---|" * len(self.header)]
        for i, row in enumerate(self.rows):
            lines.append(_line([f"**{cell}**" for cell in row] if i == self.strong else row))
        return "\n".join(lines) + (f"\n\n{self.note}" if self.note else "")


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
