"""Routes and headers of ours: not asked of other servers."""

import re
import time

import pytest
from conformance import DONE, check_error, read_events

pytestmark = pytest.mark.extension


def test_generate(api):
    """POST /generate: text, finish_reason, stop_reason, usage and timings."""
    body = api.ask_at("/generate", {"prompt": "Once upon a time", "max_tokens": 8, "temperature": 0})
    assert {"id", "model", "text", "finish_reason", "stop_reason", "usage", "timings"} == set(body)
    assert body["text"] == api.complete("Once upon a time", max_tokens=8, temperature=0)["choices"][0]["text"]


def test_generate_streamed(api):
    """POST /generate, streamed: pieces of text, the last with finish_reason, usage and timings."""
    body = {"prompt": "Once upon a time", "max_tokens": 12, "seed": 3}
    whole = api.ask_at("/generate", body)
    response = api.post("/generate", body | {"stream": True})
    events, frames = read_events(response.text)
    assert frames[-1] == DONE
    assert "".join(event["text"] for event in events) == whole["text"]
    assert all(set(event) == {"text"} for event in events[:-1])
    assert set(events[-1]) == set(whole)
    assert events[-1]["usage"] == whole["usage"]


def test_generate_logprobs(api):
    """POST /generate with logprobs: each token's id, text, bytes, offset and the likeliest others."""
    body = api.ask_at("/generate", {"prompt": "Once upon a time", "max_tokens": 4, "temperature": 0, "logprobs": 2})
    for token in body["logprobs"]:
        assert {"id", "token", "bytes", "logprob", "text_offset", "top_logprobs"} <= set(token)
        assert len(token["top_logprobs"]) == 2
    assert "".join(token["token"] for token in body["logprobs"]) == body["text"]


def test_instruct(api):
    """POST /instruct: the instruction template around a generate."""
    body = {"instruction": "Name an animal.", "input": "It barks.", "max_tokens": 8, "temperature": 0}
    whole = api.ask_at("/instruct", body)
    assert {"id", "model", "text", "finish_reason", "stop_reason", "usage", "timings"} == set(whole)
    events, _ = read_events(api.post("/instruct", body | {"stream": True}).text)
    assert "".join(event["text"] for event in events) == whole["text"]
    shorter = api.ask_at("/instruct", {"instruction": "Name an animal.", "max_tokens": 1})
    assert shorter["usage"]["prompt_tokens"] < whole["usage"]["prompt_tokens"]
    api.refuse("/instruct", {"input": "It barks."}, param="instruction")


def test_classify(api):
    """POST /classify with labels: a label and scores that sum to 1, per text, in order."""
    labels = ["joy", "anger", "fear"]
    texts = ["What a lovely day!", "He shouted and struck the table.", "She dared not look back."]
    whole = api.ask_at("/classify", {"input": texts, "labels": labels})
    alone = [api.ask_at("/classify", {"input": text, "labels": labels})["data"][0] for text in texts]
    for entry, one in zip(whole["data"], alone, strict=True):
        assert entry["label"] == max(entry["scores"], key=entry["scores"].__getitem__)
        assert set(entry["scores"]) == set(labels)
        assert sum(entry["scores"].values()) == pytest.approx(1, abs=1e-6)
        assert entry["truncated"] is False
        assert one["scores"] == pytest.approx(entry["scores"], abs=1e-3)


def test_classify_with_examples(api):
    """POST /classify with examples: they change the scores."""
    body = {"input": "The cake was sweet.", "labels": ["food", "weather"]}
    examples = [{"text": "It rained all day.", "label": "weather"}, {"text": "We ate bread.", "label": "food"}]
    plain, shown = (api.ask_at("/classify", body | more)["data"][0]["scores"] for more in ({}, {"examples": examples}))
    assert plain != shown
    assert sum(shown.values()) == pytest.approx(1, abs=1e-6)
    api.refuse("/classify", body | {"examples": [{"text": "a", "label": "no such"}]}, param="examples")


def test_classify_top_k(api):
    """POST /classify with top_k: only so many scores."""
    body = {"input": "a", "labels": ["x", "y", "z"], "top_k": 2}
    assert len(api.ask_at("/classify", body)["data"][0]["scores"]) == 2
    api.refuse("/classify", body | {"top_k": 0}, param="top_k")


def test_classify_reports_truncation(api):
    """POST /classify: a text over the context is cut, and that is told."""
    (entry,) = api.ask_at("/classify", {"input": " hello" * (api.context * 2), "labels": ["x", "y"]})["data"]
    assert entry["truncated"] is True


@pytest.mark.parametrize("labels", [None, [], ["one"], ["a", "a"], "ab", [1, 2], ["a", ""]], ids=repr)
def test_classify_wrong_labels(api, labels):
    """POST /classify: labels that can't be told apart are a 400."""
    api.refuse("/classify", {"input": "a", "labels": labels}, param="labels")


