"""API keys: several, compared alike, and read again without a restart."""

import os
import signal
from pathlib import Path

import pytest
from serving import wait_for

from app.http import keys
from app.http.keys import ApiKeys
from model.errors import ConfigError


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "keys"
    path.write_text("# the team's\nsk-one\n\n  sk-two  \n#sk-three\n")
    return path


def test_any_of_them_opens_and_nothing_else(file):
    known = ApiKeys(["sk-fixed"], file)
    assert all(known.allow(key) for key in ("sk-fixed", "sk-one", "sk-two"))
    for wrong in (
        "",
        "sk-",
        "sk-fixed ",
        "SK-ONE",
        "sk-three",
        "#sk-three",
        "# the team's",
        "sk-one\nsk-two",
        "é",
        "\ud800",
    ):
        assert not known.allow(wrong), wrong


def test_every_key_is_compared_whichever_matches(monkeypatch, file):
    known, compared = ApiKeys(["sk-fixed"], file), []
    plain = keys.hmac.compare_digest
    monkeypatch.setattr(keys.hmac, "compare_digest", lambda a, b: compared.append((len(a), len(b))) or plain(a, b))
    for key in ("sk-fixed", "sk-two", "nothing", "x" * 10_000):
        compared.clear()
        known.allow(key)
        assert compared == [(32, 32)] * 3


def test_a_changed_file_is_read_again(file, monkeypatch):
    monkeypatch.setattr(keys, "_CHECK_SECONDS", 0.0)
    known = ApiKeys([], file)
    file.write_text("sk-new\n")
    assert known.allow("sk-new")
    assert not known.allow("sk-one")


def test_a_file_that_has_become_unusable_changes_nothing_and_is_logged(file, monkeypatch, caplog):
    monkeypatch.setattr(keys, "_CHECK_SECONDS", 0.0)
    known = ApiKeys([], file)
    for damage in (lambda: file.write_text("# none\n"), lambda: file.write_text("my secret\n"), file.unlink):
        caplog.clear()
        damage()
        assert known.allow("sk-one")
        assert "stay as they were" in caplog.text
        assert "my secret" not in caplog.text
        caplog.clear()
        known.allow("sk-one")
        assert not caplog.text  # said once
    file.write_text("sk-back\n")
    assert known.allow("sk-back")


@pytest.mark.parametrize(
    ("content", "says"), [("", "no key"), ("ok\nnot ok\n", "line 2"), ("pä\n", "line 1"), (None, "read")]
)
def test_a_file_that_cannot_be_used_at_the_start(tmp_path, content, says):
    path = tmp_path / "keys"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=says) as caught:
        ApiKeys([], path)
    assert "not ok" not in str(caught.value)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        ApiKeys([], path)


def test_a_server_takes_new_keys_on_sighup_and_by_itself(make_server, file):
    server = make_server(api_key="sk-a,sk-b", api_keys_file=file, max_slots=1).wait_ready()
    with server.client() as client:

        def opens(key: str) -> bool:
            return client.get("/v1/models", headers={"authorization": f"Bearer {key}"}).status_code == 200

        assert [opens(key) for key in ("sk-a", "sk-b", "sk-one", "sk-two", "sk-a,sk-b", "sk-new")] == [True] * 4 + [
            False
        ] * 2
        file.write_text("sk-new\n")
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "API keys read again: 1" in server.log, 5, what="the reload")
        assert [opens(key) for key in ("sk-new", "sk-one", "sk-a")] == [True, False, True]
        file.write_text("sk-newer\n")
        wait_for(lambda: opens("sk-newer"), 5, what="the change to be seen")
        assert not opens("sk-new")
        assert "sk-" not in server.log
    assert server.stop() == 0


def test_sighup_without_a_file_does_no_harm(make_server):
    server = make_server(max_slots=1)
    _ = server.address
    os.kill(server.process.pid, signal.SIGHUP)
    wait_for(lambda: "no api_keys_file" in server.log, 5, what="the log's line")
    server.wait_ready()
    assert server.stop() == 0


def test_a_server_with_a_file_it_cannot_use_does_not_start(make_server, tmp_path):
    server = make_server(api_keys_file=tmp_path / "missing")
    assert server.wait() == 1
    assert server.lines[-1].startswith("homegrown: api_keys_file: ")
