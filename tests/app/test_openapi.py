"""The OpenAPI document is true: whatever is generated from it gets a documented status in its documented shape, and never a 5xx."""

from typing import Any

import httpx
import pytest
import schemathesis
from fastapi.routing import iter_route_contexts
from pydantic import TypeAdapter, ValidationError
from schemathesis.checks import negative_data_rejection, positive_data_acceptance
from serving import ROOT

from app.engine.client import EngineClient
from app.engine.messages import EngineSpec
from app.main import create_app
from app.settings import load_settings

MODEL = str(ROOT / "checkpoints" / "homegrown-base")  # any would do: the document depends on none
DOCUMENT: dict[str, Any] = create_app(load_settings({"model": MODEL}), EngineClient(EngineSpec(model=MODEL))).openapi()


@pytest.fixture(scope="module")
def address(make_server) -> str:
    """Of a server with so little context that every answer is short."""
    server = make_server(max_slots=4, max_queue=64, context=64).wait_ready()
    return "http://{}:{}".format(*server.address)


def load(examples: int):
    """What generates requests from the document: so many at random for each operation, beside the bounds of every field."""
    config = {"generation": {"max-examples": examples, "deterministic": True, "database": "none"}}
    return schemathesis.openapi.from_dict(DOCUMENT, config=schemathesis.Config.from_dict(config))


# A body can keep to its schema and still ask for an unknown model, or for more tokens than there is room for; and null, which
# the schema of a field doesn't name, is taken for "left out". All other checks of the library are on.
TOO_SIMPLE = [positive_data_acceptance, negative_data_rejection]


@load(5).parametrize()
def test_a_few_of_each_kind(case, address):
    case.call_and_validate(base_url=address, excluded_checks=TOO_SIMPLE)


@pytest.mark.slow
@load(300).parametrize()
def test_hundreds_of_each_kind(case, address):
    case.call_and_validate(base_url=address, excluded_checks=TOO_SIMPLE)


def test_the_server_shows_this_very_document(address):
    assert httpx.get(f"{address}/openapi.json").json() == DOCUMENT


# -- the document by itself


def operations() -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, found) for path, methods in DOCUMENT["paths"].items() for method, found in methods.items()]


def test_every_operation_tells_what_it_does_and_how_it_fails():
    for path, method, operation in operations():
        responses = operation["responses"]
        assert operation.get("description") or operation.get("summary"), path
        assert "422" not in responses
        expected = set() if path in ("/health", "/ready") else {"401"}
        if "requestBody" in operation:
            expected |= {"400", "408", "413", "415"}
        if method == "post":
            expected |= {"500", "503"}
        assert expected <= set(responses), (path, method, expected - set(responses))
        for status, response in responses.items():
            assert response["description"], (path, status)
            if status != "200":
                schema = response["content"]["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/ErrorResponse"}, (path, status)


def test_what_streams_says_so():
    for path, _, operation in operations():
        body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
        fields = (
            DOCUMENT["components"]["schemas"].get(body.get("$ref", "").rpartition("/")[2], {}).get("properties", {})
        )
        assert ("text/event-stream" in operation["responses"]["200"]["content"]) == ("stream" in fields), path


def test_every_field_is_described():
    for name, schema in DOCUMENT["components"]["schemas"].items():
        assert schema.get("description"), name
        for field, facts in schema.get("properties", {}).items():
            constant = "const" in facts or len(facts.get("enum", "ab")) == 1
            assert facts.get("description") or constant, f"{name}.{field}"
            if name.endswith("Request") and field not in schema.get("required", []):
                assert "default" in facts or {"type": "null"} in facts.get("anyOf", []), f"{name}.{field}"


MISTAKES = {
    "objects": [{}], "lists": [[]], "texts": ["x"], "empty texts": [""], "numbers": [1.5], "roles": [{"role": "x"}],
    "parts": [{"type": "text"}], "labels": [{"text": 1}],
}  # fmt: skip


def mistakes(model: TypeAdapter[Any], body: object) -> int:
    try:
        model.validate_python(body)
    except ValidationError as error:
        return error.error_count()
    return 0


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_hundred_thousand_mistakes_are_not_listed_one_by_one(kind):
    """Listing them takes seconds, in which nobody else is served, and hundreds of megabytes."""
    app = create_app(load_settings({"model": MODEL}), EngineClient(EngineSpec(model=MODEL)))
    items = MISTAKES[kind] * 100_000
    tried = 0
    for route in iter_route_contexts(app.routes):
        if getattr(route.route, "body_field", None) is None:
            continue
        model = TypeAdapter(route.route.body_field.field_info.annotation)
        for field in {*model.json_schema().get("properties", ()), "messages", "tokens", "prompt"}:
            nested = [{"role": "user", "content": items}]
            for value in (items, [items], {str(i): items[0] for i in range(20_000)}, nested):
                tried += 1
                assert mistakes(model, {field: value}) < 5000, (route.path, field)
    assert tried > 100
