"""A model directory that carries its adapters: one server, nothing set, answers every route from one trunk."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from oracle import make_adapters
from serving import wait_for
from starlette.testclient import TestClient

from app.adapters import adapters_folder, classifies
from app.engine import Engine, SamplingParams
from app.engine.local import local_engine
from app.main import create_app, engine_spec
from app.settings import Settings
from model.adapters import load_with_adapter
from model.errors import CheckpointError, ConfigError, HomegrownError
from model.hub import carrier, resolve_model

CHAT = "{% for m in messages %}{{ m.role }}> {{ m.content }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}a> {% endif %}"
INSTRUCTION = "Do: {{ instruction }}."
HELLO = [{"role": "user", "content": "Hello"}]
CHATTED = len("user> Helloa> ") + 1  # in tokens: bytes, and the one that ends a text
PLAIN = len("User:\nHello\n\nAssistant:\n")
GREEDY = {"max_tokens": 4, "temperature": 0, "ignore_eos": True}


@pytest.fixture(scope="module")
def made(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Adapters of the tiny model: `one` and `two` generate, `mood` classifies."""
    return make_adapters(model_dir, tmp_path_factory.mktemp("made"))


def carry(model_dir: Path, target: Path, **adapters: Path) -> Path:
    """A copy of the model that carries these adapters."""
    shutil.copytree(model_dir, target)
    for name, path in adapters.items():
        shutil.copytree(path, target / "adapters" / name)
    return target


def tune(directory: Path, chat: str | None = CHAT, instruction: str | None = INSTRUCTION) -> None:
    """Give templates to a model or an adapter."""
    for name, text in (("chat_template.jinja", chat), ("instruction_template.jinja", instruction)):
        if text is not None:
            (directory / name).write_text(text)


