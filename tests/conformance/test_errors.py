"""What is wrong gets a 4xx in the one shape; what is only unknown is ignored."""

import pytest
from conformance import PATHS, check_error

KINDS = ["completions", "chat"]
BOTH = pytest.mark.parametrize("kind", KINDS)


@BOTH
@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"prompt": "a",}', b"\xff\xfe", b"nonsense", b'{"prompt": "\xc3"}'], ids=repr
)
def test_malformed_json(api, kind, body):
    """Malformed JSON is a 400."""
    error = api.refuse(PATHS[kind], body)
    assert error["type"] == "invalid_request_error"


@BOTH
@pytest.mark.parametrize("body", [b"[]", b'"text"', b"null", b"1"], ids=repr)
def test_no_object(api, kind, body):
    """A body that is no JSON object is a 400."""
    api.refuse(PATHS[kind], body)


@BOTH
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", "hot"), ("temperature", [1]), ("top_p", "half"), ("max_tokens", "many"), ("max_tokens", 1.5),
        ("n", "two"), ("stream", "perhaps"), ("stop", 5), ("stop", [1]), ("seed", "x"), ("logit_bias", [1]),
        ("logit_bias", {"x": 1}), ("presence_penalty", "a"), ("frequency_penalty", {}), ("model", 5),
    ],
)  # fmt: skip
def test_wrong_type(api, kind, field, value):
    """A field of a wrong type is a 400 that names it in param."""
    error = api.refuse(PATHS[kind], api.body(kind, "Hi", **{"max_tokens": 2, field: value}), param=field)
    assert error["type"] == "invalid_request_error"


@BOTH
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1), ("temperature", 2.1), ("top_p", -0.1), ("top_p", 1.1), ("n", 0), ("n", 129), ("max_tokens", -1),
        ("presence_penalty", 2.1), ("presence_penalty", -2.1), ("frequency_penalty", 2.1), ("frequency_penalty", -2.1),
        ("stop", ["a", "b", "c", "d", "e"]), ("logit_bias", {"5": 101}), ("logit_bias", {"5": -101}),
    ],
)  # fmt: skip
def test_out_of_range(api, kind, field, value):
    """A field out of OpenAI's range is a 400 that names it in param."""
    api.refuse(PATHS[kind], api.body(kind, "Hi", **{"max_tokens": 2, field: value}), param=field)


@pytest.mark.extension
@BOTH
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("top_p", 0), ("stop", ""), ("stop", ["a", ""]), ("seed", 2**63), ("top_k", -1), ("min_p", -0.1), ("min_p", 1.1),
        ("repetition_penalty", 0), ("min_tokens", -1), ("stop_token_ids", ["a"]), ("stop_token_ids", [10**9]),
        ("logit_bias", {"999999": 1}), ("ignore_eos", "no"), ("temperature", 10**400), ("top_k", 10**30),
    ],
    ids=lambda value: str(value)[:20],
)  # fmt: skip
def test_out_of_our_range(api, kind, field, value):
    """So are the ranges of the parameters that OpenAI's API doesn't have or doesn't bound."""
    api.refuse(PATHS[kind], api.body(kind, "Hi", **{"max_tokens": 2, field: value}), param=field)


@BOTH
def test_several_mistakes(api, kind):
    """A body with thousands of mistakes gets a short answer."""
    body = api.body(kind, "Hi", stop=[5] * 5000, messages=[5] * 5000, logit_bias={f"x{i}": "y" for i in range(5000)})
    response = api.post(PATHS[kind], body)
    check_error(response, 400)
    assert len(response.content) < 2000


@BOTH
def test_unknown_model(api, kind):
    """An unknown model is a 404 with code model_not_found."""
    api.refuse(PATHS[kind], api.body(kind, "Hi") | {"model": "no-such-model"}, 404, code="model_not_found")


@pytest.mark.extension
@BOTH
@pytest.mark.parametrize("name", ["no-such-model", "../homegrown-base", "/etc/passwd", "", "a" * 5000, "\u202e\x00"])
def test_unknown_model_lists_the_names(api, kind, name):
    """The refusal of an unknown model lists the valid names; a path names none."""
    error = api.refuse(PATHS[kind], api.body(kind, "Hi") | {"model": name}, 404, param="model")
    assert api.model in error["message"]


def test_unknown_route(api):
    """An unknown route is a 404 in the same shape."""
    for path in ("/v1/nothing", "/nothing", "/v1/completions/x"):
        check_error(api.client.get(path), 404)


@pytest.mark.extension
def test_unknown_route_has_a_code(api):
    """The code of an unknown route is not_found, of a wrong method method_not_allowed."""
    check_error(api.client.get("/v1/nothing"), 404, code="not_found")
    check_error(api.client.get("/v1/completions"), 405, code="method_not_allowed")


