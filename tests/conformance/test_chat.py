import math

import pytest
from conformance import PATHS, need, text_of

USER = [{"role": "user", "content": "Who lives by the sea?"}]
GREEDY = {"temperature": 0, "max_tokens": 16}


def test_shape(api):
    """An answer has OpenAI's form: id, object, created, model, choices with a message, usage."""
    body = api.chat(USER, max_tokens=5)
    assert body["object"] == "chat.completion"
    assert body["id"].startswith("chatcmpl-")
    assert isinstance(body["created"], int)
    assert body["model"] == api.model
    (choice,) = body["choices"]
    assert choice["index"] == 0
    assert choice["message"]["role"] == "assistant"
    assert isinstance(choice["message"]["content"], str)
    assert choice["finish_reason"] in ("stop", "length")
    assert choice.get("logprobs") is None
    usage = body["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_roles(api):
    """system, user and assistant messages are all part of the prompt."""
    talk = [
        {"role": "system", "content": "You are brief."},
        {"role": "user", "content": "Who is there?"},
        {"role": "assistant", "content": "A boy."},
        {"role": "user", "content": "Where is he?"},
    ]
    counts = [api.chat(talk[i:], max_tokens=1)["usage"]["prompt_tokens"] for i in (0, 1, 3)]
    assert counts == sorted(counts, reverse=True)
    assert len(set(counts)) == 3


def test_parts(api):
    """Content as text parts means the same as their text."""
    parts = [{"role": "user", "content": [{"type": "text", "text": USER[0]["content"]}]}]
    assert text_of(api.chat(parts, **GREEDY)["choices"][0]) == text_of(api.chat(USER, **GREEDY)["choices"][0])


@pytest.mark.parametrize(
    "messages",
    [
        [], "Hi", [5], [{"role": "user"}], [{"content": "Hi"}], [{"role": "nobody", "content": "Hi"}],
        [{"role": "user", "content": 5}], [{"role": "user", "content": [{"type": "text"}]}],
        [{"role": "user", "content": [{"type": "smell", "text": "Hi"}]}], {"role": "user", "content": "Hi"}, None,
    ],
    ids=repr,
)  # fmt: skip
def test_wrong_messages(api, messages):
    """Messages of a wrong form, or none, are a 400 that names them."""
    api.refuse(PATHS["chat"], {"model": api.model, "messages": messages, "max_tokens": 2}, param="messages")


@pytest.mark.extension
def test_images(api):
    """A part that isn't text is refused: there is nothing here that could see it."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    api.refuse(PATHS["chat"], {"messages": [{"role": "user", "content": [image]}]}, param="messages")


def test_max_completion_tokens(api):
    """max_completion_tokens bounds the answer."""
    body = api.chat(USER, max_completion_tokens=3, temperature=0)
    assert body["usage"]["completion_tokens"] <= 3


def test_max_completion_tokens_wins(api):
    """max_completion_tokens wins over max_tokens."""
    short, long = (api.chat(USER, temperature=0, max_tokens=n)["usage"]["completion_tokens"] for n in (2, 12))
    need(short < long, "the model ends its answer at once")
    body = api.chat(USER, temperature=0, max_tokens=2, max_completion_tokens=12)
    assert body["usage"]["completion_tokens"] == long


@pytest.mark.extension
def test_default_length(api):
    """Unless said otherwise an answer may fill the context."""
    body = api.chat(USER, ignore_eos=True, logit_bias={"300": 100}, stop=["\u0000"])
    assert body["usage"]["total_tokens"] == api.context
    assert body["choices"][0]["finish_reason"] == "length"


@pytest.mark.extension
def test_a_last_assistant_message_is_continued(api):
    """A last assistant message is continued, not answered: nothing stands behind its text in the prompt."""
    begun = [*USER, {"role": "assistant", "content": "Once upon a time there was"}]
    prompt, ids = (
        api.ask_at(path, body)
        for path, body in (
            ("/tokenize", {"model": api.model, "messages": begun}), ("/tokenize", {"prompt": " there was"}),
        )
    )  # fmt: skip
    assert prompt["tokens"][-len(ids["tokens"]) :] == ids["tokens"]
    assert api.chat(begun, max_tokens=1)["usage"]["prompt_tokens"] == len(prompt["tokens"])


@pytest.mark.parametrize("token", ["<|endoftext|>", "<|im_end|>", "</s>", "<|eot_id|>", "<end_of_turn>"])
def test_no_special_token_from_a_user(api, token):
    """A user's text never becomes a special token."""
    plain, injected = (
        api.chat([{"role": "user", "content": text}], max_tokens=1)["usage"]["prompt_tokens"]
        for text in ("a", "a" + token * 4)
    )
    assert injected >= plain + 8


def test_templates_are_not_run(api):
    """A template in a message is text."""
    texts = ["{{ 7 * 7 }}", "{% for x in range(10**9) %}x{% endfor %}", "{{ messages.__class__.__mro__ }}"]
    for text in texts:
        body = api.chat([{"role": "user", "content": text}], max_tokens=1)
        assert body["usage"]["prompt_tokens"] > len(text) / 8


@pytest.mark.parametrize("count", [0, 1, 20])
def test_logprobs(api, count):
    """logprobs gives each token with its log-probability and bytes, and top_logprobs so many likeliest ones."""
    (choice,) = api.chat(USER, logprobs=True, top_logprobs=count, **GREEDY)["choices"]
    content = choice["logprobs"]["content"]
    assert "".join(entry["token"] for entry in content) == choice["message"]["content"]
    assert bytes(byte for entry in content for byte in entry["bytes"]).decode() == choice["message"]["content"]
    for entry in content:
        top = entry["top_logprobs"]
        assert len(top) == count
        assert [other["logprob"] for other in top] == sorted((other["logprob"] for other in top), reverse=True)
        assert all(set(other) >= {"token", "logprob", "bytes"} for other in top)
        assert count == 0 or top[0]["logprob"] == pytest.approx(entry["logprob"], abs=1e-4)
        assert sum(math.exp(other["logprob"]) for other in top) <= 1.001


def test_logprobs_without_top(api):
    """logprobs alone gives no alternatives."""
    (choice,) = api.chat(USER, logprobs=True, **GREEDY)["choices"]
    assert all(entry["top_logprobs"] == [] for entry in choice["logprobs"]["content"])


def test_wrong_logprobs(api):
    """top_logprobs beyond 20, or without logprobs, is a 400."""
    for fields in ({"logprobs": True, "top_logprobs": 21}, {"logprobs": True, "top_logprobs": -1}, {"top_logprobs": 2}):
        api.refuse(PATHS["chat"], {"model": api.model, "messages": USER, **fields}, param="top_logprobs")
    api.refuse(PATHS["chat"], {"model": api.model, "messages": USER, "logprobs": 5}, param="logprobs")


@pytest.mark.extension
def test_true_bytes_of_half_characters(api):
    """The bytes of a token are its true ones, also where it holds a part of a character only."""
    tokens = api.ask_at("/tokenize", {"prompt": "日語한글ק𝄞"})
    half, data = next(
        (token, piece)
        for token, piece in zip(tokens["tokens"], tokens["pieces"], strict=True)
        if "\ufffd" in bytes(piece).decode("utf-8", "replace")
    )
    (choice,) = api.chat(USER, logprobs=True, max_tokens=3, logit_bias={str(half): 100})["choices"]
    assert [entry["bytes"] for entry in choice["logprobs"]["content"]] == [data] * 3
    assert choice["message"]["content"] == bytes(data * 3).decode("utf-8", "replace")


@pytest.mark.extension
def test_same_as_the_prompt_alone(api):
    """A chat's answer is the completion of its rendered prompt, stops of the plain template aside."""
    ids = api.ask_at("/tokenize", {"model": api.model, "messages": USER})["tokens"]
    stops = ["\n\nUser:", "\n\nSystem:", "\n\nAssistant:"]
    completed = api.complete(ids, temperature=0, max_tokens=40, stop=stops)["choices"][0]["text"]
    assert text_of(api.chat(USER, temperature=0, max_tokens=40)["choices"][0]) == completed
