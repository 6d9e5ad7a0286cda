"""/v1/adapters over a real socket: adapters come and go by name, and only from the server's folder."""

import asyncio
import os
import shutil
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from oracle import make_adapters
from serving import wait_for

from app.adapters import adapters_to_load, is_adapter_name
from app.engine.messages import AdapterLoaded, AdapterUnloaded, LoadAdapter, UnloadAdapter
from app.engine.registry import AdapterRegistry
from model.errors import ConfigError

ASK = {"prompt": "What is it?", "max_tokens": 8, "temperature": 0, "ignore_eos": True}


@pytest.fixture(scope="module")
def adapters(model_dir, tmp_path_factory):
    """Directories of a language-model adapter `one` and of a classifier's `mood`, for copying."""
    return make_adapters(model_dir, tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def folder(adapters, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    for name in ("one", "mood"):
        shutil.copytree(adapters[name], folder / name)
    (folder / "notes").mkdir()  # no adapter
    return folder


@pytest.fixture(scope="module")
def served(make_server, folder):
    return make_server(adapters_dir=folder, aliases="first=one,again=tiny", max_slots=2).wait_ready()


@pytest.fixture
def client(served):
    with served.client() as client:
        yield client


def names(client) -> set[str]:
    return {card["id"] for card in client.get("/v1/models").json()["data"]}


def load(client, name):
    return client.post("/v1/adapters", json={"name": name})


def unload(client, name):
    return client.request("DELETE", "/v1/adapters", json={"name": name})


def error_of(response, status, code, param="name"):
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert (error["code"], error["param"]) == (code, param)
    return error["message"]


def test_the_folders_adapters_are_there_from_the_start(client):
    cards = {card["id"]: card for card in client.get("/v1/models").json()["data"]}
    assert set(cards) == {"tiny", "one", "mood", "first", "again"}
    assert (cards["one"]["parent"], cards["one"]["task"]) == ("tiny", "generate")
    assert (cards["mood"]["parent"], cards["mood"]["task"]) == ("tiny", "classify")


def test_an_alias_is_its_model_under_another_name(client):
    assert client.get("/v1/models/first").json()["parent"] == "one"
    assert client.get("/v1/models/again").json()["parent"] == "tiny"
    of = {
        name: client.post("/generate", json=ASK | {"model": name}).json() for name in ("one", "first", "again", "tiny")
    }
    assert of["first"]["model"] == "first"
    assert of["first"]["text"] == of["one"]["text"]
    assert of["again"]["text"] == of["tiny"]["text"] != of["one"]["text"]


def test_an_adapter_is_unloaded_and_loaded_again(client):
    before = client.post("/generate", json=ASK | {"model": "one"}).json()["text"]
    assert unload(client, "one").json() == {"id": "one", "object": "model", "deleted": True}
    assert names(client) == {"tiny", "mood", "again"}  # an alias of what is gone is gone
    gone = client.post("/generate", json=ASK | {"model": "one"})
    assert "one" not in error_of(gone, 404, "model_not_found", "model").split("the models are")[1]
    card = load(client, "one").json()
    assert (card["id"], card["parent"], card["object"]) == ("one", "tiny", "model")
    assert client.post("/generate", json=ASK | {"model": "first"}).json()["text"] == before


def test_one_that_was_put_into_the_folder_later(client, folder, adapters):
    shutil.copytree(adapters["one"], folder / "later-1.0")
    assert "later-1.0" not in names(client)
    assert load(client, "later-1.0").status_code == 200
    answer = client.post("/generate", json=ASK | {"model": "later-1.0"}).json()
    assert answer["text"] == client.post("/generate", json=ASK | {"model": "one"}).json()["text"]
    assert client.delete("/v1/adapters/later-1.0").json()["deleted"] is True
    error_of(client.delete("/v1/adapters/later-1.0"), 404, "model_not_found")


@pytest.mark.parametrize(
    "name",
    [
        "../one",
        "/etc",
        "one/",
        "./one",
        "..",
        ".",
        "",
        "a/../one",
        "one\x00",
        "..%2fone",
        "~",
        "Ünï",
        "a" * 129,
        "one\n",
        "\\one",
    ],
)
def test_a_path_is_no_name(client, name):
    for response in (load(client, name), unload(client, name)):
        error_of(response, 400, "invalid_value")
    assert "one" in names(client)


def test_what_is_not_there(client, folder):
    message = error_of(load(client, "nothing"), 404, "model_not_found")
    assert "mood, one" in message
    assert str(folder) not in message
    error_of(load(client, "notes"), 404, "model_not_found")
    error_of(unload(client, "nothing"), 404, "model_not_found")
    error_of(client.post("/v1/adapters", json={}), 400, "invalid_value")
    error_of(client.post("/v1/adapters", json={"name": 5}), 400, "invalid_value")


def test_a_name_that_is_taken_or_no_adapters(client):
    assert "here already" in error_of(load(client, "one"), 400, "invalid_value")
    for name in ("tiny", "first"):
        error_of(unload(client, name), 400, "invalid_value")


def test_one_that_is_damaged_says_what_is_wrong_without_the_servers_paths(client, folder):
    (folder / "broken").mkdir()
    (folder / "broken" / "adapter_config.json").write_text("{}")
    message = error_of(load(client, "broken"), 400, "invalid_value")
    assert str(folder) not in message
    assert "broken" not in names(client)
    shutil.rmtree(folder / "broken")


def test_requests_that_use_it_finish_before_it_is_gone(served, client):
    with client.stream("POST", "/generate", json=ASK | {"model": "one", "max_tokens": 900, "stream": True}) as stream:
        lines = stream.iter_lines()
        next(lines)
        result = []

        def leave() -> None:
            with served.client() as other:
                result.append(unload(other, "one"))

        thread = threading.Thread(target=leave)
        thread.start()
        wait_for(lambda: "one" not in names(client), 10, what="the adapter to be gone for new requests")
        text = "\n".join(lines)
    thread.join(10)
    assert '"completion_tokens":900' in text
    assert result[0].status_code == 200
    assert load(client, "one").status_code == 200


def test_adapters_come_back_with_a_killed_engine(served, client):
    before = client.post("/generate", json=ASK | {"model": "one"}).json()["text"]
    os.kill(served.engine_pid(), signal.SIGKILL)
    wait_for(lambda: client.get("/ready").status_code == 503, 10, what="the engine's end")
    refused = load(client, "mood").status_code in (400, 503)
    assert refused or client.get("/ready").status_code == 200  # it may be back already
    served.wait_ready()
    assert client.post("/generate", json=ASK | {"model": "one"}).json()["text"] == before


def test_one_that_is_unloaded_as_soon_as_it_is_there_was_loaded():
    async def both() -> tuple[object, object]:
        sent = []
        registry = AdapterRegistry({}, sent.append)
        loading = asyncio.create_task(registry.load("one", "directory"))
        await asyncio.sleep(0)
        registry.on_message(AdapterLoaded("one", ["good", "bad"]))
        unloading = asyncio.create_task(
            registry.unload("one")
        )  # another client, before the first one's task runs again
        labels = await loading
        registry.on_message(AdapterUnloaded("one"))
        await unloading
        return labels, [type(message) for message in sent]

    assert asyncio.run(both()) == (["good", "bad"], [LoadAdapter, UnloadAdapter])


def test_clients_that_load_and_unload_against_each_other(client, served, folder, adapters):
    shutil.copytree(adapters["one"], folder / "fought")

    def ask(method: str) -> int:
        with served.client() as other:
            return other.request(method, "/v1/adapters", json={"name": "fought"}).status_code

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(ask, ["POST", "DELETE"] * 40)) <= {200, 400, 404}
    unload(client, "fought")
    shutil.rmtree(folder / "fought")


def test_a_server_without_a_folder_says_so(server):
    with server.client() as client:
        assert "adapters_dir" in error_of(load(client, "one"), 400, "invalid_value")
        error_of(unload(client, "one"), 404, "model_not_found")


@pytest.mark.parametrize("name", ["a", "a.b", "a-b_c.1", "9", "a" * 128])
def test_names(name):
    assert is_adapter_name(name)


def test_a_folder_that_is_none_and_names_that_cannot_be_asked_for(tmp_path, caplog):
    with pytest.raises(ConfigError, match="adapters_dir"):
        adapters_to_load(tmp_path / "missing")
    for name in ("good", "not so good", ".hidden"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text("{}")
    assert adapters_to_load(tmp_path) == {"good": str(tmp_path / "good")}
    assert "not so good" in caplog.text
    assert adapters_to_load(None) == {}


@pytest.mark.parametrize(
    ("aliases", "says"),
    [("x=nope", "x means nope"), ("tiny=one", "tiny is a model's own name"), ("one=tiny", "one is a")],
)
def test_aliases_that_mean_nothing_or_too_much(make_server, folder, aliases, says):
    server = make_server(adapters_dir=folder, aliases=aliases)
    assert server.wait() == 1
    assert server.lines[-1].startswith(f"homegrown: aliases: {says}")


def test_an_adapter_with_the_models_name(make_server, adapters, tmp_path):
    shutil.copytree(adapters["one"], tmp_path / "tiny")
    server = make_server(adapters_dir=tmp_path)
    assert server.wait() == 1
    assert server.lines[-1].startswith("homegrown: adapters_dir: tiny is the model's own name")
