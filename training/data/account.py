"""What became of a corpus's documents: how many were kept, and how many were left out, for which reason."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Count:
    """`documents`, and the `bytes` of their UTF-8 text."""

    documents: int = 0
    bytes: int = 0

    def add(self, text: str) -> None:
        """Count one document."""
        self.documents += 1
        self.bytes += utf8_length(text)


@dataclass
class Account:
    """`settings`: what was asked for. `dropped`: by reason, in the order in which the reasons first came up. `cut`: the documents
    that held-out text was cut out of, and how much of it; their parts are documents of their own afterwards."""

    settings: dict[str, Any] = field(default_factory=dict)
    kept: Count = field(default_factory=Count)
    dropped: dict[str, Count] = field(default_factory=dict)
    cut: Count = field(default_factory=Count)

    def drop(self, reason: str, text: str) -> None:
        """Count one document that is left out."""
        self.dropped.setdefault(reason, Count()).add(text)

    def lines(self) -> list[str]:
        """For a person: one line, and one more for each reason."""
        lost = sum(count.documents for count in self.dropped.values())
        share = 100 * lost / max(1, lost + self.kept.documents)
        first = f"kept {_say(self.kept)}; left out {lost:,} documents ({share:.1f} %)"
        cut = [f"  held-out text cut out of {_say(self.cut)} of it"] if self.cut.documents else []
        return [first, *cut, *(f"  {reason}: {_say(count)}" for reason, count in self.dropped.items())]


def utf8_length(text: str) -> int:
    """The number of bytes of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def _say(count: Count) -> str:
    return f"{count.documents:,} documents, {count.bytes / 1e6:,.1f} MB"
