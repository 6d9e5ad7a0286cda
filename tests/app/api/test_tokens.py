import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.prompts import PromptTemplate
from model.tokenizer import Tokenizer

CHAT = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": [{"type": "text", "text": "Hi <|endoftext|>"}, {"type": "text", "text": "you"}]},
]


def ask(client: httpx.Client, path: str = "/tokenize", **body) -> dict:
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=60))
def test_there_and_back(client, text):
    answer = ask(client, prompt=text, return_token_strs=True)
    assert set(answer) == {"count", "max_model_len", "tokens", "pieces", "token_strs"}
    assert answer["count"] == len(answer["tokens"]) == len(answer["pieces"])
    assert b"".join(map(bytes, answer["pieces"])).decode() == text
    assert answer["token_strs"] == [bytes(piece).decode("utf-8", "replace") for piece in answer["pieces"]]
    assert answer["max_model_len"] == 1024
    assert ask(client, "/detokenize", tokens=answer["tokens"]) == {"prompt": text}


def test_special_tokens_count_as_in_a_prompt(client, model_dir):
    text = "<|endoftext|>a"
    answer = ask(client, prompt=text, pieces=False, model="tiny")
    assert answer == {"count": 2, "max_model_len": 1024, "tokens": [256, 97]}
    assert answer["tokens"] == Tokenizer.from_directory(model_dir).encode_prompt(text)
    assert ask(client, prompt=text, add_special_tokens=False)["tokens"] == [256, 97]
    assert ask(client, "/detokenize", tokens=[256, 97])["prompt"] == text


def test_half_a_character(client):
    half = ask(client, prompt="é")
    assert half["pieces"] == [[0xC3], [0xA9]]
    assert ask(client, "/detokenize", tokens=half["tokens"][:1])["prompt"] == "\ufffd"
    assert ask(client, "/detokenize", tokens=[])["prompt"] == ""


@pytest.mark.parametrize("more", [{}, {"add_generation_prompt": False}, {"continue_final_message": True}])
def test_a_chat_is_put_into_the_template(client, model_dir, more):
    messages = [*CHAT, {"role": "assistant", "content": "Well"}] if "continue_final_message" in more else CHAT
    plain = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hi <|endoftext|>\nyou"}]
    plain += messages[2:]
    template, tokenizer = PromptTemplate.from_directory(model_dir), Tokenizer.from_directory(model_dir)
    options = {"add_generation_prompt": True, **more} if "continue_final_message" not in more else {**more}
    if "continue_final_message" in more:
        options["add_generation_prompt"] = False
    expected = template.encode(plain, tokenizer, **options)
    answer = ask(client, messages=messages, **more)
    assert answer["tokens"] == expected
    assert 256 not in answer["tokens"], "nobody writes special tokens"


def test_it_counts_what_generating_counts(client):
    usage = client.post("/v1/chat/completions", json={"messages": CHAT, "max_tokens": 1}).json()["usage"]
    assert ask(client, messages=CHAT)["count"] == usage["prompt_tokens"]
    usage = client.post("/v1/completions", json={"prompt": "Hello", "max_tokens": 1}).json()["usage"]
    assert ask(client, prompt="Hello")["count"] == usage["prompt_tokens"]


def test_more_than_the_context_is_counted_too(client):
    assert ask(client, prompt="a" * 5000)["count"] == 5000


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": None}, "prompt"),
        ("/tokenize", {"prompt": ["a"]}, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": CHAT}, "prompt"),
        ("/tokenize", {"messages": []}, "messages"),
        ("/tokenize", {"messages": "a"}, "messages"),
        ("/tokenize", {"messages": [{"role": "user"}]}, "messages[0].content"),
        ("/tokenize", {"messages": [{"role": "wizard", "content": "a"}]}, "messages[0].role"),
        ("/tokenize", {"messages": CHAT, "continue_final_message": True}, "continue_final_message"),
        ("/tokenize", {"prompt": "a", "pieces": 1}, "pieces"),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": "a"}, "tokens"),
        ("/detokenize", {"tokens": ["1"]}, "tokens[0]"),
        ("/detokenize", {"tokens": [1, 257]}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens"),
        ("/detokenize", {"tokens": [10**30]}, "tokens"),
    ],
)
def test_mistakes_are_named(client, path, body, param):
    response = client.post(path, json=body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize"])
@pytest.mark.parametrize("body", [[], "a", 5])
def test_a_body_that_is_no_object(client, path, body):
    response = client.post(path, json=body)
    assert response.status_code == 400
    assert "object" in response.json()["error"]["message"]


def test_an_unknown_model(client):
    for path, body in (("/tokenize", {"prompt": "a"}), ("/detokenize", {"tokens": [1]})):
        response = client.post(path, json={**body, "model": "nobody"})
        assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")
