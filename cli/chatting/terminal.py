"""The terminal: lines typed with history and editing, answers as they come."""

import io
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import click

from cli.screen import harmless

try:
    import readline
except ImportError:  # not every build of Python has it; lines can still be typed
    readline = None

_MOST_LINES = 2000


def default_history() -> Path:
    """$XDG_STATE_HOME/homegrown/chat_history, by default under ~/.local/state."""
    root = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(root) / "homegrown" / "chat_history"


class Terminal:
    """Where a person types, or what a script pipes in."""

    def __init__(self, history: Path | None, complete: Callable[[str], Sequence[str]]) -> None:
        """`history`: a file of typed lines, None for none; `complete`: what a line so far could become."""
        self.interactive = sys.stdin.isatty()
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="replace")  # a text that isn't UTF-8
        self._styled = sys.stdout.isatty()
        self._editing = self.interactive and readline is not None
        self._history = history if self._editing else None
        if self._editing:
            self._prepare(complete)

    def _prepare(self, complete: Callable[[str], Sequence[str]]) -> None:
        assert readline is not None
        lines, found = readline, list[str]()

        def completer(_word: str, state: int) -> str | None:
            if state == 0:
                found[:] = complete(lines.get_line_buffer())
            return found[state] if state < len(found) else None

        readline.set_completer(completer)
        readline.set_completer_delims(" \n")
        readline.parse_and_bind("bind ^I rl_complete" if "libedit" in (readline.__doc__ or "") else "tab: complete")
        if self._history is None:
            return
        try:
            self._history.parent.mkdir(parents=True, exist_ok=True)
            self._history.touch(0o600)  # what a person says to a model is nobody else's business
            readline.read_history_file(self._history)
            readline.set_history_length(_MOST_LINES)
            if readline.get_current_history_length() > 2 * _MOST_LINES:
                readline.write_history_file(self._history)  # the last ones alone
        except OSError as error:
            self.note(f"what you type isn't remembered: {self._history}: {error.strerror or error}")
            self._history = None

    def read(self) -> str | None:
        """The next line; None at the end. A line that ends in a backslash goes on in the next one. KeyboardInterrupt when it is
        given up."""
        lines: list[str] = []
        while True:
            try:
                line = input("> " if not lines else ". ") if self.interactive else _piped_line()
            except EOFError:
                if self.interactive:
                    click.echo()
                return "\n".join(lines) if lines else None
            self._remember()
            if not line.endswith("\\"):
                return "\n".join([*lines, line])
            lines.append(line[:-1])

    def note(self, text: str, *, problem: bool = False) -> None:
        """Something that is not part of the conversation, on stderr; a server's words may be in it."""
        click.secho(harmless(text), err=True, fg="red" if problem else None, dim=not problem)

    def show(self, text: str) -> None:
        """A piece of an answer, at once."""
        click.echo(harmless(text) if self._styled else text, nl=False)

    def _remember(self) -> None:
        """Put the line that was typed into the history's file at once: several conversations may share it, and a window may be
        closed at any moment."""
        if self._history is not None and readline is not None and readline.get_current_history_length():
            with suppress(OSError):  # a full disk is no reason to end a conversation
                readline.append_history_file(1, self._history)


def _piped_line() -> str:
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.removesuffix("\n")
