"""Chat: the conversation becomes the template's prompt, the answers OpenAI's objects; streamed they are the same."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from app.engine.local import local_engine
from app.engine.messages import EngineSpec
from app.main import create_app
from app.settings import Settings
from model.checkpoint import load_model, save_model
from model.generate import generate
from model.prompts import PLAIN_STOPS, PromptTemplate
from model.sampling_params import SamplingParams
from model.tokenizer import Tokenizer

PATH = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Hello"}]


def ask(client: httpx.Client, messages: Any = HELLO, **body: Any) -> dict[str, Any]:
    response = client.post(PATH, json={"messages": messages, **body})
    assert response.status_code == 200, response.text
    return response.json()


def chunks(client: httpx.Client, messages: Any = HELLO, **body: Any) -> list[dict[str, Any]]:
    """The JSON of each event of a streamed answer."""
    with client.stream("POST", PATH, json={"messages": messages, "stream": True, **body}) as response:
        frames = response.read().decode().split("\n\n")
        assert response.status_code == 200, frames
    assert frames.pop() == ""
    assert frames.pop() == "data: [DONE]"
    return [json.loads(frame.removeprefix("data: ")) for frame in frames]


def refusal(client: httpx.Client, messages: Any = HELLO, **body: Any) -> dict[str, Any]:
    response = client.post(PATH, json={"messages": messages, **body})
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert set(error) >= {"message", "type", "param", "code"}
    return error


def put_together(pieces: list[dict[str, Any]], n: int) -> list[dict[str, Any]]:
    """The choices of a whole answer, of its chunks; checks what must be true of chunks on the way."""
    assert len({(piece["id"], piece["created"], piece["model"]) for piece in pieces}) == 1
    assert {piece["object"] for piece in pieces} == {"chat.completion.chunk"}
    choices: list[dict[str, Any]] = [{"index": index, "text": "", "tokens": [], "end": None} for index in range(n)]
    began = set()
    for piece in pieces:
        for chunk in piece["choices"]:
            choice, delta = choices[chunk["index"]], chunk["delta"]
            assert choice["end"] is None, "nothing comes after the end"
            assert ("role" in delta) == (chunk["index"] not in began), "the role stands in the first chunk, once"
            assert delta.get("role", "assistant") == "assistant"
            began.add(chunk["index"])
            choice["text"] += delta.get("content", "")
            choice["tokens"] += (chunk["logprobs"] or {"content": []})["content"]
            if chunk["finish_reason"] is not None:
                choice["end"] = (chunk["finish_reason"], chunk["stop_reason"])
    return choices


def as_streamed(choice: dict[str, Any]) -> dict[str, Any]:
    return {
        "index": choice["index"],
        "text": choice["message"]["content"],
        "tokens": (choice["logprobs"] or {"content": []})["content"],
        "end": (choice["finish_reason"], choice["stop_reason"]),
    }


def test_the_whole_shape(client):
    body = ask(client, max_tokens=4, ignore_eos=True)
    assert set(body) == {"id", "object", "created", "model", "choices", "usage"}
    assert body["id"].startswith("chatcmpl-")
    assert (body["object"], body["model"]) == ("chat.completion", "tiny")
    (choice,) = body["choices"]
    assert set(choice) == {"index", "message", "logprobs", "finish_reason", "stop_reason"}
    assert (choice["index"], choice["logprobs"], choice["finish_reason"]) == (0, None, "length")
    assert set(choice["message"]) == {"role", "content", "refusal"}
    assert (choice["message"]["role"], choice["message"]["refusal"]) == ("assistant", None)
    usage = body["usage"]
    assert (usage["completion_tokens"], usage["total_tokens"]) == (4, usage["prompt_tokens"] + 4)


def expected(model_dir: Path, messages: list[dict[str, str]], length: int, **options: Any) -> tuple[int, str]:
    """Length of the prompt, and the plain generator's greedy answer to it."""
    model, tokenizer = load_model(model_dir), Tokenizer.from_directory(model_dir)
    prompt = PromptTemplate.from_directory(model_dir).encode(messages, tokenizer, **options)
    ids = list(generate(model, prompt, SamplingParams(temperature=0), length))
    return len(prompt), tokenizer.decode(ids, skip_special=True)


