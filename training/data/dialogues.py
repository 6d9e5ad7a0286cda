"""Rows -> requests and their answers, in the formats that instruction data comes in, told apart by their columns:

messages: a conversation, [{"role", "content"}, ...] (or ShareGPT's `conversations`, [{"from", "value"}, ...]);
instruction, with input and system if there are any, and output (Alpaca's);
prompt and completion: a text and how it goes on, as they stand, without a template.

For preferences: prompt (a text, or messages) or instruction and input, with chosen and rejected.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.data.tables import Row, kind_of, required, whole_characters
from training.errors import DataError
from training.recipe import Section

_SHAREGPT = "conversations"
_ROLES = {"system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}


class Fields(Section):
    """The columns to read, where they have other names."""

    messages: str = "messages"
    instruction: str = "instruction"
    input: str = "input"
    system: str = "system"
    output: str = "output"
    prompt: str = "prompt"
    completion: str = "completion"
    chosen: str = "chosen"
    rejected: str = "rejected"


@dataclass(frozen=True)
class Instruction:
    """A request to be put into the instruction template; `input` and `system` may be empty."""

    instruction: str
    input: str = ""
    system: str = ""

    @property
    def shown(self) -> str:
        """It as a person reads it."""
        return f"{self.instruction}\n\n{self.input}" if self.input else self.instruction


@dataclass(frozen=True)
class Raw:
    """A text to go on with, as it stands."""

    text: str

    @property
    def shown(self) -> str:
        """It as a person reads it."""
        return self.text


@dataclass(frozen=True)
class Chat:
    """A conversation that waits for the assistant: (role, content) of each message, for the chat template."""

    messages: tuple[tuple[str, str], ...]

    @property
    def shown(self) -> str:
        """It as a person reads it."""
        return (
            self.messages[0][1] if len(self.messages) == 1 else "\n\n".join(f"{r}: {text}" for r, text in self.messages)
        )


Request = Instruction | Raw | Chat


@dataclass(frozen=True)
class Turn:
    """A request and the answer to learn."""

    request: Request
    answer: str


@dataclass(frozen=True)
class Dialogue:
    """A row: its turns, each request going on from the one before and its answer. Empty when the row has no answer. `left_out`:
    turns that can't be learned, since they lack an answer or a request."""

    turns: tuple[Turn, ...]
    where: str
    left_out: int = 0


@dataclass(frozen=True)
class Preference:
    """A row: a request, a better answer and a worse one."""

    request: Request
    chosen: str
    rejected: str
    where: str


def read_dialogue(row: Row, fields: Fields) -> Dialogue:
    """The dialogue of a row; answers that are empty are left out. DataError when the row is of no known format, lacks a field, or
    has messages that can't be used."""
    messages = next((name for name in (fields.messages, _SHAREGPT) if name in row.values), None)
    if messages is not None:
        return _conversation(read_messages(row, messages), row.where)
    if fields.instruction in row.values:
        turn = Turn(_instruction(row, fields), required(row, fields.output).strip())
    elif fields.prompt in row.values:
        turn = Turn(Raw(required(row, fields.prompt)), required(row, fields.completion).rstrip())
    else:
        raise _unknown(row, f"{fields.messages!r}, {fields.instruction!r} or {fields.prompt!r}")
    return Dialogue((turn,) if turn.answer.strip() else (), row.where)


def read_preference(row: Row, fields: Fields) -> Preference:
    """The preference of a row. Answers may be texts or messages, which may repeat the request. DataError as read_dialogue, and when
    the two are of different requests."""
    chosen, rejected = (_answer(row, name) for name in (fields.chosen, fields.rejected))
    if fields.instruction in row.values:
        request: Request = _instruction(row, fields)
    elif before := _messages_before(row, fields):
        request = Chat(before)
    elif fields.prompt in row.values and any(
        isinstance(row.values[name], list) for name in (fields.chosen, fields.rejected)
    ):
        request = Chat((("user", required(row, fields.prompt).strip()),))  # the answers are messages, so it is one too
    elif fields.prompt in row.values:
        return Preference(Raw(required(row, fields.prompt)), chosen.rstrip(), rejected.rstrip(), row.where)
    else:
        raise _unknown(row, f"{fields.instruction!r} or {fields.prompt!r}")
    return Preference(request, chosen.strip(), rejected.strip(), row.where)


def _messages_before(row: Row, fields: Fields) -> tuple[tuple[str, str], ...]:
    """The messages that both answers are to: those of the prompt, and those that stand before the answers. Empty when there are
    none. DataError when they aren't the same."""
    names = (fields.prompt, fields.chosen, fields.rejected)
    given = {name: read_messages(row, name) for name in names if isinstance(row.values.get(name), list)}
    before = {name: messages if name == fields.prompt else messages[:-1] for name, messages in given.items()}
    different = {messages: name for name, messages in before.items() if messages}
    if len(different) > 1:
        raise DataError(
            f"{row.where}: {' and '.join(map(repr, different.values()))} are of different requests; both answers must be to one"
        )
    return next(iter(different), ())


def read_messages(row: Row, field: str) -> tuple[tuple[str, str], ...]:
    """A field's conversation as (role, content), blanks around contents removed. DataError names the message that can't be used."""
    value = row.values[field]
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise DataError(f"{row.where}: {field!r} must be a list of messages, found {kind_of(value)}")
    return tuple(_message(message, f"{row.where}: {field}[{n}]") for n, message in enumerate(value))


def _message(message: Any, where: str) -> tuple[str, str]:
    if not isinstance(message, Mapping):
        raise DataError(f"{where}: must be an object with role and content, found {kind_of(message)}")
    role = message.get("role", message.get("from"))
    content = message.get("content", message.get("value"))
    if not isinstance(role, str) or role not in _ROLES:
        raise DataError(f"{where}: its role is {role!r}; it must be system, user or assistant")
    if not isinstance(content, str):
        raise DataError(f"{where}: its content must be a text, found {kind_of(content)}")
    return _ROLES[role], whole_characters(content).strip()


def _conversation(messages: tuple[tuple[str, str], ...], where: str) -> Dialogue:
    turns = [
        Turn(Chat(messages[:n]), content)
        for n, (role, content) in enumerate(messages)
        if role == "assistant" and n and content
    ]
    n_answers = sum(role == "assistant" for role, _ in messages)
    waiting = messages[-1][0] != "assistant"  # for an answer that isn't there
    return Dialogue(tuple(turns), where, n_answers - len(turns) + waiting)


def _instruction(row: Row, fields: Fields) -> Instruction:
    optional = (
        required(row, name).strip() if row.values.get(name) is not None else ""
        for name in (fields.input, fields.system)
    )
    return Instruction(required(row, fields.instruction).strip(), *optional)


def _answer(row: Row, field: str) -> str:
    if isinstance(row.values.get(field), list):
        role, content = read_messages(row, field)[-1]
        if role != "assistant":
            raise DataError(f"{row.where}: the last message of {field!r} must be the assistant's, found the {role}'s")
        return content
    return required(row, field)


def _unknown(row: Row, wanted: str) -> DataError:
    names = ", ".join(map(repr, row.values)) or "none"
    return DataError(
        f"{row.where}: has none of the fields {wanted}, but {names}; name the fields in the recipe ([data.fields])"
    )
