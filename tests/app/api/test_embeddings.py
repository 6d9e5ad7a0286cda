import array
import base64
import math

import httpx
import pytest
import torch
from pydantic import ValidationError

from app.schemas.embeddings import EmbeddingRequest
from model.checkpoint import load_model

TEXTS = ["Once upon a time", "é", "<|endoftext|>"]


def ask(client: httpx.Client, **body) -> dict:
    response = client.post("/v1/embeddings", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def refusal(client: httpx.Client, **body) -> dict:
    response = client.post("/v1/embeddings", json=body)
    assert response.status_code == 400, response.text
    return response.json()["error"]


def test_the_mean_of_the_hidden_states_of_length_one(client, model_dir):
    answer = ask(client, input=TEXTS, model="tiny")
    assert set(answer) == {"object", "data", "model", "usage"}
    assert (answer["object"], answer["model"]) == ("list", "tiny")
    model = load_model(model_dir)
    for i, (text, entry) in enumerate(zip(TEXTS, answer["data"], strict=True)):
        assert (entry["object"], entry["index"], set(entry)) == ("embedding", i, {"object", "index", "embedding"})
        mean = model.hidden_states(torch.tensor([list(text.encode())]))[0].mean(0)
        assert entry["embedding"] == pytest.approx((mean / mean.norm()).tolist(), abs=1e-4)
        assert math.fsum(value**2 for value in entry["embedding"]) == pytest.approx(1.0, abs=1e-6)
    n_tokens = sum(len(text.encode()) for text in TEXTS)
    assert answer["usage"] == {"prompt_tokens": n_tokens, "total_tokens": n_tokens}


def test_base64_holds_the_same_numbers(client):
    floats = ask(client, input="hello")["data"][0]["embedding"]
    coded = ask(client, input="hello", encoding_format="base64")["data"][0]["embedding"]
    values = array.array("f", base64.b64decode(coded, validate=True))  # (this machine's own order: little-endian)
    assert values.tolist() == pytest.approx(floats, abs=1e-6)
    assert len(values) == 32


def test_token_ids_instead_of_texts(client):
    text = ask(client, input=["hello", "you"])["data"]
    ids = ask(client, input=[list(b"hello"), list(b"you")])["data"]
    assert [each["embedding"] for each in ids] == [pytest.approx(each["embedding"], abs=1e-5) for each in text]
    (one,) = ask(client, input=list(b"hello"))["data"]
    assert one["embedding"] == pytest.approx(text[0]["embedding"], abs=1e-5)
    assert ask(client, input=[256])["usage"]["prompt_tokens"] == 1  # a special token, by its id only


def test_more_inputs_than_slots_and_queue_keep_their_order(client):
    texts = [f"text number {i}" for i in range(30)]
    data = ask(client, input=texts)["data"]
    assert [each["index"] for each in data] == list(range(30))
    for i in (0, 13, 29):
        assert data[i]["embedding"] == pytest.approx(ask(client, input=texts[i])["data"][0]["embedding"], abs=1e-5)


def test_its_own_number_of_dimensions_may_be_asked_for(client):
    assert len(ask(client, input="a", dimensions=32, user="me")["data"][0]["embedding"]) == 32
    error = refusal(client, input="a", dimensions=16)
    assert (error["param"], error["code"]) == ("dimensions", "unsupported_parameter")


def test_a_full_context_fits_and_one_more_token_does_not(client):
    assert ask(client, input="a" * 1024)["usage"]["total_tokens"] == 1024
    for body, param in (
        ({"input": "a" * 1025}, "input"),
        ({"input": ["a", [7] * 1025][1:]}, "input"),
        ({"input": ["a", "a" * 1025]}, "input[1]"),
    ):
        error = refusal(client, **body)
        assert (error["code"], error["param"]) == ("context_length_exceeded", param)
        assert (error["n_prompt_tokens"], error["n_ctx"]) == (1025, 1024)


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({}, "input", "required"),
        ({"input": ""}, "input", "empty"),
        ({"input": []}, "input", "empty"),
        ({"input": ["a", ""]}, "input", "entry 1 is empty"),
        ({"input": [[1], []]}, "input", "entry 1 is empty"),
        ({"input": ["a", 1]}, "input", "must be"),
        ({"input": [1, "a"]}, "input", "must be"),
        ({"input": [[1], 1]}, "input", "must be"),
        ({"input": [[1], ["a"]]}, "input", "must be"),
        ({"input": [{}] * 20_000}, "input", "must be"),
        ({"input": [None]}, "input", "must be"),
        ({"input": [[True], [1]]}, "input", "must be"),
        ({"input": [[1]] * 2049}, "input", "2048"),
        ({"input": [True]}, "input", "must be"),
        ({"input": [1.5]}, "input", "must be"),
        ({"input": {"text": "a"}}, "input", "must be"),
        ({"input": 1}, "input", "must be"),
        ({"input": ["a"] * 2049}, "input", "2048"),
        ({"input": [257]}, "input", "no token id"),
        ({"input": [[1], [2, -1]]}, "input[1]", "no token id"),
        ({"input": [10**30]}, "input", "no token id"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format", "float"),
        ({"input": "a", "dimensions": 0}, "dimensions", "1"),
    ],
)
def test_mistakes_are_named(client, body, param, message):
    error = refusal(client, **body)
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert message in error["message"]
    assert len(error["message"]) < 300


def test_an_input_of_thousands_of_mistakes_is_looked_at_once():
    """Each of four shapes would otherwise list every entry: half a second for all other requests."""
    for value in ([{}] * 300_000, [[{}]] * 2048, [[]] * 300_000, [["a"] * 100] * 2048):
        with pytest.raises(ValidationError) as caught:
            EmbeddingRequest.model_validate({"input": value})
        assert caught.value.error_count() == 1
        assert len(caught.value.errors()[0]["msg"]) < 200


def test_an_unknown_model(client):
    response = client.post("/v1/embeddings", json={"input": "a", "model": "text-embedding-3-small"})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")
