import concurrent.futures
import json
import math

import httpx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving import events, wait_for

from app.api.logprobs import chat_logprobs, completion_logprobs
from app.engine.messages import Token, TokenLogprobs
from model.checkpoint import load_model
from model.generate import generate
from model.sampling_params import SamplingParams
from model.tokenizer import Tokenizer

END = 256  # the id of <|endoftext|>; the others are bytes
URL = "/v1/completions"


def ask(client: httpx.Client, **body) -> dict:
    response = client.post(URL, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def texts(answer: dict) -> list[str]:
    assert [choice["index"] for choice in answer["choices"]] == list(range(len(answer["choices"])))
    return [choice["text"] for choice in answer["choices"]]


def refusal(client: httpx.Client, **body) -> dict:
    response = client.post(URL, json=body)
    assert response.status_code == 400, response.text
    return response.json()["error"]


def stream(client: httpx.Client, **body) -> list:
    with client.stream("POST", URL, json={**body, "stream": True}) as response:
        return events(response)


def put_together(chunks: list) -> list[dict]:
    """The choices that the chunks of a stream add up to."""
    choices: dict[int, dict] = {}
    for piece in (choice for chunk in chunks for choice in chunk["choices"]):
        whole = choices.setdefault(
            piece["index"], {"index": piece["index"], "text": "", "logprobs": None, "finish_reason": None}
        )
        assert whole["finish_reason"] is None, "nothing comes behind a choice's end"
        whole["text"] += piece["text"]
        whole["finish_reason"] = piece["finish_reason"]
        if "stop_reason" in piece:
            whole["stop_reason"] = piece["stop_reason"]
        if piece["logprobs"] is not None:
            before = whole["logprobs"] or {name: [] for name in piece["logprobs"]}
            whole["logprobs"] = {name: before[name] + values for name, values in piece["logprobs"].items()}
    return [choices[index] for index in sorted(choices)]


def test_the_whole_shape(client):
    answer = ask(client, model="tiny", prompt="Hi", max_tokens=5, ignore_eos=True, user="somebody")
    assert set(answer) == {"id", "object", "created", "model", "choices", "usage"}
    assert answer["id"].startswith("cmpl-")
    assert (answer["object"], answer["model"]) == ("text_completion", "tiny")
    (choice,) = answer["choices"]
    assert {**choice, "text": ""} == {
        "index": 0, "text": "", "logprobs": None, "finish_reason": "length", "stop_reason": None
    }  # fmt: skip
    usage = answer["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (2, 5, 7)
    assert usage["prompt_tokens_details"]["cached_tokens"] in (0, 1)


def test_the_answer_is_the_plain_generators_in_every_form_of_prompt(client, model_dir):
    model, tokenizer = load_model(model_dir), Tokenizer.from_directory(model_dir)
    prompts = ["Once upon a time", "x", "Größe"]
    ids = [list(prompt.encode()) for prompt in prompts]
    expected = [
        tokenizer.decode(generate(model, prompt, SamplingParams(seed=7), 16), skip_special=True) for prompt in ids
    ]
    assert texts(ask(client, prompt=prompts, seed=7)) == expected
    assert texts(ask(client, prompt=ids, seed=7)) == expected
    assert texts(ask(client, prompt=prompts[0], seed=7)) == expected[:1]
    assert texts(ask(client, prompt=ids[0], seed=7)) == expected[:1]


def test_choices_are_ordered_and_each_prompt_counts_once(client):
    sent = {"prompt": ["abc", "wxyz"], "n": 3, "seed": 11, "max_tokens": 10, "ignore_eos": True}
    answer = ask(client, **sent, best_of=3)
    assert len(texts(answer)) == 6
    assert texts(answer) == texts(ask(client, **sent))
    assert len(set(texts(answer))) == 6, "choices with a seed differ from one another"
    one = ask(client, prompt="wxyz", seed=11, max_tokens=10, ignore_eos=True)
    assert texts(one)[0] == texts(answer)[3], "the first choice of a prompt is that of a request for one"
    usage = answer["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (7, 60)
    assert len(set(texts(ask(client, prompt="abc", n=4, max_tokens=20)))) == 4, "so do those without"


def test_cached_tokens_are_those_of_earlier_requests(client):
    prompt = "A prompt that nobody else has asked for: " + "0123456789" * 8
    first, again = (ask(client, prompt=prompt, n=2, max_tokens=2)["usage"] for _ in range(2))
    assert first["prompt_tokens"] == again["prompt_tokens"] == len(prompt)
    # The second choice shares what the first computes; but that this request did not find it there.
    assert first["prompt_tokens_details"]["cached_tokens"] < 40
    assert again["prompt_tokens_details"]["cached_tokens"] > 60


def test_lengths(client):
    assert ask(client, prompt="a", ignore_eos=True)["usage"]["completion_tokens"] == 16
    assert ask(client, prompt="a" * 1020, ignore_eos=True)["usage"]["completion_tokens"] == 4
    nothing = ask(client, prompt=["a" * 1024, "b"], max_tokens=0)
    assert texts(nothing) == ["", ""]
    assert [choice["finish_reason"] for choice in nothing["choices"]] == ["length"] * 2
    for prompt, tokens, param in (
        ("a" * 1020, 5, "max_tokens"),
        ("a" * 1024, None, "prompt"),
        ([97] * 1025, 0, "prompt"),
    ):
        error = refusal(client, prompt=["b", prompt] if isinstance(prompt, str) else [[98], prompt], max_tokens=tokens)
        assert (error["code"], error["param"]) == ("context_length_exceeded", param)
        assert (error["n_prompt_tokens"], error["n_ctx"]) == (len(prompt), 1024)


def test_without_a_prompt_a_text_is_begun(client):
    sent = {"seed": 1, "max_tokens": 8}
    begun = ask(client, **sent)
    assert begun["usage"]["prompt_tokens"] == 1
    assert texts(begun) == texts(ask(client, prompt=[END], **sent)) == texts(ask(client, prompt="", **sent))
    assert texts(ask(client, echo=True, **sent))[0] == "<|endoftext|>" + texts(begun)[0]


@pytest.fixture(scope="module")
def score(model_dir):
    """A prompt's log-probabilities by the plain model: [n, vocab], of which row i is for the token at i + 1."""
    model = load_model(model_dir)

    def score(ids):
        with torch.inference_mode():
            return torch.log_softmax(model(torch.tensor([ids]))[0].float(), -1)

    return score


@pytest.mark.parametrize("prompt", ["The cat.", "Grüße €", "<|endoftext|>ab", [*"Gö".encode(), END, 120, 0xC3]])
def test_a_prompt_is_scored(client, score, model_dir, prompt):
    tokenizer = Tokenizer.from_directory(model_dir)
    ids = tokenizer.encode_prompt(prompt) if isinstance(prompt, str) else prompt
    expected = score(ids)
    answer = ask(client, prompt=prompt, max_tokens=0, echo=True, logprobs=2)
    (choice,) = answer["choices"]
    assert choice["text"] == (prompt if isinstance(prompt, str) else tokenizer.decode(ids))
    assert answer["usage"]["completion_tokens"] == 0
    logprobs = choice["logprobs"]
    assert {len(values) for values in logprobs.values()} == {len(ids)}
    assert logprobs["bytes"] == [list(tokenizer.token_bytes(token)) for token in ids]
    assert logprobs["token_logprobs"][0] is logprobs["top_logprobs"][0] is None
    for place in range(1, len(ids)):
        value, top = logprobs["token_logprobs"][place], logprobs["top_logprobs"][place]
        assert value == pytest.approx(expected[place - 1, ids[place]].item(), abs=1e-4)
        assert top[logprobs["tokens"][place]] == value
        likeliest = expected[place - 1].topk(2).values.tolist()
        assert list(top.values())[:2] == pytest.approx(likeliest, abs=1e-4)
        assert len(top) == (3 if value < min(list(top.values())[:2]) else 2)
    for offset, token in zip(logprobs["text_offset"], logprobs["tokens"], strict=True):
        if not token.startswith("bytes:"):
            assert choice["text"][offset:].startswith(token)


def test_scores_of_prompt_and_answer_stand_in_one_list(client, score):
    prompt = "Grüße"
    answer = ask(client, prompt=prompt, max_tokens=6, temperature=0, echo=True, logprobs=1, ignore_eos=True, n=2)
    alone = ask(client, prompt=prompt, max_tokens=6, temperature=0, logprobs=1, ignore_eos=True)
    for choice in answer["choices"]:
        assert choice["text"] == prompt + texts(alone)[0]
        logprobs = choice["logprobs"]
        ids = [data[0] if len(data) == 1 else END for data in logprobs["bytes"]]
        expected = score(ids)
        values = [expected[place - 1, ids[place]].item() for place in range(1, len(ids))]
        assert logprobs["token_logprobs"][1:] == pytest.approx(values, abs=1e-4)
        behind = alone["choices"][0]["logprobs"]
        assert logprobs["text_offset"][-6:] == [len(prompt) + offset for offset in behind["text_offset"]]
        assert logprobs["tokens"][-6:] == behind["tokens"]


def test_log_probabilities_are_the_models_own_whatever_is_sampled(client, score):
    sent = {"prompt": "a", "max_tokens": 1, "logprobs": 5, "temperature": 0, "ignore_eos": True}
    forced = ask(client, **sent, logit_bias={"65": 100, "66": -100}, repetition_penalty=3)["choices"][0]["logprobs"]
    assert forced["tokens"] == ["A"]
    assert forced["token_logprobs"][0] == pytest.approx(score([97])[0, 65].item(), abs=1e-4)
    assert len(forced["top_logprobs"][0]) == 6, "five, and the token itself"
    zero = ask(client, **{**sent, "logprobs": 0})["choices"][0]["logprobs"]
    assert zero["top_logprobs"] == [dict(zip(zero["tokens"], zero["token_logprobs"], strict=True))]


def test_how_log_probabilities_are_rendered(model_dir):
    tokenizer = Tokenizer.from_directory(model_dir)
    token = Token(0xE2, 3, TokenLogprobs(-math.inf, [97, 0xE3], [-0.5, -1.5]))
    assert completion_logprobs([token], tokenizer, offset=4) == {
        "tokens": [r"bytes:\xe2"],
        "token_logprobs": [-9999.0],
        "top_logprobs": [{"a": -0.5, r"bytes:\xe3": -1.5, r"bytes:\xe2": -9999.0}],
        "text_offset": [7],
        "bytes": [[0xE2]],
    }
    (entry,) = chat_logprobs([token], tokenizer)["content"]
    assert {name: entry[name] for name in ("token", "bytes", "logprob")} == {
        "token": "\ufffd", "bytes": [0xE2], "logprob": -9999.0
    }  # fmt: skip
    assert [other["bytes"] for other in entry["top_logprobs"]] == [[97], [0xE3]]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    prompt=st.one_of(
        st.text(max_size=12),
        st.lists(st.text(max_size=8), min_size=1, max_size=3),
        st.lists(st.lists(st.integers(0, END), min_size=1, max_size=8), min_size=1, max_size=2),
    ),
    seed=st.integers(0, 10_000),
    n=st.integers(1, 2),
    stop=st.lists(st.text("abe ,\ufffd", min_size=1, max_size=2), max_size=3),
    logprobs=st.sampled_from([None, 0, 2]),
    echo=st.booleans(),
    include_usage=st.booleans(),
    max_tokens=st.sampled_from([0, 1, 25]),
)
def test_the_stream_adds_up_to_the_whole_answer(client, include_usage, **body):
    whole = ask(client, **body)
    options = {"stream_options": {"include_usage": True}} if include_usage else {}
    chunks = stream(client, **body, **options)
    for name in ("id", "created"):
        assert len({chunk[name] for chunk in chunks}) == 1
    assert all(chunk["object"] == "text_completion" and chunk["model"] == "tiny" for chunk in chunks)
    if include_usage:
        last = chunks.pop()
        assert last["choices"] == []
        details = [usage.pop("prompt_tokens_details") for usage in (last["usage"], whole["usage"])]
        assert all(detail["cached_tokens"] >= 0 for detail in details)
        assert last["usage"] == whole["usage"]
        assert all(chunk["usage"] is None for chunk in chunks)
    else:
        assert not any("usage" in chunk for chunk in chunks)
    assert all(len(chunk["choices"]) == 1 for chunk in chunks)
    # A prompt may be scored in other company than the first time, which may move the last bits.
    for streamed, asked in zip(put_together(chunks), whole["choices"], strict=True):
        ours, theirs = streamed.pop("logprobs"), asked.pop("logprobs")
        assert streamed == asked
        assert (ours is None) == (theirs is None) == (body["logprobs"] is None)
        if ours is not None:
            for name in ("tokens", "text_offset", "bytes"):
                assert ours[name] == theirs[name]
            for value, other in zip(ours["token_logprobs"], theirs["token_logprobs"], strict=True):
                assert value == other is None or value == pytest.approx(other, abs=1e-4)
    if not body["echo"]:
        assert not any(string in choice["text"] for choice in whole["choices"] for string in body["stop"])


def test_a_stop_string_is_looked_for_in_the_answer_alone(client):
    sent = {"seed": 3, "max_tokens": 40, "ignore_eos": True}
    text = texts(ask(client, prompt="xy", **sent))[0]
    stop = "y" + text[:2]  # would match across the border
    for body in ({**sent, "stop": [stop]}, {**sent, "stop": ["xy"]}):
        assert texts(ask(client, prompt="xy", echo=True, **body))[0].startswith("xy" + text[:3])
    (choice,) = ask(client, prompt="xy", echo=True, **sent, stop=text[10:14])["choices"]
    assert choice["text"] == "xy" + text[: text.index(text[10:14])]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", text[10:14])


def test_answers_can_be_held_to_a_form(client):
    schema = {"enum": ["left", "right"]}
    sent = {"response_format": {"type": "json_schema", "json_schema": {"name": "side", "schema": schema}}}
    answer = ask(client, prompt=["go ", "turn "], n=2, max_tokens=20, **sent)
    assert [choice["finish_reason"] for choice in answer["choices"]] == ["stop"] * 4
    assert {json.loads(text) for text in texts(answer)} <= {"left", "right"}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": [[1], []]}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": [[1], "a"]}, "prompt"),
        ({"prompt": [True]}, "prompt"),
        ({"prompt": [1.0]}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": {"text": "a"}}, "prompt"),
        ({"prompt": [[[1]]]}, "prompt"),
        ({"prompt": [257]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [10**30]}, "prompt"),
        ({"prompt": "\ud800"}, "prompt"),
        ({"prompt": ["a", "\ud800"]}, "prompt"),
        ({"prompt": ["a"] * 9}, "prompt"),
        ({"prompt": ["a"] * 3000}, "prompt"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"max_tokens": 1e3}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"n": 9}, "n"),
        ({"prompt": ["a"] * 3, "n": 3}, "n"),
        ({"n": 2, "best_of": 3}, "best_of"),
        ({"best_of": 2}, "best_of"),
        ({"n": 2, "best_of": 1}, "best_of"),
        ({"logprobs": 6}, "logprobs"),
        ({"logprobs": -1}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"echo": 1}, "echo"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream_options": {}, "stream": False}, "stream_options"),
        ({"stream": True, "stream_options": []}, "stream_options"),
        ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": [""]}, "stop"),
        ({"user": 5}, "user"),
        ({"temperature": 2.1}, "temperature"),
        ({"logit_bias": {"257": 1}}, "logit_bias"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_bad_fields_are_refused_by_name(client, body, param, streamed):
    if streamed and "stream" not in body and "stream_options" not in body:
        body = {**body, "stream": True}
    response = client.post(
        URL, content=json.dumps({"prompt": "a", **body}), headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 400, response.text
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert param.rpartition(".")[2] in error["message"]
    assert error["code"] in ("invalid_value", "unsupported_parameter")


@pytest.mark.parametrize(
    ("name", "harmless", "harmful"),
    [
        ("suffix", "", "The end."),
        ("messages", None, [{"role": "user", "content": "Hi"}]),
        ("max_completion_tokens", None, 5),
        ("top_logprobs", 0, 1),
        ("tools", [], [{"type": "function"}]),
        ("tool_choice", "none", "required"),
        ("use_beam_search", False, True),
        ("store", False, True),
        ("guided_json", None, {"type": "object"}),
        ("add_special_tokens", True, False),
    ],
)
def test_what_would_change_an_answer_elsewhere_is_refused_and_what_would_not_is_taken(client, name, harmless, harmful):
    ask(client, prompt="a", max_tokens=1, **{name: harmless})
    error = refusal(client, prompt="a", max_tokens=1, **{name: harmful})
    assert (error["code"], error["param"]) == ("unsupported_parameter", name)


@pytest.mark.parametrize("name", ["include_obfuscation", "continuous_usage_stats"])
def test_options_of_streams_that_are_not_done_here_are_refused(client, name):
    error = refusal(client, prompt="a", max_tokens=1, stream=True, stream_options={name: True})
    assert (error["code"], error["param"]) == ("unsupported_parameter", f"stream_options.{name}")
    stream(client, prompt="a", max_tokens=1, stream_options={name: False})


def test_unknown_fields_are_ignored_and_null_means_left_out(client):
    names = ["model", "prompt", "max_tokens", "n", "best_of", "echo", "logprobs", "stream", "stream_options", "user"]
    ask(client, **dict.fromkeys(names), suffix=None, response_format=None, surprise={"x": [1]})


def test_an_unknown_model(client):
    response = client.post(URL, json={"model": "gpt-3.5-turbo-instruct", "prompt": "a"})
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"


def test_a_request_refused_halfway_leaves_nothing_behind(server, client):
    """Of eight prompts the last can't be taken, when the others have been handed in."""
    for _ in range(3):
        assert refusal(client, prompt=[[97]] * 7 + [[300]], max_tokens=1000)["param"] == "prompt"
    server.wait_idle()
    assert client.get("/ready").status_code == 200


@pytest.mark.parametrize("streamed", [False, True])
def test_a_client_that_leaves_frees_all_its_places(server, client, streamed):
    body = {"prompt": ["a", "b"], "n": 3, "max_tokens": 1000, "ignore_eos": True, "stream": streamed}
    with server.client(timeout=httpx.Timeout(10, read=0.2)) as leaving:
        if streamed:
            with leaving.stream("POST", URL, json=body) as response:
                next(response.iter_bytes())
        else:
            with pytest.raises(httpx.ReadTimeout):
                leaving.post(URL, json=body)
    server.wait_idle()
    assert texts(ask(client, prompt="a", n=4, max_tokens=3, ignore_eos=True))


def test_many_at_once_get_the_answers_they_get_alone(client):
    def one(seed):
        sent = {"prompt": ["hello", "you"], "seed": seed, "max_tokens": 20}
        answer = put_together(stream(client, **sent)) if seed % 2 else ask(client, **sent)["choices"]
        return [choice["text"] for choice in answer]

    alone = [one(seed) for seed in range(4)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert list(pool.map(one, range(4))) == alone


def test_answers_that_do_not_all_find_a_place_are_refused_together(server, client):
    body = {"prompt": "a", "n": 8, "max_tokens": 1000, "ignore_eos": True, "stream": True}
    with server.client() as other, other.stream("POST", URL, json=body) as response:
        pieces = response.iter_bytes()  # kept: without it the response would be closed
        next(pieces)
        refused = client.post(URL, json={"prompt": "a", "n": 8, "max_tokens": 1})
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "queue_full"
        assert int(refused.headers["retry-after"]) >= 1
    server.wait_idle()
    wait_for(lambda: client.get("/ready").status_code == 200, 5, what="readiness")


def test_the_document_tells_all_fields(client):
    document = client.get("/openapi.json").json()
    schema = document["components"]["schemas"]["CompletionRequest"]["properties"]
    assert all("description" in field for field in schema.values())
    assert [kind["type"] for kind in schema["prompt"]["anyOf"]] == ["string", "array", "array", "array"]
    assert schema["max_tokens"]["default"] == 16
    assert (schema["n"]["minimum"], schema["n"]["maximum"]) == (1, 128)
    responses = document["paths"][URL]["post"]["responses"]
    assert set(responses["200"]["content"]) == {"application/json", "text/event-stream"}
    assert {"400", "404", "429", "503", "504"} <= set(responses)