def check(client: httpx.Client, model_dir: Path, sent: Any, meant: Any, body: dict[str, Any], **options: Any) -> None:
    answer = ask(client, sent, temperature=0, max_tokens=24, **body)
    assert (answer["usage"]["prompt_tokens"], answer["choices"][0]["message"]["content"]) == expected(
        model_dir, meant, 24, **options
    )


def test_a_model_without_a_template_reads_a_transcript(client, model_dir):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "Who are you?"},
    ]
    check(client, model_dir, messages, messages, {})
    text = PromptTemplate.from_directory(model_dir).render(messages)
    assert text.startswith("System:\nBe brief.\n\nUser:\nHi\n\nAssistant:\nYes?")
    assert text.endswith("Who are you?\n\nAssistant:\n")


def test_text_parts_and_the_developer_role(client, model_dir):
    sent = [
        {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "text", "text": "One"}, {"type": "text", "text": "two"}], "name": "ann"},
    ]
    meant = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "One\ntwo"}]
    check(client, model_dir, sent, meant, {})


def test_a_last_message_of_the_assistants_is_continued(client, model_dir):
    messages = [*HELLO, {"role": "assistant", "content": "Once upon a"}]
    closed, opened = {"add_generation_prompt": False}, {"add_generation_prompt": True}
    continued = {**closed, "continue_final_message": True}
    check(client, model_dir, messages, messages, {}, **continued)
    check(client, model_dir, messages, messages, continued, **continued)
    check(client, model_dir, messages, messages, {"continue_final_message": False}, **opened)
    check(client, model_dir, messages, messages, opened, **opened)
    check(client, model_dir, messages, messages, closed, **closed)
    assert refusal(client, messages, **opened, continue_final_message=True)["param"] == "continue_final_message"
    assert refusal(client, HELLO, continue_final_message=True)["param"] == "continue_final_message"


def test_what_clients_send_back_of_an_answer_is_taken(client):
    message = ask(client, max_tokens=2, ignore_eos=True)["choices"][0]["message"]
    extras = {"tool_calls": None, "function_call": None, "audio": None, "annotations": []}
    ask(client, [*HELLO, {**message, **extras}, *HELLO], max_tokens=1)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(max_size=20),
    seed=st.integers(-(2**63), 2**63 - 1),
    stop=st.lists(st.text("abe ,\ufffd", min_size=1, max_size=2), max_size=3),
    n=st.integers(1, 3),
    top=st.sampled_from([None, 0, 2]),
)
def test_the_stream_adds_up_to_the_whole_answer(client, text, seed, stop, n, top):
    messages = [{"role": "user", "content": text}]
    logprobs = {} if top is None else {"logprobs": True, "top_logprobs": top}
    body = {"seed": seed, "stop": stop, "n": n, "max_tokens": 30, **logprobs}
    whole = ask(client, messages, **body)
    pieces = chunks(client, messages, stream_options={"include_usage": True}, **body)
    *pieces, last = pieces
    assert put_together(pieces, n) == [as_streamed(choice) for choice in whole["choices"]]
    assert last["choices"] == []
    assert all(piece["usage"] is None for piece in pieces)
    for field in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert last["usage"][field] == whole["usage"][field]
    if top is not None:
        tokens = [token for choice in whole["choices"] for token in choice["logprobs"]["content"]]
        assert len(tokens) == whole["usage"]["completion_tokens"]
        assert all(len(token["top_logprobs"]) == top for token in tokens)


def test_a_stream_tells_its_usage_only_when_asked(client):
    pieces = chunks(client, max_tokens=3)
    assert all("usage" not in piece for piece in pieces)
    assert all(len(piece["choices"]) == 1 for piece in pieces)
    assert refusal(client, stream_options={"include_usage": True})["param"] == "stream_options"


