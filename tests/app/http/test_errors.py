"""Every refusal: its status, its four keys, its code and the field it names."""

import json

import pytest

from app.engine.messages import AdapterError
from app.http.errors import to_api_error

JSON = {"content-type": "application/json"}


def error_of(response, status, kind="invalid_request_error", code=None, param=None):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert {"message", "type", "param", "code"} <= set(error)
    assert (error["type"], error["code"], error["param"]) == (kind, code, param)
    assert 0 < len(error["message"]) < 600
    assert "Traceback" not in error["message"]
    assert "/work" not in error["message"]
    assert response.headers["x-request-id"]
    return error


def read_answer(sock) -> bytes:
    """One response with a Content-Length."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += sock.recv(4096)
    head, body = data.split(b"\r\n\r\n", 1)
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += sock.recv(4096)
    return head + b"\r\n\r\n" + body


def post(client, content, headers=JSON):
    return client.post("/generate", content=content, headers=headers)


@pytest.mark.parametrize(
    "content",
    ["{", "{'prompt': 'a'}", '{"prompt": "a",}', "nope", '{"prompt": "a"} x', '{"prompt": "\n"}'],
)
def test_malformed_json(client, content):
    error_of(post(client, content), 400)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b'{"prompt": "\xff\xfe"}', "not UTF-8"),
        ('{"prompt": "a"}'.encode("utf-16"), "not UTF-8"),
        (b"[" * 50_000, "nested too deeply"),
        (b'{"prompt": ' + b"9" * 9000 + b"}", "too many digits"),
    ],
)
def test_json_that_is_worse_is_told_why(client, content, why):
    assert why in error_of(post(client, content), 400)["message"]


@pytest.mark.parametrize(
    "content", [b'{"prompt": "\xff\xfe"}', b"[" * 50_000, b'{"a":' * 9000, b'{"prompt": ' + b"9" * 9000 + b"}"]
)
def test_json_that_is_worse(client, content):
    response = post(client, content)
    assert response.status_code == 400
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("content", ["[]", '"text"', "3", "null", ""])
def test_json_that_is_no_object(client, content):
    error_of(post(client, content), 400, code="invalid_value")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", 3), ("prompt", ["a"]), ("max_tokens", -1), ("max_tokens", "5"), ("max_tokens", 1.5),
        ("max_tokens", True), ("max_tokens", 2**40), ("temperature", -0.1), ("temperature", 2.1), ("temperature", "hot"),
        ("temperature", float("nan")), ("temperature", float("inf")), ("top_p", 0), ("top_p", 1.01), ("top_k", -1),
        ("top_k", 1.5), ("min_p", -0.1), ("min_p", 1.1), ("presence_penalty", 2.1), ("frequency_penalty", -2.1),
        ("repetition_penalty", 0), ("repetition_penalty", 1e-60), ("repetition_penalty", 1e39),
        ("seed", 2**63), ("seed", -(2**63) - 1), ("seed", 1.5), ("stop", 3), ("stop", ""),
        ("stop", ["a", ""]), ("stop", list("abcde")), ("stop_token_ids", [257]), ("stop_token_ids", [-1]),
        ("stop_token_ids", 5), ("ignore_eos", "yes"), ("min_tokens", -1), ("logit_bias", {"x": 1}),
        ("logit_bias", {"5": 101}), ("logit_bias", {"257": 1}), ("logit_bias", [1]), ("logprobs", 21), ("logprobs", -1),
        ("logprobs", True), ("stream", 1), ("stream", "true"), ("model", 5),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(client, field, value):
    body = json.dumps({"prompt": "a", field: value})
    response = post(client, body)
    error = response.json()["error"]
    assert response.status_code == 400, error
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_value")
    assert error["param"].split("[")[0] == field
    streamed = post(client, json.dumps({"prompt": "a", "stream": True, field: value}))
    assert streamed.status_code == 400  # its real status, not a 200 with an error inside


def test_half_a_surrogate_pair_does_no_harm(client):
    assert post(client, r'{"prompt": "a\ud83d", "stop": "\ud83d", "max_tokens": 2}').status_code == 200
    error_of(post(client, r'{"prompt": "a", "model": "\ud83d"}'), 404, code="model_not_found", param="model")


def test_a_missing_prompt(client):
    error_of(post(client, "{}"), 400, code="invalid_value", param="prompt")


@pytest.mark.parametrize(
    ("field", "value"),
    [("n", 2), ("best_of", 3), ("echo", True), ("suffix", "x"), ("tools", [{}]),
     ("max_completion_tokens", 5), ("top_logprobs", 2), ("n", True)],
)  # fmt: skip
def test_what_openai_has_and_we_have_not_is_refused(client, field, value):
    error_of(post(client, json.dumps({"prompt": "a", field: value})), 400, code="unsupported_parameter", param=field)


def test_many_mistakes_get_a_short_answer(client):
    body = json.dumps({"prompt": "a", "stop_token_ids": ["x"] * 100, "logit_bias": {str(i): "y" for i in range(2000)}})
    response = post(client, body)
    assert response.status_code == 400
    assert len(response.content) < 500


def test_a_body_with_ten_thousand_fields(client):
    body = json.dumps({"prompt": "a", "max_tokens": 1} | {f"f{i}": i for i in range(4000)})
    assert post(client, body).status_code == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""])
def test_not_json(client, kind):
    error_of(post(client, '{"prompt":"a"}', {"content-type": kind}), 415, code="unsupported_media_type")


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8", "application/vnd.x+json"])
def test_json_by_any_name(client, kind):
    assert post(client, '{"prompt":"a","max_tokens":1}', {"content-type": kind}).status_code == 200


def test_unknown_routes_and_wrong_methods(client):
    for path in ("/", "/nope", "/generate/", "/v1", "/v1/../etc", "/%00", "/health/x"):
        if path != "/":
            error_of(client.get(path), 404, code="not_found")
    error_of(client.post("/nope", content="x", headers={"content-type": "text/plain"}), 404, code="not_found")
    error = client.get("/generate")
    error_of(error, 405, code="method_not_allowed")
    assert error.headers["allow"] == "POST"
    error_of(client.post("/health"), 405, code="method_not_allowed")


def test_a_wrong_method_names_all_that_the_path_takes(client):
    error = client.patch("/v1/adapters")
    error_of(error, 405, code="method_not_allowed")
    assert "POST" in error.headers["allow"].split(", ")
    assert error.headers["allow"] == client.get("/v1/adapters").headers["allow"]


def test_a_body_over_the_limit_is_refused_by_its_announced_length(server):
    with server.connect() as sock:
        head = (
            b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99999999\r\n\r\n"
        )
        sock.sendall(head)  # and nothing of the body
        answer = read_answer(sock)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"request_too_large"' in answer


def test_a_body_over_the_limit_without_an_announcement(client):
    def chunks():
        for _ in range(20):
            yield b" " * 8192

    error_of(client.post("/generate", content=chunks(), headers=JSON), 413, code="request_too_large")
    assert client.get("/health").status_code == 200


def test_bytes_that_are_not_http(server):
    for data in (
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        b"GET\r\n\r\n",
        b"POST /generate HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
    ):
        with server.connect() as sock:
            sock.sendall(data)
            answer = read_answer(sock)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]["type"] == "invalid_request_error"


def test_unknown_model_at_v1(client):
    error_of(client.get("/v1/models/nope"), 404, code="model_not_found", param="model")


def test_an_adapter_that_is_gone_is_told_in_the_clients_terms():
    """It was unloaded while its request waited: the field at fault is the one that named it."""
    error = to_api_error(AdapterError("there is no adapter 'x'"), "id")
    assert (error.status_code, error.body["param"], error.body["code"]) == (400, "model", "invalid_value")
