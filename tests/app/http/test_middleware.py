import re
from pathlib import Path

import httpx
import pytest
from fastapi.routing import iter_route_contexts
from serving import wait_for

from app.engine.client import EngineClient
from app.engine.messages import EngineSpec
from app.http.middleware import OPEN_PATHS
from app.main import create_app
from app.settings import load_settings

KEY = "sk-test-1234"


@pytest.fixture(scope="module")
def locked(make_server):
    return make_server(api_key=KEY, max_slots=1, cors_origins="https://a.example").wait_ready()


OPEN = {(path, "GET") for path in OPEN_PATHS} | {
    (path, method) for path in ("/", "/page/{path:path}") for method in ("GET", "HEAD")
}


def test_every_route_but_the_probes_and_the_page_needs_the_key(locked, model_dir):
    app = create_app(load_settings({"model": str(model_dir)}), EngineClient(EngineSpec(model=str(model_dir))))
    routes = {(route.path, method) for route in iter_route_contexts(app.routes) for method in route.methods or {"GET"}}
    assert {("/generate", "POST"), ("/v1/models", "GET"), ("/health", "GET"), ("/openapi.json", "GET")} <= routes
    assert routes > OPEN
    with locked.client() as client:
        for route, method in routes:
            path = re.sub(r"{.*?}", "x", route)
            expected = (route, method) in OPEN
            for headers in (
                {},
                {"authorization": "Bearer wrong"},
                {"authorization": KEY},
                {"authorization": f"Basic {KEY}"},
            ):
                response = client.request(method, path, headers=headers)
                assert (response.status_code != 401) == expected, (path, method, headers)
                if not expected:
                    assert response.headers["www-authenticate"] == "Bearer"
                    if method != "HEAD":
                        error = response.json()["error"]
                        assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")


def test_the_openapi_document_says_that_a_key_is_needed(locked, server):
    with locked.client(headers={"authorization": f"Bearer {KEY}"}) as client:
        document = client.get("/openapi.json").json()
    assert document["components"]["securitySchemes"][next(iter(document["security"][0]))]["scheme"] == "bearer"
    opened = {path for path, operations in document["paths"].items() if operations.get("get", {}).get("security") == []}
    assert opened == OPEN_PATHS
    with server.client() as client:
        assert "security" not in client.get("/openapi.json").json()


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_key_opens(locked, scheme):
    with locked.client(headers={"authorization": f"{scheme} {KEY}"}) as client:
        assert client.post("/generate", json={"prompt": "a", "max_tokens": 1}).status_code == 200
        assert client.get("/nope").status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/health/", "//health", "/health?x=/generate", "/health/../generate", "/ready;x", "/%68ealth", "/page/../generate",
        "/page/%2e%2e/generate", "/page/..%2fgenerate", "/page//generate", "/page", "//generate", "/?/generate",
    ],
)  # fmt: skip
def test_no_path_trick_opens_another_route(locked, path):
    with locked.client() as client:
        request = httpx.Request("POST", str(client.base_url).rstrip("/") + path, json={"prompt": "a"})
        assert client.send(request).status_code in (401, 404, 405)


def test_a_wrong_key_is_refused_before_the_body_is_looked_at(locked):
    with locked.client() as client:
        assert client.post("/generate", content=b"{" * 100).status_code == 401


def test_preflights_pass_without_a_key_and_only_for_named_origins(locked):
    ask = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    with locked.client() as client:
        good = client.options("/generate", headers={"origin": "https://a.example", **ask})
        assert good.headers["access-control-allow-origin"] == "https://a.example"
        assert "authorization" in good.headers["access-control-allow-headers"].lower()
        bad = client.options("/generate", headers={"origin": "https://b.example", **ask})
        assert "access-control-allow-origin" not in bad.headers
        refused = client.post("/generate", headers={"origin": "https://a.example"})
        assert (
            refused.headers["access-control-allow-origin"] == "https://a.example"
        )  # so that the page can read the 401


def test_cors_is_off_by_default(make_server, model_dir):
    app = create_app(load_settings({"model": str(model_dir)}), EngineClient(EngineSpec(model=str(model_dir))))
    assert "Cors" not in {entry.cls.__name__ for entry in app.user_middleware}


def test_a_preflight_that_is_refused_has_the_one_error_shape(locked):
    with locked.client() as client:
        for origin, method, why in (("https://b.example", "POST", "origin"), ("https://a.example", "PUT", "method")):
            headers = {"origin": origin, "access-control-request-method": method}
            response = client.options("/generate", headers=headers)
            assert response.status_code == 400
            assert response.headers["content-type"] == "application/json"
            error = response.json()["error"]
            assert set(error) == {"message", "type", "param", "code"}
            assert why in error["message"]
            assert ("access-control-allow-origin" in response.headers) == (why == "method")
            assert response.headers["x-request-id"]


def test_every_origin_may_be_let_in(make_server):
    server = make_server(cors_origins="*").wait_ready()
    with server.client(headers={"origin": "https://any.example"}) as client:
        assert client.get("/version").headers["access-control-allow-origin"] == "*"
        ask = {"access-control-request-method": "DELETE", "access-control-request-headers": "content-type"}
        assert client.options("/v1/adapters", headers=ask).headers["access-control-allow-origin"] == "*"


def test_nothing_derives_from_the_middleware_that_hides_disconnects():
    sources = Path(__file__).resolve().parents[3].joinpath("app").rglob("*.py")
    assert not any(re.search(r"import.*BaseHTTPMiddleware|@app\.middleware", path.read_text()) for path in sources)


@pytest.mark.parametrize("given", ["abc-123", "A.b_c:d", "x" * 128])
def test_a_well_formed_request_id_comes_back(client, given):
    for path in ("/health", "/nope"):
        assert client.get(path, headers={"x-request-id": given}).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "é", 'a"b', "a;b=<script>"])
def test_an_ill_formed_request_id_is_replaced(client, given):
    answer = client.get("/health", headers={"x-request-id": given.encode()}).headers.get_list("x-request-id")
    assert len(answer) == 1
    assert re.fullmatch("[0-9a-f]{32}", answer[0])


def test_requests_are_logged_but_prompts_are_not(server, client):
    client.post("/generate", json={"prompt": "my secret", "max_tokens": 1}, headers={"x-request-id": "find-me"})
    client.get("/nope%0A%1B[31mfake?token=hidden", headers={"x-request-id": "hostile"})
    # A line is written when its answer is out, so it may come a moment after it.
    wait_for(lambda: "find-me" in server.log and "hostile" in server.log, 10, what="both lines of the log")
    line = next(line for line in server.lines if "find-me" in line)
    assert "POST '/generate'" in line
    assert "status=200" in line
    assert "secret" not in server.log
    assert "hidden" not in server.log
    assert "\x1b" not in server.log
