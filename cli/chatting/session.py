"""A conversation in the terminal: what is typed goes to the model, and lines that begin with a slash are commands."""

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

from cli.chatting.backends import Backend, Ended, Sampling
from cli.chatting.conversation import Conversation
from cli.chatting.terminal import Terminal
from cli.screen import one_interrupt
from model.errors import HomegrownError

# command -> what stands behind it, what it does
HELP = {
    "/help": ("", "Show this."),
    "/system": ("[TEXT | none]", "Show or set what stands before the conversation."),
    "/model": ("[NAME]", "Show the models, or answer with another."),
    "/set": ("[NAME VALUE]", "Show or set temperature, top_p, max_tokens, seed; VALUE none: the default."),
    "/retry": ("", "Take the last answer back and ask again."),
    "/new": ("", "Begin a conversation anew."),
    "/forget": ("[N]", "Take the oldest exchange out, or N of them, to make room."),
    "/save": ("[-f] FILE", "Write the conversation: .md to read, else JSON. -f replaces a file."),
    "/load": ("FILE", "Go on with a conversation that /save wrote as JSON."),
    "/quit": ("", "Leave; Ctrl-D does too."),
}
_NUMBERS = {"temperature": float, "top_p": float, "max_tokens": int, "seed": int}


class Session:
    """A person, a conversation, and who answers it."""

    def __init__(self, backend: Backend, terminal: Terminal, conversation: Conversation, sampling: Sampling) -> None:
        self._backend, self._terminal = backend, terminal
        self._conversation, self._sampling = conversation, sampling
        self._unanswered: str | None = None  # a question whose answer failed
        self._own_files: set[Path] = set()

    def run(self) -> None:
        """Until the person leaves. Where lines are piped in, HomegrownError for the first that fails."""
        terminal = self._terminal
        if terminal.interactive:
            terminal.note(f"{self._backend.model} is here. /help shows what else there is; Ctrl-C stops an answer.")
        while True:
            try:
                line = terminal.read()
                if line is None or not self._take(line.strip()):
                    return
            except KeyboardInterrupt:
                if not terminal.interactive:
                    raise
                terminal.note("\n(Ctrl-D or /quit leaves)")
            except HomegrownError as error:
                if not terminal.interactive:
                    raise
                terminal.note(str(error), problem=True)

    def completions(self, line: str) -> Sequence[str]:
        """What the last word of a line could become."""
        command, space, rest = line.partition(" ")
        if not space:
            return [f"{name} " for name in HELP if name.startswith(command)] if command.startswith("/") else []
        if command in ("/save", "/load"):
            folder, _, start = rest.rpartition("/")
            with contextlib.suppress(OSError):
                entries = sorted(Path(folder or ("/" if rest.startswith("/") else ".")).expanduser().iterdir())
                front = f"{folder}/" if "/" in rest else ""
                return [f"{front}{p.name}{'/' if p.is_dir() else ''}" for p in entries if p.name.startswith(start)]
        choices = {"/model": self._backend.names, "/set": lambda: [f"{name} " for name in _NUMBERS]}.get(command)
        with contextlib.suppress(HomegrownError):  # a server that is away has no names to offer
            return [name for name in (choices() if choices else ()) if name.startswith(rest)]
        return []

    def _take(self, line: str) -> bool:
        """A line; False when it was the last one."""
        if not line:
            return True
        if not line.startswith("/"):
            self._ask(line)
            return True
        command, _, rest = line.partition(" ")
        if command in ("/quit", "/exit"):
            return False
        if command not in HELP:
            raise HomegrownError(f"there is no {command}; /help shows what there is")
        getattr(self, f"_{command[1:]}")(rest.strip())
        return True

    def _ask(self, question: str) -> None:
        """Show the answer as it comes, and keep it. A question that gets none stays out of the conversation, for /retry."""
        self._unanswered = question
        asked = [*self._conversation.messages, {"role": "user", "content": question}]
        parts: list[str] = []
        ended, begun, stopped = None, time.monotonic(), False
        with one_interrupt():
            try:
                with contextlib.closing(self._backend.answer(asked, self._sampling)) as pieces:
                    for piece in pieces:
                        if isinstance(piece, Ended):
                            ended = piece
                            continue
                        # Models open many an answer with line ends, which are none of its text.
                        shown = piece if parts else piece.lstrip("\n")
                        if shown:
                            parts.append(shown)
                            self._terminal.show(shown)
            except KeyboardInterrupt:
                stopped = True
            finally:
                if parts:
                    self._terminal.show("\n")
        answer = "".join(parts)
        if answer or not stopped:
            self._conversation.add(question, answer)
            self._unanswered = None
        self._tell(answer, ended, stopped, time.monotonic() - begun)
        if stopped and not self._terminal.interactive:
            raise KeyboardInterrupt

    def _tell(self, answer: str, ended: Ended | None, stopped: bool, seconds: float) -> None:
        """What there is to say about an answer."""
        if not self._terminal.interactive:
            return
        if stopped:
            self._terminal.note("(stopped)" if answer else "(stopped; /retry asks again)")
        elif not answer:
            self._terminal.note("(an empty answer; /retry asks again)")
        elif ended is not None:
            count = ended.completion_tokens
            facts = "" if count is None else f"{count} tokens, {count / max(seconds, 1e-3):.0f} a second"
            if ended.reason == "length":
                why = "max_tokens" if count is not None and count == self._sampling.max_tokens else "the context's end"
                facts = f"cut by {why}{', ' if facts else ''}{facts}"
            if facts:
                self._terminal.note(f"({facts})")

    def _help(self, _: str) -> None:
        width = max(len(f"{name} {rest}") for name, (rest, _) in HELP.items())
        for name, (rest, text) in HELP.items():
            self._terminal.note(f"{f'{name} {rest}':<{width}}  {text}")
        self._terminal.note(
            "A line that ends in \\ goes on in the next. Ctrl-C stops an answer; the arrow keys bring lines back."
        )

    def _system(self, text: str) -> None:
        if text:
            self._conversation.system = None if text == "none" else text
        self._terminal.note(f"system: {self._conversation.system or 'none'}")

    def _model(self, name: str) -> None:
        if name:
            self._backend.use(name)
            self._terminal.note(f"{self._backend.model} answers from now on.")
            return
        for each in self._backend.names():
            self._terminal.note(f"{'*' if each == self._backend.model else ' '} {each}")

    def _set(self, text: str) -> None:
        name, _, value = text.partition(" ")
        if name and name not in _NUMBERS:
            raise HomegrownError(f"/set: there is no {name}; there are {', '.join(_NUMBERS)}")
        if name:
            checked_setting(self._sampling, name, value.strip())
        for each in (name,) if name else _NUMBERS:
            found = getattr(self._sampling, each)
            self._terminal.note(f"{each}: {'the default' if found is None else found}")

    def _retry(self, _: str) -> None:
        question = self._unanswered if self._unanswered is not None else self._conversation.take_back()
        if question is None:
            raise HomegrownError("/retry: nothing has been asked yet")
        if self._sampling.seed is not None or self._sampling.temperature == 0:
            self._terminal.note("(with a seed, or temperature 0, the answer is the same again; /set changes them)")
        self._ask(question)

    def _new(self, _: str) -> None:
        self._conversation.turns.clear()
        self._unanswered = None
        self._terminal.note("(a new conversation)")

    def _forget(self, text: str) -> None:
        if text and not (text.isdecimal() and int(text)):
            raise HomegrownError(f"/forget: {text} is no number of exchanges")
        gone = self._conversation.forget(int(text or 1))
        self._terminal.note(f"({gone} taken out, {len(self._conversation.turns) // 2} left)")

    def _save(self, text: str) -> None:
        force, name = (True, text[3:].strip()) if text.startswith("-f ") else (False, text)
        if not name:
            raise HomegrownError("/save: name a file, as in /save talk.json")
        path = Path(name).expanduser()
        if path.is_dir() or (path.exists() and not force and path.resolve() not in self._own_files):
            raise HomegrownError(f"/save: {path} is already there; name another file, or /save -f {name} to replace it")
        try:
            self._conversation.save(path, self._backend.model)
        except OSError as error:
            raise HomegrownError(f"/save: {path} can't be written: {error.strerror or error}") from None
        self._own_files.add(path.resolve())
        self._terminal.note(f"(saved: {os.fspath(path)})")

    def _load(self, text: str) -> None:
        if not text:
            raise HomegrownError("/load: name a file, as in /load talk.json")
        path = Path(text).expanduser()
        loaded = Conversation.load(path)
        self._conversation.system, self._conversation.turns = loaded.system, loaded.turns
        self._unanswered = None
        self._own_files.add(path.resolve())
        self._terminal.note(f"({len(self._conversation.turns) // 2} exchanges; the next line goes on from there)")


def checked_setting(sampling: Sampling, name: str, text: str) -> None:
    """Set one of a Sampling's fields from text; "none" is the default. HomegrownError says what it can be."""
    from model.sampling_params import SamplingParams

    if text == "none":
        setattr(sampling, name, None)
        return
    try:
        value = _NUMBERS[name](text)
    except ValueError:
        raise HomegrownError(
            f"{name}: {text or 'nothing'} is no {'number' if _NUMBERS[name] is float else 'whole number'}"
        ) from None
    if name == "max_tokens":
        if value < 1:
            raise HomegrownError(f"max_tokens: must be at least 1, not {value}")
    else:
        SamplingParams(**{name: value})  # raises
    setattr(sampling, name, value)
