"""Who answers a conversation: what every such backend offers, and the error for one that has become too long."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Protocol

from cli.chatting.conversation import Message
from model.errors import HomegrownError


@dataclass
class Sampling:
    """How answers are drawn; None: as the backend does by default."""

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Ended:
    """How an answer ended: `reason` is "stop" or "length" (it was cut). The counts are of tokens, None where not told."""

    reason: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Backend(Protocol):
    """A place where models answer."""

    @property
    def model(self) -> str:
        """The one in use."""
        ...

    def names(self) -> list[str]:
        """The models that could be used."""
        ...

    def use(self, name: str) -> None:
        """Answer with another model from now on. HomegrownError, and nothing has changed, when it can't be had."""
        ...

    def answer(self, messages: Sequence[Message], sampling: Sampling) -> Generator[str | Ended]:
        """The answer as it comes, and last how it ended. To leave it early stops it. HomegrownError says why there is none."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


class TooLong(HomegrownError):
    """The conversation doesn't fit the model's context."""

    def __init__(self, said: str) -> None:
        super().__init__(f"{said} /forget takes the oldest exchange out, /new begins a conversation anew.")
