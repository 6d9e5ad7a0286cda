"""Noticing that a client has left, while its answer is being made."""

import asyncio
from collections.abc import Callable

from starlette.types import Receive


class ClientWatch:
    """Calls `on_leave` when the connection closes. Begin it after the request's body has been read; `stop` ends it.

    Also leaving before the first byte of an answer, or while the request is still queued, is noticed so.
    """

    def __init__(self, receive: Receive, on_leave: Callable[[], None]) -> None:
        self._task = asyncio.create_task(self._run(receive, on_leave))

    def stop(self) -> None:
        """Watch no longer, and cancel what is left: after a complete answer `on_leave` has nothing to do."""
        self._task.cancel()

    @staticmethod
    async def _run(receive: Receive, on_leave: Callable[[], None]) -> None:
        try:
            while (await receive())["type"] != "http.disconnect":
                pass
        finally:
            on_leave()