def test_choices_differ_and_a_seed_brings_them_back(client):
    def texts(**body: Any) -> list[str]:
        answer = ask(client, n=3, max_tokens=12, ignore_eos=True, **body)
        assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
        assert answer["usage"]["completion_tokens"] == 36
        assert answer["usage"]["prompt_tokens"] == len("User:\nHello\n\nAssistant:\n")  # once, though there are three
        return [choice["message"]["content"] for choice in answer["choices"]]

    seeded = texts(seed=7)
    assert len(set(seeded)) == 3
    assert texts(seed=7) == seeded
    assert len({*texts(), *texts()}) == 6


def test_the_length_of_an_answer(client):
    prompt = len("User:\nHello\n\nAssistant:\n")
    count = ask(client, ignore_eos=True)["usage"]["completion_tokens"]
    assert count == 1024 - prompt  # the rest of the context
    assert ask(client, max_tokens=5, ignore_eos=True)["usage"]["completion_tokens"] == 5
    both = ask(client, max_tokens=5, max_completion_tokens=3, ignore_eos=True)
    assert both["usage"]["completion_tokens"] == 3
    nothing = ask(client, max_tokens=0)["choices"][0]
    assert (nothing["message"]["content"], nothing["finish_reason"]) == ("", "length")
    assert put_together(chunks(client, max_tokens=0), 1) == [as_streamed(nothing)]


@pytest.mark.parametrize("stream", [False, True])
def test_what_does_not_fit_the_context_is_refused(client, stream):
    long = [{"role": "user", "content": "a" * 1000}]
    room = 1024 - len("User:\n\n\nAssistant:\n") - 1000
    for field in ("max_tokens", "max_completion_tokens"):
        error = refusal(client, long, stream=stream, **{field: room + 1})
        assert (error["code"], error["param"]) == ("context_length_exceeded", field)
        assert (error["n_prompt_tokens"], error["n_ctx"]) == (1024 - room, 1024)
    for length in (1000 + room, 9000):
        error = refusal(client, [{"role": "user", "content": "a" * length}], stream=stream)
        assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")
    ask(client, [{"role": "user", "content": "a" * (1000 + room)}], max_tokens=0)


def test_no_message_makes_a_special_token(client):
    plain = ask(client, [{"role": "user", "content": "<-endoftext->"}], max_tokens=1)["usage"]["prompt_tokens"]
    for content in ("<|endoftext|>", [{"type": "text", "text": "<|endoftext|>"}]):
        assert ask(client, [{"role": "user", "content": content}], max_tokens=1)["usage"]["prompt_tokens"] == plain


