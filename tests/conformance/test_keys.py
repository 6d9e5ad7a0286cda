import pytest
from conformance import check_error, need


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models"), ("GET", "/v1/models/x"), ("POST", "/v1/completions"), ("POST", "/v1/chat/completions"),
        ("POST", "/v1/embeddings"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("key", [None, "wrong"])
def test_keys(api, method, path, key):
    """Without its API key, or with a wrong one, a route answers 401 with WWW-Authenticate: Bearer."""
    need(api.key, "set API_KEY: the server under test asks for no key")
    headers = {"Authorization": "" if key is None else f"Bearer {key}"}
    response = api.client.request(method, path, headers=headers, json={} if method == "POST" else None)
    error = check_error(response, 401, code="invalid_api_key")
    assert error["type"] == "authentication_error"
    assert response.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.extension
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/generate"), ("POST", "/instruct"), ("POST", "/classify"), ("POST", "/tokenize"), ("POST", "/detokenize"),
        ("POST", "/v1/adapters"), ("DELETE", "/v1/adapters/x"), ("GET", "/metrics"), ("GET", "/version"), ("GET", "/no"),
    ],
)  # fmt: skip
def test_keys_on_our_own_routes(api, method, path):
    """Our own routes want the key too; also one that doesn't exist."""
    need(api.key, "set API_KEY: the server under test asks for no key")
    response = api.client.request(method, path, headers={"Authorization": ""}, json={} if method == "POST" else None)
    check_error(response, 401, code="invalid_api_key")


@pytest.mark.extension
@pytest.mark.parametrize("header", ["Basic {}", "{}", "bearer wrong {}", "Bearer {}x", "Bearer", "Bearer \xe9"])
def test_keys_in_other_forms(api, header):
    """A key counts as a bearer's token only."""
    need(api.key, "set API_KEY: the server under test asks for no key")
    value = header.format(api.key).encode("latin-1")
    check_error(api.client.get("/v1/models", headers={b"Authorization": value}), 401, code="invalid_api_key")


@pytest.mark.extension
def test_keys_in_wrong_places(api):
    """A key in the query, in a cookie or in the body opens nothing."""
    need(api.key, "set API_KEY: the server under test asks for no key")
    without = {"Authorization": ""}
    for options in (
        {"params": {"api_key": api.key}, "headers": without},
        {"headers": {**without, "Cookie": f"api_key={api.key}", "X-Api-Key": api.key}},
        {"json": {"api_key": api.key, "prompt": "a"}, "headers": without},
    ):
        check_error(api.client.post("/v1/completions", **options), 401, code="invalid_api_key")
