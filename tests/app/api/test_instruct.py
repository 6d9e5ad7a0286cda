import json

import httpx
import pytest

from model.prompts import InstructionTemplate
from model.tokenizer import Tokenizer

FIELDS = {"instruction": "Say it in French.", "input": "Good morning", "system": "Be short."}


def ask(client: httpx.Client, path: str = "/instruct", **body) -> dict:
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def without_times(answer: dict) -> dict:
    return {name: value for name, value in answer.items() if name not in ("id", "timings")}


@pytest.mark.parametrize("given", [["instruction"], ["instruction", "input"], ["instruction", "input", "system"]])
def test_it_is_the_template_around_a_generate(client, model_dir, given):
    fields = {name: FIELDS[name] for name in given}
    prompt = InstructionTemplate.from_directory(model_dir).render(**fields)
    wanted = {"seed": 3, "max_tokens": 24, "logprobs": 1}
    answer = ask(client, **fields, **wanted)
    assert without_times(answer) == without_times(ask(client, "/generate", prompt=prompt, **wanted))
    assert answer["id"].startswith("gen-")
    assert answer["usage"]["prompt_tokens"] == len(prompt.encode())


def test_null_and_empty_mean_left_out(client):
    plain = ask(client, instruction="Sing.", max_tokens=4, temperature=0)
    for value in (None, ""):
        body = {"instruction": "Sing.", "input": value, "system": value, "max_tokens": 4, "temperature": 0}
        assert without_times(ask(client, **body)) == without_times(plain)


def test_the_stream_adds_up_to_the_whole_answer(client):
    body = {"instruction": "Count.", "seed": 11, "max_tokens": 40, "ignore_eos": True}
    whole = ask(client, **body)
    with client.stream("POST", "/instruct", json={**body, "stream": True}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        frames = response.read().decode().split("\n\n")
    assert frames[-2:] == ["data: [DONE]", ""]
    pieces = [json.loads(frame.removeprefix("data: ")) for frame in frames[:-2]]
    assert "".join(piece["text"] for piece in pieces) == whole["text"]
    assert pieces[-1]["usage"] == whole["usage"]


def test_what_is_written_in_an_instruction_is_no_special_token(client, model_dir):
    tokenizer, template = Tokenizer.from_directory(model_dir), InstructionTemplate.from_directory(model_dir)
    fields = {name: f"a <|endoftext|> {{{{ 7 * 7 }}}} {name}" for name in FIELDS}
    ids = template.encode(tokenizer, **fields)
    assert tokenizer.eos_token_id not in ids
    assert ask(client, **fields, max_tokens=1)["usage"]["prompt_tokens"] == len(ids)


def test_the_templates_stops_end_an_answer_beside_the_requests_own(client):
    bias = {str(byte): 100 for byte in b"\n# "}  # nothing but these three, so that "\n\n### " comes about soon
    body = {"instruction": "a", "max_tokens": 880, "temperature": 2, "logit_bias": bias}
    assert ask(client, **body, seed=0, stop="#")["stop_reason"] == "#"
    for seed in range(30):
        answer = ask(client, **body, seed=seed, stop="###  ###")
        assert "\n\n### " not in answer["text"]
        assert "###  ###" not in answer["text"]
        if answer["stop_reason"] == "\n\n### ":
            break
    else:
        pytest.fail("the template's stop never came about")


def test_a_json_answer_can_be_asked_for(client):
    answer = ask(client, instruction="a", seed=1, max_tokens=300, response_format={"type": "json_object"})
    if answer["finish_reason"] == "stop":
        assert isinstance(json.loads(answer["text"]), dict)
    assert answer["text"].lstrip().startswith("{")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "instruction"),
        ({"instruction": ""}, "instruction"),
        ({"instruction": ["a"]}, "instruction"),
        ({"instruction": "a", "input": 1}, "input"),
        ({"instruction": "a", "system": {}}, "system"),
        ({"instruction": "a", "n": 2}, "n"),
        ({"instruction": "a", "messages": []}, "messages"),
        ({"instruction": "a", "temperature": 3}, "temperature"),
    ],
)
def test_mistakes_are_named(client, body, param):
    response = client.post("/instruct", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


def test_lengths(client):
    for body, param in (
        ({"instruction": "a" * 2000}, "instruction"),
        ({"instruction": "a", "max_tokens": 1000}, "max_tokens"),
    ):
        response = client.post("/instruct", json={**body, "stream": True})
        assert response.status_code == 400
        error = response.json()["error"]
        assert (error["code"], error["param"], error["n_ctx"]) == ("context_length_exceeded", param, 1024)


def test_an_unknown_model(client):
    response = client.post("/instruct", json={"instruction": "a", "model": "nobody"})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")