@pytest.fixture(scope="module")
def trunk(model_dir: Path, made: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Carries `helper`, tuned to answer, `style`, which has no templates, and `mood`, a classifier."""
    trunk = carry(model_dir, tmp_path_factory.mktemp("carrying") / "trunk", helper=made["one"], style=made["two"])
    shutil.copytree(made["mood"], trunk / "adapters" / "mood")
    tune(trunk / "adapters" / "helper")
    tune(trunk / "adapters" / "mood", "never used")
    return trunk


def served(model: Path, **settings: object) -> Iterator[TestClient]:
    values = Settings(model=str(model), threads=1, max_slots=2, **settings)  # type: ignore[arg-type]
    app = create_app(values, local_engine(engine_spec(values)))
    with TestClient(app, raise_server_exceptions=False) as client:
        wait_for(lambda: client.get("/ready").status_code == 200, what="readiness")
        yield client


@pytest.fixture(scope="module")
def client(trunk: Path) -> Iterator[TestClient]:
    yield from served(trunk)


def ask(client: TestClient, path: str, **body: object) -> dict:
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def answering(client: TestClient, **body: object) -> tuple[str, int]:
    """Who answers a conversation, and the length of the prompt it is given."""
    answer = ask(client, "/v1/chat/completions", messages=HELLO, max_tokens=1, **body)
    return answer["model"], answer["usage"]["prompt_tokens"]


def test_one_server_answers_every_route_without_a_model_named(client: TestClient) -> None:
    assert ask(client, "/generate", prompt="a", **GREEDY)["model"] == "trunk"
    assert ask(client, "/v1/completions", prompt="a", **GREEDY)["model"] == "trunk"
    assert ask(client, "/instruct", instruction="Sing", **GREEDY)["model"] == "helper"
    assert answering(client) == ("helper", CHATTED)
    assert ask(client, "/tokenize", messages=HELLO)["count"] == CHATTED
    assert ask(client, "/tokenize", prompt="Hello")["count"] == len("Hello")
    labelled = ask(client, "/classify", input="Hello")
    assert labelled["model"] == "mood"
    assert set(labelled["data"][0]["scores"]) == {"good", "bad", "odd"}
    assert ask(client, "/classify", input="Hello", labels=["yes", "no"])["model"] == "trunk"


def test_the_model_that_answers_is_the_adapter_and_not_the_base(client: TestClient) -> None:
    body = {"instruction": "Sing", **GREEDY, "max_tokens": 12, "logprobs": 0}
    default, named = ask(client, "/instruct", **body), ask(client, "/instruct", model="helper", **body)
    raw = ask(client, "/generate", prompt="Do: Sing.", model="helper", **GREEDY | {"max_tokens": 12})
    base = ask(client, "/generate", prompt="Do: Sing.", **GREEDY | {"max_tokens": 12})
    assert default["text"] == named["text"] == raw["text"] != base["text"]


def test_a_named_model_is_taken_as_named(client: TestClient) -> None:
    assert answering(client, model="trunk") == ("trunk", PLAIN)
    assert answering(client, model="style") == ("style", PLAIN)
    refused = client.post("/v1/chat/completions", json={"messages": HELLO, "model": "mood"}).json()["error"]
    assert refused["param"] == "model"
    assert client.post("/instruct", json={"instruction": "a", "model": "no"}).status_code == 404


def test_the_list_begins_with_the_model(client: TestClient) -> None:
    cards = client.get("/v1/models").json()["data"]
    assert cards[0]["id"] == "trunk"
    assert {card["id"]: (card["parent"], card["task"]) for card in cards[1:]} == {
        "helper": ("trunk", "generate"), "style": ("trunk", "generate"), "mood": ("trunk", "classify"),
    }  # fmt: skip


def test_what_comes_and_goes_changes_who_answers(client: TestClient, trunk: Path) -> None:
    assert client.delete("/v1/adapters/helper").status_code == 200
    assert answering(client) == ("trunk", PLAIN)
    shutil.copytree(trunk / "adapters" / "helper", trunk / "adapters" / "second")
    assert ask(client, "/v1/adapters", name="second")["parent"] == "trunk"  # from the folder that the model carries
    assert answering(client) == ("second", CHATTED)
    assert ask(client, "/v1/adapters", name="helper")["id"] == "helper"
    assert answering(client) == ("trunk", PLAIN)  # of two none is the one
    assert client.delete("/v1/adapters/second").status_code == 200
    assert answering(client) == ("helper", CHATTED)
    shutil.rmtree(trunk / "adapters" / "second")


def test_classifiers_are_named_where_it_is_not_clear_which(client: TestClient, trunk: Path) -> None:
    def refusal(**body: object) -> dict:
        response = client.post("/classify", json={"input": "a", **body})
        assert response.status_code == 400, response.text
        return response.json()["error"]

    for body in ({"model": "trunk"}, {"examples": [{"text": "a", "label": "b"}]}, {"template": "{text}: {label}"}):
        error = refusal(**body)
        assert (error["param"], error["message"].endswith("classifiers by `model`: mood")) == ("labels", True)
    shutil.copytree(trunk / "adapters" / "mood", trunk / "adapters" / "humour")
    assert ask(client, "/v1/adapters", name="humour")["task"] == "classify"
    assert refusal()["message"].endswith(": humour, mood")
    for name in ("humour", "mood"):
        assert client.delete(f"/v1/adapters/{name}").status_code == 200
    assert "classifiers" not in refusal()["message"]
    assert ask(client, "/v1/adapters", name="mood")["id"] == "mood"
    assert ask(client, "/classify", input="a")["model"] == "mood"
    shutil.rmtree(trunk / "adapters" / "humour")


def test_a_chosen_chat_model_is_taken_while_it_is_there(trunk: Path) -> None:
    for client in served(trunk, aliases={"chat": "style"}, chat_model="chat"):
        assert answering(client) == ("chat", PLAIN)
        assert client.delete("/v1/adapters/style").status_code == 200
        assert answering(client) == ("helper", CHATTED)
        assert ask(client, "/v1/adapters", name="style")["id"] == "style"
        assert answering(client) == ("chat", PLAIN)


def test_a_base_with_templates_of_its_own_answers_itself(model_dir: Path, trunk: Path, tmp_path: Path) -> None:
    own = shutil.copytree(trunk, tmp_path / "own")
    tune(own, CHAT + "!", None)
    for client in served(own):
        assert answering(client) == ("own", CHATTED + 1)
        assert answering(client, model="helper") == ("helper", CHATTED)


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ("nobody", "nobody is not here; the models are: helper, label, mood, style, trunk"),
        ("mood", "mood is a classifier"),
        ("label", "label is a classifier"),
    ],
)
def test_a_chat_model_that_cannot_be_is_told_at_the_start(trunk: Path, chosen: str, says: str) -> None:
    settings = Settings(model=str(trunk), aliases={"label": "mood"}, chat_model=chosen)
    with pytest.raises(ConfigError, match=f"^chat_model: {says}"):
        create_app(settings, local_engine(engine_spec(settings)))


def test_a_classifier_is_known_by_its_texts(made: dict[str, Path], tmp_path: Path) -> None:
    assert [classifies(made[name]) for name in ("one", "mood")] == [False, True]
    for name in ("one", "mood"):
        bare = shutil.copytree(made[name], tmp_path / name)
        config = json.loads((bare / "adapter_config.json").read_text())
        (bare / "adapter_config.json").write_text(json.dumps({**config, "task_type": None}))
        assert classifies(bare) == (name == "mood")
    (tmp_path / "one" / "adapter_config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"adapter_config\.json: not JSON"):
        classifies(tmp_path / "one")


def test_a_folder_that_is_named_wins(model_dir: Path, trunk: Path, tmp_path: Path) -> None:
    assert adapters_folder(tmp_path, trunk) == tmp_path
    assert adapters_folder(None, trunk) == trunk / "adapters"
    assert adapters_folder(None, model_dir) is None
    assert engine_spec(Settings(model=str(trunk), adapters_dir=tmp_path)).adapters == {}
    assert set(engine_spec(Settings(model=str(trunk))).adapters) == {"helper", "style", "mood"}
    assert engine_spec(Settings(model=str(model_dir))).adapters == {}


def test_an_adapter_of_another_rank_is_told_at_the_start(
    make_server, model_dir: Path, made: dict[str, Path], tmp_path: Path
) -> None:
    broken = carry(model_dir, tmp_path / "broken", one=made["one"])
    path = broken / "adapters" / "one" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"r": 5}))
    server = make_server(model=str(broken))
    assert server.wait() == 1
    said = server.lines[-1]
    assert said.startswith(f"homegrown: adapter one: {broken}/adapters/one/adapter_model.safetensors: tensor ")
    assert "another model or another rank; replace it, or take its directory away" in said


def test_the_engine_without_a_server_has_them_too(trunk: Path, made: dict[str, Path]) -> None:
    with Engine(trunk, threads=1, max_slots=2) as engine:
        assert set(engine.info.adapters) == {"helper", "style", "mood"}
        greedy = SamplingParams(temperature=0.0, ignore_eos=True)
        (tuned,), (base,) = (engine.generate(["a"], greedy, max_tokens=12, adapter=a) for a in ("helper", None))
        assert tuned.text != base.text
        assert len(engine.classify(["a"], adapter="mood")[0]) == 3
    with Engine(trunk, threads=1, max_slots=2, adapters={"other": str(made["two"])}) as engine:
        assert set(engine.info.adapters) == {"other"}
    with Engine(trunk, threads=1, max_slots=2, adapters={}) as engine:
        assert engine.info.adapters == {}


def test_an_adapter_belongs_to_the_model_that_carries_it(trunk: Path, made: dict[str, Path]) -> None:
    """Wherever that was copied to, and whatever the base was called when the adapter was made."""
    assert carrier(trunk / "adapters" / "mood") == trunk.resolve()
    assert carrier(made["mood"]) is None
    path = trunk / "adapters" / "helper" / "adapter_config.json"
    kept = path.read_text()
    path.write_text(json.dumps(json.loads(kept) | {"base_model_name_or_path": "elsewhere"}))
    try:
        assert load_with_adapter(trunk / "adapters" / "helper")[1] == trunk.resolve()
    finally:
        path.write_text(kept)
    with pytest.raises(HomegrownError, match="is an adapter; name the model"):
        resolve_model(str(made["mood"]))
