"""Noticing that a client has left, while its answer is being made."""

import asyncio
from collections.abc import Callable

from starlette.types import Receive


class ClientWatch:
    """Calls `on_leave` (perhaps twice) when the connection closes. Begin it after the body has been read; `stop` ends it.

    Also leaving before the first byte of an answer, or while the request is still queued, is noticed so.
    """

    def __init__(self, receive: Receive, on_leave: Callable[[], None]) -> None:
        self._on_leave = on_leave
        self._task = asyncio.create_task(self._run(receive))

    def stop(self) -> None:
        """Watch no longer, and call `on_leave`: whatever the answer has left undone is over."""
        self._task.cancel()
        self._on_leave()

    async def _run(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._on_leave()
