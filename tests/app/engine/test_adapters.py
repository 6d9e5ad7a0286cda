"""Adapters in the engine: several in a step, loaded and unloaded while requests run."""

from concurrent.futures import Future

from fake_backend import reference
from stepping import GREEDY, Engine, prompt_of

from app.engine.messages import AdapterFailed, AdapterLoaded, AdapterUnloaded, LoadAdapter, UnloadAdapter
from model.errors import ConfigError


def test_adapters_share_steps_and_never_tokens():
    engine = Engine(n_slots=6, chunk=512)
    engine.load("one", 1).load("two", 2)
    assert engine.replies == [AdapterLoaded("one", []), AdapterLoaded("two", [])]
    prompt = prompt_of(50)
    for _ in range(2):
        numbers = {name: engine.submit(prompt, 6, adapter=name) for name in (None, "one", "two")}
        engine.step()
        assert len({s.adapter for s in engine.backend.forwards[-1]}) == 3
        engine.run()
        for name, number in numbers.items():
            expected = reference(prompt, GREEDY, 6, {None: 0, "one": 1, "two": 2}[name])
            assert engine.answers[number].tokens == expected
    assert {engine.answers[n].started.cached for n in numbers.values()} == {49}


def test_unloading_lets_requests_finish_and_forgets_their_tokens():
    engine = Engine(n_slots=2).load("one", 1)
    prompt = prompt_of(50)
    running, waiting = engine.submit(prompt, 9, adapter="one"), engine.submit(prompt_of(9), 9, adapter="one")
    engine.step(2)
    engine.core.handle(UnloadAdapter("one"))
    late = engine.submit(prompt, 9, adapter="one")
    engine.step()
    assert engine.answers[late].last.error == "adapter"
    assert "'one'" in engine.answers[late].last.message
    assert len(engine.replies) == 1
    engine.run()
    assert engine.replies[1:] == [AdapterUnloaded("one")]
    assert engine.answers[running].tokens == reference(prompt, GREEDY, 9, 1)
    assert engine.answers[waiting].tokens == reference(prompt_of(9), GREEDY, 9, 1)
    engine.load("one", 7)  # the same name, another adapter: nothing of the old one may be taken
    again = engine.submit(prompt, 9, adapter="one")
    engine.run()
    assert engine.answers[again].tokens == reference(prompt, GREEDY, 9, 7)
    assert engine.answers[again].started.cached == 0


def test_requests_wait_for_an_adapter_that_is_being_read_and_others_pass():
    engine = Engine(n_slots=1)
    engine.core.handle(LoadAdapter("slow", "nowhere"))
    adapter = engine.core.adapters._named["slow"]
    adapter.reading = Future()
    waits, passes = engine.submit(prompt_of(5), 2, adapter="slow"), engine.submit(prompt_of(5), 2)
    engine.run()
    assert engine.answers[passes].last
    assert not engine.answers[waits].last
    adapter.reading.set_exception(ConfigError("the file is damaged"))
    engine.step()
    assert engine.replies == [AdapterFailed("slow", "adapter slow: the file is damaged")]
    last = engine.answers[waits].last
    assert (last.error, last.message) == ("adapter", "adapter slow: the file is damaged")
    engine.core.handle(UnloadAdapter("slow"))
    engine.step()
    assert isinstance(engine.replies[-1], AdapterFailed)
    engine.run()