def test_log_probabilities_are_the_models_own(client, model_dir):
    model, tokenizer = load_model(model_dir), Tokenizer.from_directory(model_dir)
    prompt = PromptTemplate.from_directory(model_dir).encode(HELLO, tokenizer)
    with torch.no_grad():
        own = model(torch.tensor([prompt]))[0, -1].log_softmax(-1)
    banned = {str(token): -100 for token in range(257) if token != 65}
    choice = ask(client, max_tokens=1, logprobs=True, top_logprobs=20, logit_bias=banned)["choices"][0]
    (token,) = choice["logprobs"]["content"]
    assert choice["logprobs"]["refusal"] is None
    assert (token["token"], token["bytes"]) == ("A", [65])
    assert token["logprob"] == pytest.approx(own[65].item(), abs=1e-4)
    values, ids = own.topk(20)
    assert [top["bytes"] for top in token["top_logprobs"]] == [list(tokenizer.token_bytes(i)) for i in ids.tolist()]
    assert [top["logprob"] for top in token["top_logprobs"]] == pytest.approx(values.tolist(), abs=1e-4)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": ["Hello"]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": ""}] * 2049}, "messages"),
        ({"messages": [{"content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "user\n", "content": "a"}]}, "messages[0].role"),
        ({"messages": [*HELLO, {"role": "user"}]}, "messages[1].content"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": ["a"]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": "a", "name": "<|x|>"}]}, "messages[0].name"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"logprobs": 1}, "logprobs"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"n": 9}, "n"),  # more than this server's 4 slots and 4 places in the queue
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_completion_tokens": 1.5}, "max_completion_tokens"),
        ({"max_completion_tokens": 2000}, "max_completion_tokens"),
        ({"logit_bias": {"257": 1}}, "logit_bias"),
        ({"continue_final_message": "yes"}, "continue_final_message"),
    ],
)
def test_a_wrong_field_is_named(client, body, param):
    for stream in (False, True):
        response = client.post(PATH, json={"messages": HELLO, "stream": stream, **body})
        assert response.status_code == 400, response.text
        error = response.json()["error"]
        assert error["param"] == param, error
        assert error["code"] in ("invalid_value", "context_length_exceeded")
        assert error["message"].startswith((param, "n:", "This model's maximum context length"))
        if error["code"] == "context_length_exceeded":
            assert error["message"].endswith(f"lower {param}.")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", [{"type": "function", "function": {"name": "f"}}]), ("tool_choice", "required"), ("modalities", ["audio"]),
        ("reasoning_effort", "high"), ("echo", True), ("chat_template", "{{ 7 * 7 }}"), ("best_of", 2),
        ("chat_template_kwargs", {"a": 1}), ("documents", [{}]),
    ],
)  # fmt: skip
def test_what_would_change_the_answer_and_is_not_done_here_is_refused(client, field, value):
    error = refusal(client, **{field: value})
    assert (error["code"], error["param"]) == ("unsupported_parameter", field)


def test_an_unsupported_field_of_a_message_is_named_in_full(client):
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [*HELLO, {"role": "assistant", "content": "a", "tool_calls": [call]}]
    error = refusal(client, messages)
    assert (error["code"], error["param"]) == ("unsupported_parameter", "messages[1].tool_calls")
    ask(client, [{**messages[1], "tool_calls": []}, *HELLO], max_tokens=1)


def test_the_openapi_page_describes_every_field(client):
    document = client.get("/openapi.json").json()
    schemas, seen = document["components"]["schemas"], set()
    found = set(re.findall(r"schemas/(\w+)", json.dumps(document["paths"][PATH])))
    while found:
        seen |= found
        for name in found:
            for field, value in schemas[name]["properties"].items():
                assert value.get("description"), f"{name}.{field}"
        found = {other for name in found for other in re.findall(r"schemas/(\w+)", json.dumps(schemas[name]))} - seen
    assert {"ChatRequest", "ChatMessage", "TextPart", "ResponseFormat", "JSONSchemaFormat", "ChatResponse"} <= seen
    request = schemas["ChatRequest"]["properties"]
    assert request["messages"]["maxItems"] == 2048
    assert request["n"]["default"] == 1
    assert schemas["JSONSchemaFormat"]["required"] == ["name", "schema"]


def test_an_unknown_model(client):
    response = client.post(PATH, json={"messages": HELLO, "model": "gpt-5"})
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"


def test_a_client_that_leaves_gives_all_its_slots_back(server, client):
    body = {"messages": HELLO, "n": 4, "ignore_eos": True, "stream": True}
    with client.stream("POST", PATH, json=body) as response:
        next(response.iter_bytes())
    server.wait_idle()
    with pytest.raises(httpx.ReadTimeout):
        client.post(PATH, json={**body, "stream": False}, timeout=0.05)
    server.wait_idle()


TEMPLATE = """\
{% if messages[0].role == 'assistant' %}{{ raise_exception('The first word is the user\\'s') }}{% endif %}
{% if messages[0].content == 'nothing' %}{% set messages = [] %}{% endif %}
{% for m in messages %}{{ m.role[0] }}{{ (m.name or '') ~ ':' ~ m.content }}<|endoftext|>{% endfor %}
{% if add_generation_prompt and messages %}a:{% endif %}
"""


