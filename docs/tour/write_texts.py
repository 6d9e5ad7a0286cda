"""Writes the texts of the tour: python docs/tour/write_texts.py FOLDER

town.txt       pages of the harbour book of Saltmarsh, a village that doesn't exist: what the model learns from
later.txt      pages that it never sees, to measure on
messages.csv   short messages to the harbour with what they are: request, report or warning
more_messages.csv  others, in other words in part, to measure on
questions.jsonl    instructions with answers

The same seed writes the same files. All of it was made for this tour and is in the public domain (CC0).
"""

import csv
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

from rows import MESSAGES, NEW_MESSAGES, questions
from story import ARRIVALS, CARGO, DAYS, FOODS, MONTHS, PEOPLE, PLOTS, SHIPS, TOWNS, WEATHER, Person

PAGES, LATER, PER_LABEL, NEW_PER_LABEL = 250, 18, 100, 40
WINTER = {"November", "December", "January", "February", "March"}
END = "\n<|endoftext|>\n"


def page(draw: random.Random, number: int) -> str:
    """One day's page of the book."""
    day, month = 1 + number * 2 % 28, MONTHS[number // 14 % 12]
    weathers, steps = draw.choice(PLOTS)
    weather = draw.choice([name for name in weathers if name != "snow" or month in WINTER])
    busy = {person.name for person in PEOPLE if f"{{{person.name}}}" in str(steps)}  # has a part in the plot already
    first, second = draw.sample([person for person in PEOPLE if person.name not in busy], 2)
    words = _words(draw, first, second)
    lines = [draw.choice(WEATHER[weather]), draw.choice(ARRIVALS)]
    draw.shuffle(lines)
    lines += [draw.choice(step) for step in steps]
    return f"{DAYS[number % 7]}, {day} {month}\n\n" + " ".join(line.format_map(words) for line in lines)


def _words(draw: random.Random, first: Person, second: Person) -> dict[str, object]:
    """What the sentences of a page may name."""
    ship, (cargo, cargo2) = draw.choice(SHIPS), draw.sample(CARGO, 2)
    food, food2 = draw.sample(FOODS, 2)
    words: dict[str, object] = {person.name: person.name for person in PEOPLE}
    return words | {
        "A": first.name, "B": second.name, "a": _Named(first), "b": _Named(second),
        "Apet": _start(first.pet), "Bpet": _start(second.pet),
        "ship": ship, "Ship": _start(ship), "cargo": cargo, "cargo2": cargo2,
        "food": food, "food2": food2, "town": draw.choice(TOWNS), "day": draw.choice(DAYS),
    }  # fmt: skip


class _Named:
    """A person's facts as a sentence needs them."""

    def __init__(self, person: Person) -> None:
        self.__dict__ |= vars(person)
        self.Boat = _start(person.boat)
        self.does3 = person.does
        self.does = person.does.replace(person.does.split()[0], _plain(person.does.split()[0]), 1)


def _plain(verb: str) -> str:
    """'catches' -> 'catch': the verb as it follows 'I'."""
    return verb[:-2] if verb.endswith("ches") else verb[:-1]


def _start(text: str) -> str:
    return text[:1].upper() + text[1:]


def messages(draw: random.Random, forms: dict[str, list[str]], each: int, known: set[str]) -> Iterator[tuple[str, str]]:
    """Different messages with their labels, `each` of every label, in any order; none of `known`, which grows by them."""
    rows: dict[str, str] = {}
    for label, texts in forms.items():
        found: set[str] = set()
        while len(found) < each:
            first, second = draw.sample(PEOPLE, 2)
            found |= {draw.choice(texts).format_map(_words(draw, first, second))} - known
        known |= found
        rows |= dict.fromkeys(sorted(found), label)
    yield from draw.sample(sorted(rows.items()), len(rows))


def write(folder: Path) -> None:
    """Write all files into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(7)
    pages = [page(draw, number) for number in range(PAGES + LATER)]
    (folder / "town.txt").write_text(END.join(pages[:PAGES]) + "\n", "utf-8")
    (folder / "later.txt").write_text(END.join(pages[PAGES:]) + "\n", "utf-8")
    known: set[str] = set()
    for name, forms, each in (("messages", MESSAGES, PER_LABEL), ("more_messages", NEW_MESSAGES, NEW_PER_LABEL)):
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(["text", "label"])
            rows.writerows(messages(draw, forms, each, known))
    lines = [json.dumps(row) for row in questions()]
    draw.shuffle(lines)
    (folder / "questions.jsonl").write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/tour/write_texts.py FOLDER")
    write(Path(sys.argv[1]))
