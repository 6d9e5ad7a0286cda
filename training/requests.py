"""What instruction and preference tuning share on the way from files to prompts: rows read and split, templates chosen."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from model.errors import ConfigError
from training.data.dialogues import Chat, Instruction, Request
from training.data.shards import split_of
from training.data.tables import Row, read_rows, required
from training.errors import DataError
from training.finetune import Start
from training.instruct_recipe import DialogueData
from training.templates import Templates, choose_templates

T = TypeVar("T")


@dataclass(frozen=True)
class Split(Generic[T]):
    """The rows of a run, each with the request it begins with. `notes`: how many there are and what was left out, in words."""

    train: list[tuple[Request, T]]
    validation: list[tuple[Request, T]]
    notes: list[str]

    @property
    def requests(self) -> Iterable[Request]:
        """The first request of every row."""
        return (request for request, _ in (*self.train, *self.validation))


def read_split(
    paths: Sequence[Path | str], data: DialogueData, seed: int, read: Callable[[Row], tuple[Request, T] | None]
) -> Split[T]:
    """The rows of the files, split into training and validation: by the files of `data.validation`, else by a hash of each row's
    first request or of `data.split_field`. `read` makes of a row what is wanted of it; None when it has no answer to learn.

    Rows of the training side whose request is on the validation side are left out. DataError when a side is left empty.
    """
    given = list(_read(paths, data, read))
    if data.validation:
        rows = {"train": given, "validation": list(_read(data.validation, data, read))}
    else:
        rows = {"train": [], "validation": []}
        for item in given:
            rows[split_of(item[0], data.validation_fraction, seed)].append(item)
    kept = {side: [made for _, made in items if made is not None] for side, items in rows.items()}
    held_out = {request.shown for request, _ in kept["validation"]}
    train = [made for made in kept["train"] if made[0].shown not in held_out]
    counts = {
        "without an answer to learn": sum(map(len, rows.values())) - sum(map(len, kept.values())),
        "whose request is in the validation rows too": len(kept["train"]) - len(train),
    }
    notes = [f"{len(train):,} rows to learn from, {len(kept['validation']):,} to validate with"]
    notes += [f"left out: {count:,} rows {reason}" for reason, count in counts.items() if count]
    for side, found in (("training", train), ("validation", kept["validation"])):
        if not found:
            raise DataError(
                f"no {side} row ({'; '.join(notes)}): give more rows, validation files, or another validation_fraction than "
                f"{data.validation_fraction:g}"
            )
    return Split(train, kept["validation"], notes)


def _read(
    paths: Sequence[Path | str], data: DialogueData, read: Callable[[Row], tuple[Request, T] | None]
) -> Iterable[tuple[str, tuple[Request, T] | None]]:
    """(what decides the row's side, what was made of the row)."""
    for row in read_rows(paths, columns=data.columns):
        made = read(row)
        request = "" if made is None else made[0].shown
        yield required(row, data.split_field) if data.split_field else request, made


def templates_for(started: Start, data: DialogueData, requests: Iterable[Request]) -> Templates:
    """The templates to tune a model with for such requests (see choose_templates)."""
    kinds = {type(request) for request in requests}
    return choose_templates(
        started.base,
        started.tokenizer,
        started.model.config,
        data.template,
        instructions=Instruction in kinds,
        chats=Chat in kinds,
    )


def token_limit(started: Start, data: DialogueData) -> int:
    """The positions that an example may take. ConfigError when `data.max_tokens` is more than the model's context."""
    context = started.model.config.context_length
    if data.max_tokens is not None and data.max_tokens > context:
        raise ConfigError(f"data.max_tokens is {data.max_tokens}, but the model's context is {context} tokens")
    return data.max_tokens or context
