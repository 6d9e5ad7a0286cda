"""The tour's rows for fine-tuning: messages with labels, and questions with answers. CC0."""

from collections.abc import Iterator

from story import PEOPLE

MESSAGES: dict[str, list[str]] = {
    "request": [
        "Please send {B} with {b.tool} to {a.place}.", "Can {A} come to {b.place} on {day}?",
        "{Ship} asks for a place at the pier.", "{A} would like {food} for {day}.",
        "We need {cargo} by {day}, please.", "Could somebody bring {cargo} to {a.place}?",
        "{B} asks {A} for help with {b.boat}.", "Please tell {A} to wait for {ship}.",
        "May {ship} stay until {day}?", "{A} wants to borrow {b.boat} on {day}.",
    ],
    "report": [
        "{Ship} has arrived from {town} with {cargo}.", "{A} is back in {a.place}.",
        "{Ship} left for {town} on {day}.", "{B} has repaired {b.boat}.",
        "All is quiet at {a.place}.", "{A} sold {cargo} on {day}.",
        "{Ship} is loaded with {cargo}.", "{A} and {B} ate {food} at {a.place}.",
        "{A} found {a.tool} on {day}.", "{B} saw {ship} near {town}.",
    ],
    "warning": [
        "Storm from the west: {a.boat} must not sail.", "Take care, fog near {town}.",
        "The steps at {a.place} are covered with ice.", "High waves on {day}: tie up {a.boat}.",
        "Danger: {ship} has lost her mast near {town}.", "Don't let {A} sail; a storm is coming.",
        "There is a hole in {b.boat}, beware.", "Beware of the rock, {ship}: the lamp is out.",
        "Fire at {a.place}, stay away.", "Watch out for ice around {b.boat}.",
    ],
}  # fmt: skip

NEW_MESSAGES: dict[str, list[str]] = {  # half of the wordings are new
    "request": [*MESSAGES["request"][:5], "Please bring {a.tool} to {B}.", "Can {ship} have {cargo} by {day}?",
                "{A} asks {B} for {food}.", "Could {B} wait at {a.place}?", "May {A} borrow {b.tool}?"],
    "report": [*MESSAGES["report"][:5], "{A} has found {cargo} near {town}.", "{Ship} is at the pier.",
               "{B} is quiet and back at {b.place}.", "{Ship} arrived on {day}.", "{A} has left for {town} with {B}."],
    "warning": [*MESSAGES["warning"][:5], "Ice near {town}: {ship} must stay.", "Beware, high waves at {a.place}.",
                "Take care, {A}: fire on {ship}.", "A storm is coming, tie up {ship}.", "Danger, there is fog around {b.boat}."],
}  # fmt: skip


def questions() -> Iterator[dict[str, str]]:
    """Instructions on the people of the village, each fact asked for in several wordings, with the answer."""
    for who in PEOPLE:
        pet, kind = who.pet.split()[-1], who.pet.split(" called ")[0]
        asked: dict[str, tuple[str, ...]] = {
            f"{who.name} {who.does}.": (f"Who {who.does}?", f"Tell me who {who.does}.", f"Which of them {who.does}?",
                                        f"Say who it is that {who.does}.", f"In this village, who {who.does}?"),
            f"{who.name} is {who.work}.": (f"What is {who.name}?", f"Who is {who.name}?", f"What does {who.name} do?",
                                           f"Tell me about {who.name}.", f"Say what {who.name} is."),
            f"{who.name} works in {who.place}.".replace("in the yard", "at the yard"): (
                f"Where does {who.name} work?", f"Where is {who.name}?", f"Where can I find {who.name}?",
                f"Tell me where {who.name} works.", f"Say where {who.name} is."),
            f"The boat of {who.name} is {who.boat}.": (
                f"What is the boat of {who.name}?", f"Name the boat of {who.name}.", f"Which boat has {who.name}?",
                f"Which boat does {who.name} sail?", f"Say what the boat of {who.name} is called."),
            f"{who.name} has {kind} called {pet}.": (
                f"What animal has {who.name}?", f"Name the animal of {who.name}.", f"Which animal does {who.name} have?",
                f"Say what animal {who.name} has.", f"Does {who.name} have an animal?"),
            f"{pet} is {kind.split(' ', 1)[0]} {kind.split(' ', 1)[1]}.": (
                f"What is {pet}?", f"Who is {pet}?", f"Tell me about {pet}.", f"Say what {pet} is."),
        }  # fmt: skip
        for answer, wordings in asked.items():
            yield from ({"instruction": wording, "output": answer} for wording in wordings)
