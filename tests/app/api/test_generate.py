import json

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving import events

from model.checkpoint import load_model
from model.generate import generate
from model.sampling_params import SamplingParams
from model.tokenizer import Tokenizer


def ask(client: httpx.Client, **body) -> dict:
    response = client.post("/generate", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def test_the_answer_is_the_plain_generators(client, model_dir):
    model, tokenizer = load_model(model_dir), Tokenizer.from_directory(model_dir)
    for params in ({"temperature": 0}, {"seed": 5}, {"seed": -1, "temperature": 0.5, "top_p": 0.9, "min_p": 0.01}):
        body = ask(client, prompt="Once upon a time", max_tokens=30, **params)
        ids = list(generate(model, list(b"Once upon a time"), SamplingParams(**params), 30))
        assert body["text"] == tokenizer.decode(ids, skip_special=True)
        assert body["usage"] == {"prompt_tokens": 16, "completion_tokens": len(ids), "total_tokens": 16 + len(ids)}


def test_the_whole_shape(client):
    body = ask(client, prompt="Hi", max_tokens=5, ignore_eos=True)
    assert set(body) == {"id", "model", "text", "finish_reason", "stop_reason", "usage", "timings"}
    assert body["id"].startswith("gen-")
    assert (body["model"], body["finish_reason"], body["stop_reason"]) == ("tiny", "length", None)
    assert set(body["timings"]) == {"queue_ms", "prefill_ms", "decode_ms", "tokens_per_second"}
    assert all(value >= 0 for value in body["timings"].values())


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    prompt=st.text(max_size=20),
    seed=st.integers(0, 10_000),
    stop=st.lists(st.text("abe ,\ufffd", min_size=1, max_size=2), max_size=3),
    logprobs=st.sampled_from([None, 0, 2]),
)
def test_the_stream_adds_up_to_the_whole_answer(client, prompt, seed, stop, logprobs):
    body = {"prompt": prompt, "seed": seed, "stop": stop, "max_tokens": 40, "logprobs": logprobs}
    whole = ask(client, **body)
    with client.stream("POST", "/generate", json={**body, "stream": True}) as response:
        pieces = events(response)
    assert "".join(piece["text"] for piece in pieces) == whole["text"]
    assert [piece.keys() - {"logprobs"} for piece in pieces[:-1]] == [{"text"}] * (len(pieces) - 1)
    last = pieces[-1]
    assert set(last) == set(whole)
    for field in ("model", "finish_reason", "stop_reason", "usage"):
        assert last[field] == whole[field]
    assert not any(string in whole["text"] for string in stop)
    if logprobs is not None:
        reports = [report for piece in pieces for report in piece["logprobs"]]
        assert reports == whole["logprobs"]
        assert len(reports) == whole["usage"]["completion_tokens"]


def test_stream_headers(client):
    with client.stream("POST", "/generate", json={"prompt": "a", "stream": True, "max_tokens": 2}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-cache"
        assert response.headers["x-accel-buffering"] == "no"
        assert response.headers["x-request-id"]
        events(response)


def test_a_stop_string_over_several_tokens_does_not_leak(client):
    text = ask(client, prompt="x", seed=3, max_tokens=60, ignore_eos=True)["text"]
    stop = text[10:14]  # tokens are single bytes here: four or more of them
    for stream in (False, True):
        body = {"prompt": "x", "seed": 3, "max_tokens": 60, "ignore_eos": True, "stop": stop, "stream": stream}
        with client.stream("POST", "/generate", json=body) as response:
            pieces = events(response) if stream else [json.loads(response.read())]
        assert "".join(piece["text"] for piece in pieces) == text[: text.index(stop)]
        assert (pieces[-1]["finish_reason"], pieces[-1]["stop_reason"]) == ("stop", stop)


def test_true_bytes_and_offsets_with_half_characters(client):
    bias = {str(byte): 100 for byte in "é".encode()}  # both bytes equally forced: whole and broken characters
    body = ask(client, prompt="x", seed=2, max_tokens=24, logit_bias=bias, logprobs=0)
    data = bytes(byte for report in body["logprobs"] for byte in report["bytes"])
    assert set(data) == set("é".encode())
    assert body["text"] == data.decode("utf-8", "replace")
    before = 0
    for report in body["logprobs"]:
        assert report["text_offset"] >= before
        before = report["text_offset"]
        assert report["logprob"] <= 0
        assert report["top_logprobs"] == []


def test_a_truncated_last_character_is_the_replacement_character(client):
    bias = {str("é".encode()[0]): 100}
    for stream in (False, True):
        with client.stream(
            "POST", "/generate", json={"prompt": "x", "max_tokens": 1, "logit_bias": bias, "stream": stream}
        ) as r:
            pieces = events(r) if stream else [json.loads(r.read())]
        assert "".join(piece["text"] for piece in pieces) == "\ufffd"


def test_the_default_length_is_cut_to_the_room_and_an_asked_one_is_refused(client):
    long = "a" * 1000
    assert ask(client, prompt=long, ignore_eos=True)["usage"]["completion_tokens"] == 24
    assert ask(client, prompt="a", ignore_eos=True)["usage"]["completion_tokens"] == 128
    assert ask(client, prompt=long, max_tokens=24, ignore_eos=True)["usage"]["completion_tokens"] == 24
    response = client.post("/generate", json={"prompt": long, "max_tokens": 25})
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "max_tokens")
    assert (error["n_prompt_tokens"], error["n_ctx"]) == (1000, 1024)


