"""response_format: every completed answer parses, and fits its schema."""

import json

import pytest
from conformance import PATHS, text_of

CAT = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 30},
        "colour": {"enum": ["black", "white", "red"]},
        "kittens": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
    },
    "required": ["name", "age", "colour", "kittens"],
    "additionalProperties": False,
}
STRICT = {"type": "json_schema", "json_schema": {"name": "cat", "strict": True, "schema": CAT}}
ROOM = {"max_tokens": 300}


def fits(value: object) -> bool:
    assert isinstance(value, dict)
    assert set(value) == set(CAT["required"])
    assert isinstance(value["name"], str)
    assert type(value["age"]) is int
    assert 0 <= value["age"] <= 30
    assert value["colour"] in ("black", "white", "red")
    assert isinstance(value["kittens"], list)
    assert all(type(kitten) is bool for kitten in value["kittens"])
    return True


@pytest.mark.parametrize("fields", [{"temperature": 0}, {"seed": 1}, {"seed": 2, "temperature": 1.5}], ids=repr)
def test_schema(api, fields):
    """An answer under a strict JSON schema parses and fits it."""
    (choice,) = api.ask("chat", "Describe a cat.", response_format=STRICT, **ROOM, **fields)["choices"]
    assert choice["finish_reason"] == "stop"
    assert fits(json.loads(text_of(choice)))


@pytest.mark.parametrize("seed", [1, 2])
def test_schema_streamed(api, seed):
    """So does a streamed one, and it is the same."""
    fields = {"response_format": STRICT, "seed": seed, **ROOM}
    text = api.stream("chat", "Describe a cat.", **fields).text()
    assert fits(json.loads(text))
    assert text == text_of(api.ask("chat", "Describe a cat.", **fields)["choices"][0])


def test_schema_several(api):
    """Each of n choices fits the schema."""
    for choice in api.ask("chat", "Describe a cat.", n=3, response_format=STRICT, **ROOM)["choices"]:
        assert fits(json.loads(text_of(choice)))


@pytest.mark.parametrize("seed", range(3))
def test_json_object(api, seed):
    """An answer as json_object that was not cut off is a JSON object."""
    (choice,) = api.ask("chat", "Answer in JSON.", response_format={"type": "json_object"}, seed=seed, **ROOM)[
        "choices"
    ]
    if choice["finish_reason"] == "stop":
        assert isinstance(json.loads(text_of(choice)), dict)
    else:
        assert text_of(choice).lstrip().startswith("{")


def test_text(api):
    """The format text changes nothing."""
    plain = api.ask("chat", max_tokens=8, temperature=0)
    formatted = api.ask("chat", max_tokens=8, temperature=0, response_format={"type": "text"})
    assert text_of(formatted["choices"][0]) == text_of(plain["choices"][0])


@pytest.mark.parametrize(
    "response_format",
    [
        "json", 5, {}, {"type": "poem"}, {"type": "json_schema"}, {"type": "json_schema", "json_schema": {"schema": CAT}},
        {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": {"type": "no such type"}}},
        {"type": "json_schema", "json_schema": {"name": "x", "schema": "object"}},
    ],
    ids=repr,
)  # fmt: skip
def test_wrong_format(api, response_format):
    """A wrong response_format, or a schema that is none, is a 400 that names it."""
    body = api.body("chat", "Hi", max_tokens=2, response_format=response_format)
    api.refuse(PATHS["chat"], body, param="response_format")


@pytest.mark.extension
def test_on_completions(api):
    """Completions take a response_format too."""
    (choice,) = api.ask("completions", "A cat: ", response_format=STRICT, **ROOM)["choices"]
    assert fits(json.loads(choice["text"]))
