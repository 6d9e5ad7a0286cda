"""An adapter is asked with the templates that it was tuned with; without any, with its base's."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from oracle import make_adapters
from serving import wait_for
from starlette.testclient import TestClient

from app.adapters import adapters_to_load
from app.engine.local import local_engine
from app.engine.messages import EngineSpec
from app.main import create_app
from app.settings import Settings
from app.templates import Templates
from model.errors import HomegrownError
from model.prompts import ALPACA_STOPS, PLAIN_STOPS, PromptError

CHAT = "{% for m in messages %}{{ m.role }}> {{ m.content }}{% endfor %}{% if add_generation_prompt %}a> {% endif %}"
PICKY = "{{ raise_exception('not today') }}"
INSTRUCTION = "Do: {{ instruction }}."
HELLO = [{"role": "user", "content": "Hello"}]


def write(directory: Path, chat: str | None = None, instruction: str | None = None) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in (("chat_template.jinja", chat), ("instruction_template.jinja", instruction)):
        if text is not None:
            (directory / name).write_text(text)
    return directory


def rendered(templates: Templates) -> tuple[str, str]:
    return templates.chat.render(HELLO), templates.instruction.render("Sing")


def test_what_an_adapter_has_comes_first(tmp_path):
    plain, own = (
        Templates.of_model(write(tmp_path / "plain")),
        Templates.of_model(write(tmp_path / "own", CHAT, INSTRUCTION)),
    )
    assert (plain.chat.stops, plain.instruction.stops) == (PLAIN_STOPS, ALPACA_STOPS)
    assert rendered(own) == ("user> Helloa> ", "Do: Sing.")
    for base in (plain, own):
        assert rendered(base.of_adapter(tmp_path / "nothing")) == rendered(base)
        chat = base.of_adapter(write(tmp_path / "chat", CHAT + "!"))
        assert rendered(chat) == ("user> Helloa> !", "user> Singa> !")
        assert (chat.chat.stops, chat.instruction.stops) == ((), ())
        instruction = base.of_adapter(write(tmp_path / "instruction", None, "Please: {{ instruction }}"))
        assert rendered(instruction) == (rendered(base)[0], "Please: Sing")


def test_a_refusal_names_the_file_without_its_place(tmp_path):
    base = Templates.of_model(write(tmp_path / "base", PICKY))
    for templates in (base, base.of_adapter(tmp_path / "nothing"), base.of_adapter(write(tmp_path / "picky", PICKY))):
        with pytest.raises(PromptError) as error:
            templates.chat.render(HELLO)
        assert templates.explain(error.value) == "chat_template.jinja: not today"
    with pytest.raises(HomegrownError, match=r"chat_template.jinja: line 1"):
        base.of_adapter(write(tmp_path / "broken", "{% for %}"))


@pytest.fixture(scope="module")
def folder(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter without templates, and one with."""
    made = make_adapters(model_dir, tmp_path_factory.mktemp("made"))["one"]
    folder = tmp_path_factory.mktemp("adapters")
    for name in ("bare", "tuned"):
        shutil.copytree(made, folder / name)
    write(folder / "tuned", CHAT, INSTRUCTION)
    return folder


@pytest.fixture(scope="module")
def client(model_dir: Path, folder: Path) -> Iterator[TestClient]:
    spec = EngineSpec(model=str(model_dir), threads=1, max_slots=2, adapters=adapters_to_load(folder))
    settings = Settings(model=str(model_dir), adapters_dir=folder, aliases={"helper": "tuned"})
    with TestClient(create_app(settings, local_engine(spec)), raise_server_exceptions=False) as client:
        wait_for(lambda: client.get("/ready").status_code == 200, what="readiness")
        shutil.copytree(folder / "bare", folder / "later")
        yield client


def length(client: TestClient, path: str, **body: object) -> int:
    answer = client.post(path, json={"max_tokens": 1, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()["usage"]["prompt_tokens"]


def test_requests_for_an_adapter_are_made_with_its_templates(client):
    plain, own = len("User:\nHello\n\nAssistant:\n"), len("user> Helloa> ")
    for model, expected in (("tiny", plain), ("bare", plain), ("tuned", own), ("helper", own)):
        assert length(client, "/v1/chat/completions", messages=HELLO, model=model) == expected
        tokenized = client.post("/tokenize", json={"messages": HELLO, "model": model}).json()
        assert tokenized["count"] == expected
        written = length(client, "/instruct", instruction="Sing", model=model)
        assert (written == len("Do: Sing.")) == (expected == own)


def test_an_adapter_that_is_loaded_later_brings_its_templates(client, folder):
    def load() -> dict:
        return client.post("/v1/adapters", json={"name": "later"}).json()

    write(folder / "later", "{% for %}")
    error = load()["error"]
    assert (error["param"], error["code"]) == ("name", "invalid_value")
    assert "chat_template.jinja: line 1" in error["message"]
    assert str(folder) not in error["message"]
    for chat in (CHAT, CHAT + "and more"):
        write(folder / "later", chat)
        assert load()["id"] == "later"
        text = "user> Helloa> " + chat.removeprefix(CHAT)
        assert length(client, "/v1/chat/completions", messages=HELLO, model="later") == len(text)
        assert client.delete("/v1/adapters/later").status_code == 200
