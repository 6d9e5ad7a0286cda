"""response_format: what ends by itself is JSON, and fits its schema; what can't be enforced is refused."""

import json
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from app.schemas.formats import MAX_SCHEMA_BYTES, ResponseFormat

HELLO = [{"role": "user", "content": "Hello"}]
POINT = {
    "type": "object",
    "properties": {"x": {"type": "integer", "minimum": 0, "maximum": 99}, "on": {"type": "boolean"}},
    "required": ["x", "on"],
    "additionalProperties": False,
}
WORDS = {"type": "array", "items": {"enum": ["é", "日本", '"\n'], "type": "string"}, "minItems": 1, "maxItems": 3}
ROUTES = [
    ("/v1/chat/completions", {"messages": HELLO}),
    ("/v1/completions", {"prompt": "Hello", "max_tokens": 900}),
    ("/generate", {"prompt": "Hello", "max_tokens": 900}),
    ("/instruct", {"instruction": "Hello", "max_tokens": 700}),
]


def schema_format(schema: Any, **more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, **more}}


def texts_of(answer: dict[str, Any]) -> list[tuple[str, str]]:
    """Text and finish_reason of each answer, whichever route gave it."""
    if "choices" not in answer:
        return [(answer["text"], answer["finish_reason"])]
    return [
        (choice["message"]["content"] if "message" in choice else choice["text"], choice["finish_reason"])
        for choice in answer["choices"]
    ]


def ask(client, route: tuple[str, dict[str, Any]], **body: Any) -> list[tuple[str, str]]:
    path, rest = route
    response = client.post(path, json={**rest, **body})
    assert response.status_code == 200, response.text
    return texts_of(response.json())


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route[0])
@pytest.mark.parametrize("schema", [POINT, WORDS])
@pytest.mark.parametrize("strict", [True, None])
def test_an_answer_fits_its_schema(client, route, schema, strict):
    for body in ({"seed": 1}, {"seed": 2, "temperature": 2}, {"temperature": 0}, {"seed": 3, "ignore_eos": True}):
        ((text, reason),) = ask(client, route, response_format=schema_format(schema, strict=strict), **body)
        assert reason == "stop"
        jsonschema.validate(json.loads(text), schema)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route[0])
def test_a_json_object_is_one(client, route):
    ended = 0
    for seed in range(6):
        ((text, reason),) = ask(client, route, response_format={"type": "json_object"}, seed=seed)
        assert text.lstrip().startswith("{")
        ended += reason == "stop"
        if reason == "stop":
            assert isinstance(json.loads(text), dict)
    assert ended, "a few bytes of a random model close a brace now and then"


def test_choices_each_fit(client):
    answers = ask(client, ROUTES[0], response_format=schema_format(POINT), n=3, seed=5)
    assert len({text for text, _ in answers}) == 3
    for text, _ in answers:
        jsonschema.validate(json.loads(text), POINT)


def test_streamed_it_is_the_same(client):
    path, rest = ROUTES[0]
    body = {**rest, "seed": 4, "response_format": schema_format(WORDS)}
    ((whole, _),) = ask(client, (path, body))
    with client.stream("POST", path, json={**body, "stream": True}) as response:
        frames = response.read().decode().split("\n\n")[:-2]
    chunks = [json.loads(frame.removeprefix("data: "))["choices"][0] for frame in frames]
    assert "".join(chunk["delta"].get("content", "") for chunk in chunks) == whole


def test_an_answer_that_was_cut_says_so(client):
    ((_, reason),) = ask(client, ROUTES[0], response_format=schema_format(POINT), max_tokens=3)
    assert reason == "length"


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route[0])
def test_text_is_anything(client, route):
    plain = ask(client, route, seed=1, max_tokens=9)
    for text in ({"type": "text"}, None):
        assert ask(client, route, seed=1, max_tokens=9, response_format=text) == plain


@pytest.mark.parametrize(
    ("value", "param"),
    [
        ("json", ""), ([], ""), ({}, ".type"), ({"type": "xml"}, ".type"), ({"type": 5}, ".type"),
        ({"type": "json_schema"}, ".json_schema"), ({"type": "json_schema", "json_schema": []}, ".json_schema"),
        ({"type": "json_object", "json_schema": {"name": "a", "schema": {}}}, ".json_schema"),
        (schema_format([]), ".json_schema.schema"), (schema_format("{}"), ".json_schema.schema"),
        (schema_format(None), ".json_schema.schema"), (schema_format({}, name="a b"), ".json_schema.name"),
        (schema_format({}, name=""), ".json_schema.name"), (schema_format({}, name="a" * 65), ".json_schema.name"),
        (schema_format({}, name=None), ".json_schema.name"), (schema_format({}, strict="yes"), ".json_schema.strict"),
        (schema_format({"minimum": float("nan")}), ".json_schema.schema"),
    ],
)  # fmt: skip
def test_a_format_that_is_none_is_refused(client, value, param):
    body = json.dumps({"messages": HELLO, "response_format": value})
    response = client.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert (error["param"], error["code"]) == (f"response_format{param}", "invalid_value")


def test_a_schema_that_is_too_long_is_refused_before_it_is_sent_for_each_choice():
    def read(length: int) -> ResponseFormat:
        return ResponseFormat.model_validate(schema_format({"title": "ü" * (length // 2)}))

    overhead = len('{"title": ""}')
    grammar = read(MAX_SCHEMA_BYTES - overhead).grammar
    assert grammar is not None
    assert len(grammar.value.encode()) in (MAX_SCHEMA_BYTES, MAX_SCHEMA_BYTES - 1)
    with pytest.raises(ValidationError, match="at most 65536"):
        read(MAX_SCHEMA_BYTES - overhead + 3)


def test_a_schema_in_the_wrong_place_is_refused(client):
    value = {"type": "json_object", "schema": POINT}
    error = client.post(ROUTES[0][0], json={"messages": HELLO, "response_format": value}).json()["error"]
    assert (error["param"], error["code"]) == ("response_format.schema", "unsupported_parameter")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "strange"},
        {"type": "string", "pattern": "("},
        {"$ref": "#/$defs/missing"},
        {"$ref": "https://elsewhere.example/schema.json"},
        {"not": {"type": "string"}},
        {"type": "array", "uniqueItems": True},
        {"enum": []},
        {"const": "\ud800"},
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_schema_that_cannot_be_enforced_is_refused(client, schema, stream):
    for path, rest in ROUTES:
        body = json.dumps({**rest, "response_format": schema_format(schema), "stream": stream})
        response = client.post(path, content=body, headers={"content-type": "application/json"})
        assert response.status_code == 400, response.text
        error = response.json()["error"]
        assert error["param"].startswith("response_format")
        assert error["code"] == "invalid_value"
    assert client.get("/ready").status_code == 200


def test_a_deep_schema_does_no_harm(client):
    for depth in (100, 300, 900, 5000):
        body = '{"messages": [{"role": "user", "content": "a"}], "max_tokens": 2, "response_format": '
        body += '{"type": "json_schema", "json_schema": {"name": "a", "schema": '
        body += '{"type": "array", "items": ' * depth + "{}" + "}" * depth + "}}}"
        response = client.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
        assert response.status_code in (200, 400, 413), response.text
    assert client.get("/ready").status_code == 200
