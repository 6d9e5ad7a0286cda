"""Ctrl-C while a command's first imports run, before anything could take it: the end that it has later, in place of a traceback.

To be imported before all else, and `over` when the imports are done.
"""

import os
import signal
from types import FrameType
from typing import NoReturn


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    try:
        os.write(2, b"homegrown: interrupted\n")
    finally:
        os._exit(130)


def _take_over() -> bool:
    """Whether Ctrl-C is ours to take: somebody who imports this as a library, or ignores it, may see to it."""
    try:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _end)
            return True
    except ValueError:  # not the main thread
        pass
    return False


_taken = _take_over()


def over() -> None:
    """KeyboardInterrupt again, which `main` takes."""
    if _taken:
        signal.signal(signal.SIGINT, signal.default_int_handler)