@pytest.mark.parametrize(
    "text",
    ["Once upon a time", "naïve café – 日本語 🙂‍↔️", " \n\t ", "<|endoftext|>", "\u0000\ufffd", "עברית"],
    ids=ascii,
)
def test_tokenize(api, text):
    """POST /tokenize and /detokenize: ids and back, with the pieces' true bytes."""
    body = api.ask_at("/tokenize", {"prompt": text})
    assert body["count"] == len(body["tokens"]) == len(body["pieces"])
    assert body["max_model_len"] == api.context
    assert b"".join(map(bytes, body["pieces"])) == text.encode()
    assert api.ask_at("/detokenize", {"tokens": body["tokens"]})["prompt"] == text


def test_tokenize_messages(api):
    """POST /tokenize of messages: the ids of the prompt that a chat makes of them."""
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi <|endoftext|>"}]
    count = api.ask_at("/tokenize", {"model": api.model, "messages": messages})["count"]
    assert count == api.chat(messages, max_tokens=1)["usage"]["prompt_tokens"]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"), ("/tokenize", {"prompt": 5}, "prompt"), ("/tokenize", {"messages": []}, "messages"),
        ("/detokenize", {}, "tokens"), ("/detokenize", {"tokens": ["a"]}, "tokens"), ("/detokenize", {"tokens": [-1]}, "tokens"),
        ("/detokenize", {"tokens": [10**9]}, "tokens"), ("/detokenize", {"tokens": "a"}, "tokens"),
    ],
)  # fmt: skip
def test_tokenize_wrong(api, path, body, param):
    """POST /tokenize and /detokenize: what can't be is a 400 that names the field."""
    api.refuse(path, body, param=param)


def test_probes(api):
    """GET /health and /ready are open, and fine."""
    for path in ("/health", "/ready"):
        assert api.client.get(path, headers={"Authorization": ""}).status_code == 200


def test_version(api):
    """GET /version: versions, model, device, dtype."""
    body = api.client.get("/version").json()
    assert body["model"] == api.model
    assert {"version", "device", "dtype", "torch"} <= set(body)


def test_metrics(api):
    """GET /metrics: Prometheus text with our prefix, families for all that is counted."""
    api.complete("Once upon a time", max_tokens=4)
    response = api.client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain")
    words = [
        "requests_running", "requests_waiting", "finished", "aborted", "rejected", "prompt_tokens", "generation_tokens",
        "prefix_cache", "slots", "time_to_first_token", "inter_token", "queue", "prefill", "decode", "step", "batch", "info",
    ]  # fmt: skip
    assert [word for word in words if word not in response.text] == []


def test_gauges(api):
    """GET /metrics: the gauges of requests are 0 when none is there."""
    pattern = re.compile(r"^homegrown_\w+_(?:running|waiting)(?:\{[^}]*\})? (\S+)$", re.MULTILINE)
    end = time.monotonic() + 5
    while any(map(float, values := pattern.findall(api.client.get("/metrics").text))):
        assert time.monotonic() < end, values
        time.sleep(0.02)
    assert len(values) >= 2


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/none", "/nothing", "/health"])
def test_request_id(api, path):
    """A well-formed X-Request-Id comes back, on errors too; without one, or with a bad one, one is made."""
    assert api.client.get(path, headers={"X-Request-Id": "a-1.b_2"}).headers["x-request-id"] == "a-1.b_2"
    for bad in ("", "a b", "x" * 200, "<script>", "a\tb"):
        given = api.client.get(path, headers={"X-Request-Id": bad}).headers["x-request-id"]
        assert re.fullmatch(r"[A-Za-z0-9-]{16,64}", given)


def test_request_ids_on_answers_and_streams(api):
    """An answer's and a stream's X-Request-Id, too, is the client's."""
    for stream in (False, True):
        body = api.body("chat", "Hi", max_tokens=1, stream=stream)
        response = api.client.post("/v1/chat/completions", json=body, headers={"X-Request-Id": f"mine-{stream}"})
        assert response.headers["x-request-id"] == f"mine-{stream}"


@pytest.mark.parametrize("name", ["none", "..%2Fhomegrown-base", "%2Fetc", "a%00b", "x" * 300])
def test_unloading_what_is_not_there(api, name):
    """DELETE /v1/adapters/{name} of no adapter is a 4xx; a path names none."""
    response = api.client.delete(f"/v1/adapters/{name}")
    check_error(response, response.status_code)
    assert response.status_code in (400, 404)


@pytest.mark.parametrize("name", ["none", "../homegrown-base", "/etc", "", "a\u0000b", "x" * 300, 5, None], ids=repr)
def test_loading_what_is_not_there(api, name):
    """POST /v1/adapters of no folder's name is a 4xx; no path is taken from a request."""
    response = api.post("/v1/adapters", {"name": name})
    check_error(response, response.status_code)
    assert response.status_code in (400, 404)
    assert "checkpoints" not in response.text


def test_openapi(api):
    """The OpenAPI document has every route, and no status 422."""
    document = api.client.get("/openapi.json").json()
    routes = [
        "/generate", "/instruct", "/classify", "/v1/completions", "/v1/chat/completions", "/v1/embeddings", "/v1/models",
        "/tokenize", "/detokenize", "/v1/adapters", "/health", "/ready", "/version", "/metrics",
    ]  # fmt: skip
    assert [route for route in routes if route not in document["paths"]] == []
    assert all("422" not in op["responses"] for path in document["paths"].values() for op in path.values())
