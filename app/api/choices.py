"""The answers to one request: several prompts, several choices of each, all of them streams of one engine."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Self

from fastapi import Request
from starlette.responses import Response

from app.api.logprobs import report_size
from app.api.routing import get_service
from app.engine.messages import Delta
from app.engine.stream import GenerationStream
from app.http.disconnect import ClientWatch


class Choices:
    """Streams by index, as one iterator of (index, delta). The first that fails ends them all: its error is raised.

    A wait that is cancelled (for a ping, say) loses nothing.
    """

    def __init__(self, streams: Sequence[GenerationStream]) -> None:
        self._streams = streams
        self._next: dict[asyncio.Task[Delta | None], int] = {}
        self._ready: list[tuple[int, Delta]] = []
        self._begun = False

    def cancel(self) -> None:
        """Give up what has not ended."""
        for stream in self._streams:
            stream.cancel()

    def _fail(self, error: BaseException) -> None:
        """End the others like the one that failed, so that they are counted alike."""
        if not isinstance(error, Exception):
            self.cancel()
        for stream in self._streams:
            stream.fail(error, cause=error.__cause__)

    async def collect(self) -> list[Delta]:
        """The whole answers, in the streams' order."""
        try:
            if len(self._streams) == 1:
                return [await self._streams[0].collect()]
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(stream.collect()) for stream in self._streams]
            return [task.result() for task in tasks]
        except BaseExceptionGroup as errors:
            self._fail(errors.exceptions[0])
            raise errors.exceptions[0] from None
        except BaseException as error:
            self._fail(error)
            raise

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[int, Delta]:
        """The next delta of any of them, as they come."""
        if len(self._streams) == 1:  # no tasks: one request alone is to be answered at once
            return 0, await anext(self._streams[0])
        if not self._begun:
            self._begun = True
            for index in range(len(self._streams)):
                self._ask(index)
        while not self._ready:
            if not self._next:
                raise StopAsyncIteration
            done, _ = await asyncio.wait(self._next, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=self._next.__getitem__):
                self._take(task)
        return self._ready.pop(0)

    def _ask(self, index: int) -> None:
        task = asyncio.create_task(_or_none(self._streams[index]))
        # Read, whatever becomes of it: of several that fail, or behind a reader that has gone, none is to be logged as lost.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._next[task] = index

    def _take(self, task: asyncio.Task[Delta | None]) -> None:
        index = self._next.pop(task)
        try:
            delta = task.result()
        except BaseException as error:
            self._fail(error)
            for other in self._next:
                other.cancel()
            raise
        if delta is not None:
            self._ready.append((index, delta))
            self._ask(index)


async def _or_none(stream: AsyncIterator[Delta]) -> Delta | None:
    return await anext(stream, None)


async def send_whole(request: Request, choices: Choices, render: Callable[[list[Delta]], bytes]) -> Response:
    """The answer in one piece: `render` makes its JSON of the whole answers, beside the event loop where they are long. A client
    that leaves before ends them."""
    watch = ClientWatch(request.receive, choices.cancel)
    try:
        deltas = await choices.collect()
        content = await get_service(request).off_loop(lambda: render(deltas), report_size(deltas))
        return Response(content, media_type="application/json")
    finally:
        watch.stop()