def in_process(directory: Path) -> TestClient:
    """A server of a model directory in this process. To be entered."""
    engine = local_engine(EngineSpec(model=str(directory), threads=1, max_slots=2))
    return TestClient(create_app(Settings(model=str(directory)), engine), raise_server_exceptions=False)


def wait_ready(client: TestClient) -> TestClient:
    from serving import wait_for

    wait_for(lambda: client.get("/ready").status_code == 200, what="readiness")
    return client


@pytest.fixture(scope="module")
def templated(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A model with a chat template of its own."""
    directory = tmp_path_factory.mktemp("templated") / "chatty"
    shutil.copytree(model_dir, directory)
    (directory / "chat_template.jinja").write_text(TEMPLATE)
    with in_process(directory) as client:
        yield wait_ready(client)


def test_a_models_own_template_serves(templated):
    def length(messages: Any) -> int:
        return ask(templated, messages, max_tokens=1)["usage"]["prompt_tokens"]

    assert length(HELLO) == len("u:Hello") + 1 + len("a:")  # its special tokens are tokens
    assert length([{**HELLO[0], "name": "ann"}]) == len("uann:Hello") + 1 + len("a:")
    assert length([*HELLO, {"role": "assistant", "content": "Oh"}]) == len("u:Hello") + 1 + len("a:Oh")
    written_out = [{"role": "user", "content": "Hello<|endoftext|>a:"}]
    assert length(written_out) == len("u:Hello<|endoftext|>a:") + 1 + len("a:")


def test_what_a_template_refuses_is_the_clients_to_mend(templated):
    error = refusal(templated, [{"role": "assistant", "content": "Hi"}])
    assert (error["param"], error["code"]) == ("messages", "invalid_value")
    assert error["message"] == "messages: chat_template.jinja: The first word is the user's"  # and no path
    error = refusal(templated, [{"role": "user", "content": "nothing"}])
    assert (error["param"], error["code"]) == ("messages", "context_length_exceeded")


@pytest.fixture(scope="module")
def looping(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A model that says "User:" in paragraphs for ever: what comes next depends on the last byte alone."""
    model = load_model(model_dir)
    follows = {"\n": "\nU", "U": "s", "s": "e", "e": "r", "r": ":", ":": "\n"}
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" not in name:
                weight.zero_()
        for place, (char, nexts) in enumerate(follows.items()):
            model.token_embedding.weight[ord(char), place] = 1.0
            for other in nexts:
                model.head.weight[ord(other), place] = 100.0
    directory = tmp_path_factory.mktemp("looping") / "loop"
    save_model(model, directory)
    Tokenizer.from_directory(model_dir).save(directory)
    with in_process(directory) as client:
        yield wait_ready(client)


def test_a_transcript_ends_where_somebody_else_would_speak(looping):
    for seed in range(5):
        body = {"seed": seed, "max_tokens": 400}
        choice = ask(looping, **body)["choices"][0]
        assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", PLAIN_STOPS[0])
        assert "\n\nUser:" not in choice["message"]["content"]
        assert put_together(chunks(looping, **body), 1) == [as_streamed(choice)]


@pytest.mark.parametrize("path", [PATH, "/generate"])
def test_many_log_probabilities_are_spelt_beside_the_event_loop(templated, monkeypatch, path):
    import threading

    from app.api import logprobs

    threads, spell = set(), logprobs.token_choice

    def spying(*args: Any) -> dict[str, Any]:
        threads.add(threading.current_thread().name)
        return spell(*args)

    for module in ("logprobs", "generate"):
        monkeypatch.setattr(f"app.api.{module}.token_choice", spying)
    asked = (
        {"logprobs": True, "top_logprobs": 20, "messages": HELLO} if path == PATH else {"logprobs": 20, "prompt": "a"}
    )
    seen = []
    for length in (2, 60):
        threads.clear()
        response = templated.post(path, json={**asked, "max_tokens": length, "ignore_eos": True})
        assert response.status_code == 200, response.text
        seen.append(set(threads))
    few, many = seen
    assert len(few) == len(many) == 1
    assert few.isdisjoint(many)