@BOTH
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_wrong_method(api, kind, method):
    """A wrong method is a 405 in the same shape."""
    check_error(api.client.request(method, PATHS[kind]), 405)


@pytest.mark.extension
@BOTH
@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_not_json(api, kind, content_type):
    """A body that isn't declared as JSON is a 415."""
    response = api.client.post(PATHS[kind], content=b'{"prompt": "a"}', headers={"Content-Type": content_type})
    check_error(response, 415, code="unsupported_media_type")


@pytest.mark.extension
@BOTH
def test_too_large(api, kind):
    """A body over 1 MiB is a 413."""
    api.refuse(PATHS[kind], api.body(kind, "a" * 2**20), 413, code="request_too_large")

    def chunks():
        for _ in range(40):
            yield b" " * 32768

    response = api.client.post(PATHS[kind], content=chunks(), headers={"Content-Type": "application/json"})
    check_error(response, 413, code="request_too_large")


@BOTH
def test_too_long(api, kind):
    """A prompt over the context is a 400 with code context_length_exceeded."""
    text = " hello" * min(api.context + 10, 150_000)
    error = api.refuse(PATHS[kind], api.body(kind, text, max_tokens=1), code="context_length_exceeded")
    assert error["type"] == "invalid_request_error"


@pytest.mark.extension
@BOTH
def test_too_long_says_how_long(api, kind):
    """That refusal has both counts, and names the field that holds the prompt."""
    text = " hello" * (api.context + 10)
    error = api.refuse(PATHS[kind], api.body(kind, text, max_tokens=1), code="context_length_exceeded")
    assert error["n_ctx"] == api.context
    assert error["n_prompt_tokens"] > api.context
    assert error["param"] == ("prompt" if kind == "completions" else "messages")


@BOTH
def test_more_than_fits(api, kind):
    """An explicit max_tokens that doesn't fit behind the prompt is refused."""
    body = api.body(kind, "Hello there", max_tokens=api.context)
    api.refuse(PATHS[kind], body, code="context_length_exceeded")


@BOTH
def test_wrong_and_streamed(api, kind):
    """A wrong request that asks for a stream gets its real 4xx, no stream with an error in it."""
    api.refuse(PATHS[kind], api.body(kind, "Hi", stream=True, temperature=5), param="temperature")
    api.refuse(PATHS[kind], api.body(kind, "Hi", stream=True) | {"model": "no-such-model"}, 404)
    api.refuse(PATHS[kind], api.body(kind, " hello" * min(api.context + 10, 150_000), stream=True))


@BOTH
def test_stream_options_without_stream(api, kind):
    """stream_options without stream is a 400."""
    api.refuse(PATHS[kind], api.body(kind, "Hi", stream_options={"include_usage": True}), param="stream_options")


@BOTH
def test_null(api, kind):
    """null means left out."""
    names = [
        "temperature",
        "top_p",
        "n",
        "stop",
        "seed",
        "stream",
        "logit_bias",
        "user",
        "presence_penalty",
        "logprobs",
    ]
    assert api.ask(kind, max_tokens=2, **dict.fromkeys(names))["choices"]


@BOTH
def test_unknown_fields(api, kind):
    """Fields unknown to everyone are ignored."""
    assert api.ask(kind, max_tokens=2, surprise={"x": [1]}, user="me")["choices"]


@pytest.mark.extension
@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("completions", "suffix", "the end"), ("completions", "best_of", 3), ("completions", "tools", [{"type": "function"}]),
        ("chat", "tools", [{"type": "function", "function": {"name": "f"}}]), ("chat", "functions", [{"name": "f"}]),
        ("chat", "modalities", ["text", "audio"]), ("chat", "audio", {"voice": "x", "format": "wav"}),
        ("chat", "web_search_options", {}),
    ],
)  # fmt: skip
def test_unsupported(api, kind, field, value):
    """What means something to OpenAI and not to us is refused by name, not ignored."""
    api.refuse(PATHS[kind], api.body(kind, "Hi", **{field: value}), param=field, code="unsupported_parameter")


@pytest.mark.extension
@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("completions", "suffix", ""), ("completions", "best_of", 1), ("chat", "tools", []), ("chat", "tool_choice", "none"),
        ("chat", "modalities", ["text"]), ("chat", "parallel_tool_calls", True), ("chat", "store", False),
        ("chat", "metadata", {"a": "b"}), ("chat", "service_tier", "auto"),
    ],
)  # fmt: skip
def test_harmless(api, kind, field, value):
    """The same fields with a value that changes nothing are fine."""
    assert api.ask(kind, max_tokens=2, **{field: value})["choices"]


@BOTH
def test_the_server_goes_on(api, kind):
    """After all that was refused, a request is answered as ever."""
    assert api.ask(kind, max_tokens=2)["usage"]["completion_tokens"] > 0
