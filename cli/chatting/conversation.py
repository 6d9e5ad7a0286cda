"""A conversation: its messages, and the files that hold one."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cli.screen import whole
from model.errors import HomegrownError
from model.files import write_whole

Message = dict[str, str | None]


@dataclass
class Conversation:
    """`turns`: what was said, by the user and the assistant in turn. `system`: what stands before it, if anything."""

    system: str | None = None
    turns: list[Message] = field(default_factory=list)

    @property
    def messages(self) -> list[Message]:
        """All of it, as chat templates and servers know it."""
        head: list[Message] = [{"role": "system", "content": self.system}] if self.system else []
        return [*head, *self.turns]

    def add(self, question: str, answer: str) -> None:
        """One exchange."""
        self.turns.append({"role": "user", "content": question})
        self.turns.append({"role": "assistant", "content": answer})

    def take_back(self) -> str | None:
        """Remove the last exchange, and return its question; None when there is none."""
        if len(self.turns) < 2:
            return None
        question = self.turns[-2]["content"]
        del self.turns[-2:]
        return question

    def forget(self, exchanges: int) -> int:
        """Remove the oldest exchanges; how many went."""
        gone = min(exchanges, len(self.turns) // 2)
        del self.turns[: 2 * gone]
        return gone

    def save(self, path: Path, model: str) -> None:
        """Write it, whole or not at all: Markdown where the file's name ends in .md, else JSON that `load` and servers read."""
        if path.suffix.lower() == ".md":
            text = f"# Conversation with {model}\n\n" + "".join(
                f"**{str(message['role']).capitalize()}:**\n\n{message['content']}\n\n" for message in self.messages
            )
        else:
            text = json.dumps({"model": model, "messages": self.messages}, ensure_ascii=False, indent=2) + "\n"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda part: part.write_text(whole(text), "utf-8"), mode=None)

    @classmethod
    def load(cls, path: Path) -> "Conversation":
        """What `save` wrote as JSON, or a list of messages. HomegrownError says what is wrong with the file."""
        try:
            content = json.loads(path.read_text("utf-8"))
        except OSError as error:
            raise HomegrownError(f"{path}: can't be read: {error.strerror or error}") from None
        except ValueError as error:
            raise HomegrownError(f"{path}: not JSON ({error}); /load reads what /save wrote as .json") from None
        messages = content.get("messages") if isinstance(content, dict) else content
        return cls._of(messages, path)

    @classmethod
    def _of(cls, messages: Any, path: Path) -> "Conversation":
        """HomegrownError unless it is a system message or none, then questions and answers in turn."""
        if not isinstance(messages, list):
            raise HomegrownError(f"{path}: messages: must be a list of messages")
        for n, message in enumerate(messages):
            if not isinstance(message, dict) or not isinstance(message.get("content"), str):
                raise HomegrownError(f"{path}: messages[{n}]: must have a role and a text as content")
            if whole(message["content"]) != message["content"]:
                raise HomegrownError(f"{path}: messages[{n}].content: has half a surrogate pair, which is no text")
        head = [m["content"] for m in messages[:1] if m.get("role") in ("system", "developer")]
        turns = messages[len(head) :]
        for n, message in enumerate(turns):
            wanted = "assistant" if n % 2 else "user"
            if message.get("role") != wanted:
                where = n + len(head)
                raise HomegrownError(f"{path}: messages[{where}].role: must be {wanted}: questions and answers in turn")
        if len(turns) % 2:
            raise HomegrownError(f"{path}: messages: the last question has no answer; take it out and ask it again")
        return cls(head[0] if head else None, [{"role": m["role"], "content": m["content"]} for m in turns])
