"""The adapters that an engine has, as its client knows them: names, labels, directories, and who waits for a change."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from app.engine.messages import (
    AdapterError,
    AdapterFailed,
    AdapterLoaded,
    AdapterUnloaded,
    LoadAdapter,
    ToEngine,
    UnloadAdapter,
)

logger = logging.getLogger(__name__)


class AdapterRegistry:
    """`send` takes messages to the engine; its answers about adapters come to `on_message`."""

    def __init__(self, paths: Mapping[str, str], send: Callable[[ToEngine], None]) -> None:
        """`paths`: name -> directory of those that the engine loads at its start."""
        self._send = send
        self._paths = dict(paths)
        self.labels: dict[str, Sequence[str]] = {}  # of those that requests can name
        self._loading: dict[str, str] = {}  # name -> directory
        self._restoring: set[str] = set()  # an engine that has started again is still reading them
        self._changing: dict[str, asyncio.Future[Sequence[str]]] = {}

    async def load(self, name: str, path: str) -> Sequence[str]:
        """Load an adapter; its labels. AdapterError, InvalidRequest, EngineUnavailable."""
        if not name or name in self.labels:
            raise AdapterError(f"adapter: {name!r} {'is loaded already; unload it first' if name else 'is no name'}")
        self._check_quiet(name)
        self._send(LoadAdapter(name, path))
        self._loading[name] = path
        return await self._change(name)

    async def unload(self, name: str) -> None:
        """Forget an adapter, at once for new requests; returns when those that use it have ended."""
        if name not in self.labels:
            raise self.unknown(name)
        self._check_quiet(name)
        if name not in self._restoring:  # else it is sent when the engine has it
            self._send(UnloadAdapter(name))
        del self.labels[name]
        self._paths.pop(name, None)
        await self._change(name)

    def path(self, name: str) -> str:
        """The directory that an adapter was loaded from. AdapterError when there is none of that name."""
        if name not in self._paths:
            raise self.unknown(name)
        return self._paths[name]

    def unknown(self, name: str) -> AdapterError:
        """The error for a name that is none."""
        there = ", ".join(sorted(self.labels))
        return AdapterError(
            f"adapter: there is no {name!r}; {f'the adapters are: {there}' if there else 'none is loaded'}"
        )

    def restore(self) -> list[ToEngine]:
        """What gives an engine that starts again the adapters that it had. Requests may name them at once: they wait."""
        self._restoring = set(self._paths)
        return [LoadAdapter(name, path) for name, path in self._paths.items()]

    def on_message(self, message: AdapterLoaded | AdapterUnloaded | AdapterFailed) -> None:
        """The engine's answer."""
        name, error = message.name, None
        if name in self._restoring and not isinstance(message, AdapterUnloaded):
            self._restoring.remove(name)
            if name in self._changing:  # it was unloaded meanwhile
                if isinstance(message, AdapterLoaded):
                    self._send(UnloadAdapter(name))
                else:
                    self._answer(name, None)
                return
        path = self._loading.pop(name, None)
        if isinstance(message, AdapterLoaded):
            self.labels[name] = message.labels
            if path is not None:
                self._paths[name] = path
        elif isinstance(message, AdapterFailed):
            error = AdapterError(message.message)
        if not self._answer(name, error) and error is not None:
            logger.error("an adapter is no longer there: %s", error)
            self.labels.pop(name, None)
            self._paths.pop(name, None)

    def on_lost(self, error: Exception) -> None:
        """The engine is gone: so is what it was about to do."""
        self._loading.clear()
        self._restoring.clear()
        for name in list(self._changing):
            self._answer(name, error)

    def _check_quiet(self, name: str) -> None:
        if name in self._changing:
            raise AdapterError(f"adapter: {name!r} is just being loaded or unloaded; try again in a moment")

    async def _change(self, name: str) -> Sequence[str]:
        """Wait until the engine has done what it was told; the labels then. (Whoever waits may be late: by the time it goes on
        the next change can have begun.)"""
        done = self._changing[name] = asyncio.get_running_loop().create_future()
        done.add_done_callback(lambda future: future.cancelled() or future.exception())  # so that it is read
        return await asyncio.shield(done)  # a caller who gives up changes nothing of what the engine does

    def _answer(self, name: str, error: Exception | None) -> bool:
        """Tell who waits for a change; False when nobody does."""
        waiting = self._changing.pop(name, None)
        if waiting is None:
            return False
        if error is None:
            waiting.set_result(self.labels.get(name, ()))
        else:
            waiting.set_exception(error)
        return True
