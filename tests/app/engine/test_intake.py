"""What becomes of a message before it is in the queue."""

import pytest
from stepping import Engine, prompt_of

from app.engine.messages import AdapterError, AdapterFailed, LoadAdapter


def test_a_request_is_as_old_as_its_message():
    """Messages are read between steps: the wait for a long one is the request's too."""
    engine = Engine(n_slots=1)
    engine.clock.now = 50.0
    early = engine.submit(prompt_of(5), 2, sent=47.0)
    ahead = engine.submit(prompt_of(6), 2, sent=99.0)  # another clock than ours after all: never negative
    late = engine.submit(prompt_of(7), 2, sent=40.0, queue_limit=5.0)
    engine.run()
    assert engine.answers[early].started.queue == pytest.approx(3.0, abs=0.1)
    assert 0.0 <= engine.answers[ahead].started.queue < 0.1
    assert engine.answers[late].last.error == "queue_timeout"


def test_no_path_of_the_server_gets_to_clients(tmp_path, caplog):
    engine = Engine()
    directory = tmp_path / "secret"
    directory.mkdir()
    engine.core.handle(LoadAdapter("one", f"{directory}/"))
    waiting = engine.submit(prompt_of(5), 2, adapter="one")
    engine.core.adapters._named["one"].reading.exception()  # waits
    engine.step().run()
    (failed,) = engine.replies
    assert failed == AdapterFailed("one", engine.answers[waiting].last.message)
    assert failed.message.startswith("adapter one: adapter_config.json: no such file")
    assert "secret" not in failed.message
    assert str(directory) in caplog.text
    with pytest.raises(AdapterError, match=r"secret/adapter_config\.json"):  # who starts the server is told
        engine.core.adapters.load_now("one", str(directory))


def test_what_nobody_expects_of_an_adapter_is_for_the_log(tmp_path, caplog, monkeypatch):
    def read(config, path):
        raise ValueError(f"{path}: no idea")

    monkeypatch.setattr("app.engine.adapters.read_adapter", read)
    engine = Engine()
    engine.core.handle(LoadAdapter("one", str(tmp_path)))
    engine.core.adapters._named["one"].reading.exception()
    engine.step().run()
    assert engine.replies == [AdapterFailed("one", "adapter one: it can't be loaded; the server's log says why")]
    assert f"{tmp_path}: no idea" in caplog.text
    with pytest.raises(AdapterError, match="adapter one"):
        engine.core.adapters.load_now("one", str(tmp_path))
