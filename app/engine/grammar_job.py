"""One grammar being compiled, for all the requests that wait for it, and the time it has taken."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.engine.messages import Grammar, GrammarError

if TYPE_CHECKING:
    from app.engine.grammar import Constraint

_PATIENCE = 6  # how many times longer than it may compute a grammar may take, where others keep the processors busy


@dataclass(eq=False)
class GrammarJob:
    """`over`: its futures have been told, or are about to be, by whoever came first: the compiling thread or the clock."""

    grammar: Grammar
    futures: "list[Future[Constraint]]"
    over: bool = False
    clock: threading.Timer | None = None
    _began: float = 0.0
    _cpu: int | None = None  # the clock of the compiling thread's own time; None where there are no such clocks
    _cpu_began: float = 0.0

    def start_clocks(self) -> None:
        """Time runs from now on. To be called on the thread that compiles."""
        self._began = time.monotonic()
        if hasattr(time, "pthread_getcpuclockid"):  # not on a Mac
            self._cpu = time.pthread_getcpuclockid(threading.get_ident())
            self._cpu_began = time.clock_gettime(self._cpu)

    def seconds_left(self, seconds: float) -> float:
        """At least so long until it has computed for `seconds`, or waited for a processor for too long. Only while its thread
        is alive."""
        left = self._began + _PATIENCE * seconds - time.monotonic()
        if self._cpu is not None:
            left = min(left, self._cpu_began + seconds - time.clock_gettime(self._cpu))
        return left

    def tell(self, make: "Callable[[], Constraint] | None" = None, *, error: GrammarError | None = None) -> None:
        """Give each request that still waits a constraint of its own, or the error."""
        for future in self.futures:
            if not future.set_running_or_notify_cancel():
                continue
            if make is None:
                future.set_exception(error)
            else:
                future.set_result(make())
