"""The adapters that requests can name: read on a thread, put into the back end between steps, gone when nobody uses them."""

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from app.engine.messages import AdapterError, AdapterFailed, AdapterLoaded, AdapterUnloaded
from model.adapters import AdapterWeights, read_adapter
from model.backend import Backend
from model.errors import HomegrownError

Reply = AdapterLoaded | AdapterUnloaded | AdapterFailed

logger = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Adapter:
    """`number`: the back end's, 0 while it is being read. `users`: requests in the queue or running."""

    name: str
    path: str
    reading: Future[AdapterWeights]
    number: int = 0
    labels: list[str] = field(default_factory=list)
    head: Tensor | None = None  # [n_labels, D] float32 of one that classifies
    users: int = 0
    closing: bool = False
    error: str | None = None  # why it could not be loaded, for those who asked for it: without the server's paths


class Adapters:
    """Name -> adapter. One that is unloaded while requests use it takes no new ones, and goes with the last of them."""

    def __init__(self, backend: Backend, wake: Callable[[], None], forget: Callable[[int], None]) -> None:
        """`wake` is called, on another thread, when there is something for `poll`; `forget(number)` when a number is gone."""
        self._backend, self._wake, self._forget = backend, wake, forget
        self._named: dict[str, Adapter] = {}
        self._reading: list[Adapter] = []
        self._closing: list[Adapter] = []
        self._reader = ThreadPoolExecutor(1, "adapters")

    @property
    def reading(self) -> bool:
        """Whether `poll` has something to wait for."""
        return bool(self._reading)

    @property
    def numbers(self) -> set[int]:
        """The back end's numbers in use."""
        return {adapter.number for adapter in [*self._named.values(), *self._closing]} - {0}

    @property
    def labels(self) -> dict[str, list[str]]:
        """Name -> labels, of those that are loaded."""
        return {name: adapter.labels for name, adapter in self._named.items() if adapter.number}

    def load(self, name: str, path: str) -> AdapterFailed | None:
        """Begin to read an adapter; `poll` tells how it went. Requests may name it from now on, and wait for it."""
        if name in self._named:
            return AdapterFailed(name, f"adapter: {name!r} is loaded already; unload it first, or choose another name")
        adapter = Adapter(name, path, self._reader.submit(read_adapter, self._backend.config, Path(path)))
        self._named[name] = adapter
        self._reading.append(adapter)
        adapter.reading.add_done_callback(lambda _: self._wake())
        return None

    def unload(self, name: str) -> Reply | None:
        """Take no more requests for it; None when some are left: then `release` answers."""
        adapter = self._named.get(name)
        if adapter is None or adapter.number == 0:
            why = "is not loaded" if adapter is None else "is still being loaded"
            return AdapterFailed(name, f"adapter: {name!r} {why}")
        del self._named[name]
        adapter.closing = True
        self._closing.append(adapter)
        return None if adapter.users else self._remove(adapter)

    def poll(self) -> list[Reply]:
        """Put what has been read into the back end."""
        replies: list[Reply] = []
        for adapter in [adapter for adapter in self._reading if adapter.reading.done()]:
            self._reading.remove(adapter)
            try:
                weights = adapter.reading.result()
                adapter.number = self._backend.add_adapter(weights.pairs)
            except Exception as error:  # an unexpected one must not end the engine either
                known = isinstance(error, HomegrownError)
                logger.error("adapter %s: %s", adapter.name, error, exc_info=None if known else error)
                why = _without_path(error, adapter.path) if known else "it can't be loaded; the server's log says why"
                adapter.error = f"adapter {adapter.name}: {why}"
                del self._named[adapter.name]
                replies.append(AdapterFailed(adapter.name, adapter.error))
                continue
            adapter.labels = list(weights.labels)
            adapter.head = None if weights.score is None else weights.score.to(self._backend.device)
            replies.append(AdapterLoaded(adapter.name, adapter.labels))
        return replies

    def load_now(self, name: str, path: str) -> None:
        """Load, and wait for it. HomegrownError when it can't be; for who runs the server, so it names the file's path."""
        failed = self.load(name, path)
        if failed is not None:
            raise AdapterError(failed.message)
        adapter = self._named[name]
        error = adapter.reading.exception()  # waits
        if isinstance(error, HomegrownError):
            raise AdapterError(f"adapter {name}: {error}; replace it, or take its directory away")
        self.poll()
        if adapter.error is not None:
            raise AdapterError(adapter.error)

    def find(self, name: str) -> Adapter:
        """The adapter of that name, which may still be being read. AdapterError when there is none."""
        adapter = self._named.get(name)
        if adapter is None:
            there = ", ".join(sorted(self._named))
            raise AdapterError(f"adapter: there is no {name!r}; the adapters are: {there or 'none'}")
        return adapter

    def acquire(self, adapter: Adapter) -> None:
        """A request will use it, until `release`."""
        adapter.users += 1

    def release(self, adapter: Adapter) -> Reply | None:
        """A request has ended."""
        adapter.users -= 1
        return self._remove(adapter) if adapter.closing and not adapter.users else None

    def close(self) -> None:
        """End the reading thread."""
        self._reader.shutdown(wait=False, cancel_futures=True)

    def problem(self, used: dict[Adapter, int]) -> str | None:
        """What is wrong, if anything: `used` counts the requests that hold each adapter."""
        for adapter in [*self._named.values(), *self._closing]:
            if adapter.users != used.get(adapter, 0):
                return f"adapter {adapter.name} counts {adapter.users} requests, {used.get(adapter, 0)} have it"
        if any(not adapter.users for adapter in self._closing):
            return "an unloaded adapter without requests is still there"
        return None

    def _remove(self, adapter: Adapter) -> AdapterUnloaded:
        self._closing.remove(adapter)
        self._forget(adapter.number)
        self._backend.remove_adapter(adapter.number)
        return AdapterUnloaded(adapter.name)


def _without_path(error: Exception, path: str) -> str:
    """An error about the files in directory `path`, naming the files alone."""
    directory = str(Path(path))
    return str(error).replace(f"{directory}/", "").replace(directory, "its directory")