@pytest.mark.parametrize("length", [1024, 5000])
def test_a_prompt_without_room_is_refused_unless_nothing_is_asked_for(client, length):
    response = client.post("/generate", json={"prompt": "a" * length, "stream": True})
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["code"], error["param"], error["n_prompt_tokens"]) == ("context_length_exceeded", "prompt", length)
    if length == 1024:
        body = ask(client, prompt="a" * length, max_tokens=0)
        assert (body["text"], body["usage"]["completion_tokens"]) == ("", 0)


def test_null_means_left_out(client):
    names = ["model", "max_tokens", "temperature", "stop", "seed", "stream", "logprobs", "logit_bias", "n"]
    assert ask(client, prompt="a", **dict.fromkeys(names))["finish_reason"] in ("stop", "length")


def test_unknown_fields_and_harmless_ones_are_ignored(client):
    body = ask(client, prompt="a", max_tokens=1, user="me", surprise={"x": [1]}, n=1, best_of=1, echo=False, suffix="")
    assert body["model"] == "tiny"


def test_token_ids_are_taken_as_they_are(client, model_dir):
    asked = {"max_tokens": 12, "seed": 4, "logprobs": 2}
    for ids in (list(b"Once"), [0xE2, 0x82], [256, 72]):  # a text's, half a character's, a special token's
        expected = client.post("/v1/completions", json={**asked, "prompt": ids}).json()["choices"][0]
        body = ask(client, prompt=ids, **asked)
        assert (body["text"], body["usage"]["prompt_tokens"]) == (expected["text"], len(ids))
        assert [token["bytes"] for token in body["logprobs"]] == expected["logprobs"]["bytes"]
    assert ask(client, prompt=list(b"Hi"), **asked)["text"] == ask(client, prompt="Hi", **asked)["text"]


@pytest.mark.parametrize("prompt", [[], [1.5], [True], [[1]], ["a"], {"a": 1}, 5, [257], [-1], [2**70]])
def test_a_prompt_is_a_text_or_token_ids(client, prompt):
    response = client.post("/generate", json={"prompt": prompt})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "prompt"), response.text


def test_an_empty_prompt_begins_a_text(client):
    assert ask(client, prompt="", max_tokens=2)["usage"]["prompt_tokens"] == 1


def test_special_tokens_in_a_raw_prompt_count_as_such(client):
    assert ask(client, prompt="<|endoftext|>a", max_tokens=1)["usage"]["prompt_tokens"] == 2


def test_the_model_can_be_named(client):
    assert ask(client, prompt="a", model="tiny", max_tokens=1)["model"] == "tiny"
    for name in ("gpt-5", "../tiny", "/etc/passwd", ""):
        response = client.post("/generate", json={"prompt": "a", "model": name})
        assert response.status_code == 404
        error = response.json()["error"]
        assert (error["code"], error["param"]) == ("model_not_found", "model")
        assert error["message"].endswith("tiny")


def test_streams_share_the_slots_fairly(server, client):
    import concurrent.futures

    def one(seed):
        return ask(client, prompt="hello", seed=seed, max_tokens=50)["text"]

    alone = [one(seed) for seed in range(8)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(one, range(8))) == alone


@pytest.mark.parametrize("name", ["top_k", "min_tokens"])
def test_a_number_too_large_is_refused_by_name_and_keeps_no_place(client, name):
    for _ in range(3):
        response = client.post("/generate", json={"prompt": "Hi", "max_tokens": 3, name: 10**30})
        assert response.status_code == 400
        assert response.json()["error"]["param"] == name
    assert client.get("/ready").status_code == 200
