"""Requests with many inputs: each goes through the engine by itself, a few at a time."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from fastapi import Request

from app.api.routing import get_service
from app.engine.messages import InvalidRequest, QueueFull, RequestCancelled, RequestTimeout
from app.http.disconnect import ClientWatch
from app.http.errors import invalid
from model.tokenizer import Tokenizer

T = TypeVar("T")
Job = Callable[[], Coroutine[Any, Any, T]]

_ROOM_SECONDS = 0.02  # how often a full queue is looked at again


def encode_text(tokenizer: Tokenizer, text: str) -> list[int]:
    """A text as classifiers were trained on it: BOS in front where the tokenizer wants it; nothing in it becomes a special token.
    (model.classifier has the same, beside torch.)"""
    ids = tokenizer.encode(text)
    return [tokenizer.bos_token_id, *ids] if tokenizer.add_bos and tokenizer.bos_token_id is not None else ids


async def run_all(request: Request, jobs: Sequence[Job[T]]) -> list[T]:
    """The results of `jobs` (each asks the engine one thing), in their order.

    As many run at once as there are slots, so others' requests get in between. All of it ends when the client leaves
    (RequestCancelled), and when it takes longer than one request may. See also `run_in_turn`.
    """
    service = get_service(request)
    work = run_in_turn(jobs, service.engine.info.slots, service.settings.request_timeout)
    try:
        return await _while_connected(request, work)
    except InvalidRequest as error:
        if error.param == "adapter":  # unloaded meanwhile
            raise invalid(str(error), "model") from None
        raise


async def _while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    task = asyncio.ensure_future(work)
    left = False

    def leave() -> None:
        nonlocal left
        left = not task.done()
        task.cancel()

    watch = ClientWatch(request.receive, leave)
    try:
        return await task
    except asyncio.CancelledError:
        if left:
            raise RequestCancelled("the client has left") from None
        raise
    finally:
        watch.stop()


async def run_in_turn(jobs: Sequence[Job[T]], width: int, limit: float) -> list[T]:
    """The results of `jobs`, in their order; `width` of them run at a time.

    Only the first is refused when the queue is full: what has begun waits for a place. The first job that fails ends the others
    and its error is raised; RequestTimeout when all of it takes longer than `limit` seconds.
    """
    results: dict[int, T] = {}
    todo = iter(enumerate(jobs))

    async def work() -> None:
        for place, job in todo:
            results[place] = await (job() if place == 0 else _when_there_is_room(job))

    try:
        async with asyncio.timeout(limit), asyncio.TaskGroup() as group:
            for _ in range(min(width, len(jobs))):
                group.create_task(work())
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    except TimeoutError:
        text = "The request took longer than this server allows; send fewer inputs in one."
        raise RequestTimeout(text) from None
    return [results[place] for place in range(len(jobs))]


async def _when_there_is_room(job: Job[T]) -> T:
    while True:
        try:
            return await job()
        except QueueFull:
            await asyncio.sleep(_ROOM_SECONDS)
