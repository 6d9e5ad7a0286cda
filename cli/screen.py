"""What commands show on a terminal besides their result, and how they take Ctrl-C."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click

# What could move the cursor, rename the window or worse: all control characters but line end and tab.
_CONTROLS = {code: None for code in (*range(0x20), 0x7F, *range(0x80, 0xA0)) if chr(code) not in "\n\t"}


def harmless(text: str) -> str:
    """A model's text without control characters: a terminal would obey them."""
    return text.translate(_CONTROLS)


def whole(text: str) -> str:
    """A text that UTF-8 can carry: U+FFFD in the place of half a surrogate pair, as Python makes of bytes on the command line that
    aren't UTF-8."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@contextmanager
def busy(what: str) -> Iterator[None]:
    """Shows on a terminal what is being waited for, as long as it takes; for work whose end can't be told beforehand."""
    shown = sys.stderr.isatty()
    if shown:
        click.secho(f"{what} ...", err=True, nl=False, dim=True)
    try:
        yield
    finally:
        if shown:
            click.echo("\r\x1b[K", err=True, nl=False)


@contextmanager
def one_interrupt() -> Iterator[None]:
    """Within it the first Ctrl-C raises KeyboardInterrupt, and more of them do nothing: what tidies up is not cut short in turn."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
