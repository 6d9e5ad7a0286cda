"""What a client knows of its engine's adapters: the same as the engine, also after it has started again."""

import asyncio

import pytest

from app.engine.messages import (
    AdapterError,
    AdapterFailed,
    AdapterLoaded,
    AdapterUnloaded,
    EngineUnavailable,
    LoadAdapter,
    UnloadAdapter,
)
from app.engine.registry import AdapterRegistry

GONE = EngineUnavailable("engine_dead")


class Told:
    """A registry of one adapter whose engine has just started again, and what has been sent to that."""

    def __init__(self):
        self.sent = []
        self.registry = AdapterRegistry({"a": "/p/a"}, self.sent.append)
        self.registry.labels["a"] = []
        self.registry.on_lost(GONE)
        assert self.registry.restore() == [LoadAdapter("a", "/p/a")]

    async def unloading(self):
        task = asyncio.create_task(self.registry.unload("a"))
        await asyncio.sleep(0)
        return task


def test_an_adapter_unloaded_while_it_is_read_again_goes_when_it_has_come(loop):
    async def scenario():
        told = Told()
        registry = told.registry
        task = await told.unloading()
        assert not registry.labels
        assert not told.sent  # the engine would say that it is still reading
        with pytest.raises(AdapterError, match="just being"):
            await registry.load("a", "/p/b")
        registry.on_message(AdapterLoaded("a", []))
        assert not registry.labels
        assert told.sent == [UnloadAdapter("a")]
        assert not task.done()
        registry.on_message(AdapterUnloaded("a"))
        await task
        assert (dict(registry.labels), registry.restore()) == ({}, [])

    loop.run(scenario())


def test_one_that_is_unloaded_and_cannot_be_read_again_is_gone_too(loop):
    async def scenario():
        told = Told()
        task = await told.unloading()
        told.registry.on_message(AdapterFailed("a", "no such file"))
        await task
        assert (dict(told.registry.labels), told.registry.restore(), told.sent) == ({}, [], [])

    loop.run(scenario())


def test_one_unloaded_while_the_engine_dies_again_is_not_restored(loop):
    async def scenario():
        told = Told()
        task = await told.unloading()
        told.registry.on_lost(GONE)
        with pytest.raises(EngineUnavailable):
            await task
        assert (dict(told.registry.labels), told.registry.restore(), told.sent) == ({}, [], [])

    loop.run(scenario())


def test_one_that_has_been_read_again_is_unloaded_at_once(loop):
    async def scenario():
        told = Told()
        told.registry.on_message(AdapterLoaded("a", ["x"]))
        assert dict(told.registry.labels) == {"a": ["x"]}
        task = await told.unloading()
        assert told.sent == [UnloadAdapter("a")]
        told.registry.on_message(AdapterUnloaded("a"))
        await task
        assert told.registry.restore() == []

    loop.run(scenario())


def test_what_cannot_be_sent_leaves_nothing_behind(loop):
    def refuse(message):
        raise AdapterError("adapter: can't be sent")

    async def scenario():
        registry = AdapterRegistry({}, refuse)
        for _ in range(2):
            with pytest.raises(AdapterError, match="can't be sent"):
                await registry.load("a", "/p/a")

    loop.run(scenario())
