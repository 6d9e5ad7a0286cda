from concurrent.futures import ThreadPoolExecutor

import pytest
from conformance import DONE, PATHS, need, part_of, text_of

BOTH = pytest.mark.parametrize("kind", ["completions", "chat"])
OBJECTS = {"completions": "text_completion", "chat": "chat.completion.chunk"}


@BOTH
def test_content_type(api, kind):
    """A stream is text/event-stream."""
    assert api.stream(kind, max_tokens=2).headers["content-type"].split(";")[0] == "text/event-stream"


@BOTH
def test_no_cache(api, kind):
    """A stream says Cache-Control: no-cache."""
    assert "no-cache" in api.stream(kind, max_tokens=2).headers.get("cache-control", "")


@pytest.mark.extension
@BOTH
def test_headers(api, kind):
    """A stream asks proxies not to hold it back, and has its request id."""
    headers = api.stream(kind, max_tokens=2).headers
    assert headers["x-accel-buffering"] == "no"
    assert headers["x-request-id"]
    assert headers["cache-control"] == "no-cache"


@BOTH
def test_framing(api, kind):
    """Each event is one line of data and a blank line."""
    stream = api.stream(kind, max_tokens=4)  # checks it
    assert all(event["choices"] for event in stream.events)


@BOTH
@pytest.mark.parametrize("fields", [{}, {"n": 2}, {"stream_options": {"include_usage": True}}], ids=repr)
def test_done(api, kind, fields):
    """The last event is [DONE], and the only one."""
    frames = api.stream(kind, max_tokens=4, **fields).frames
    assert frames[-1] == DONE
    assert frames.count(DONE) == 1


@BOTH
def test_same_heading(api, kind):
    """Every chunk has the same id, created and model, and the object of a chunk."""
    events = api.stream(kind, max_tokens=6).events
    assert len({(event["id"], event["created"], event["model"]) for event in events}) == 1
    assert {event["object"] for event in events} == {OBJECTS[kind]}
    assert events[0]["model"] == api.model


@BOTH
def test_piece_by_piece(api, kind):
    """A text comes in pieces, not all at once."""
    counts = []  # under load, or where tokens are guessed, a piece may have several tokens: so more than one try
    while max(counts, default=0) < 4:
        assert len(counts) < 10, counts
        stream = api.stream(kind, max_tokens=48, temperature=1.5, seed=len(counts))
        counts.append(sum(bool(part_of(choice)) for choice in stream.choices()))


@pytest.mark.parametrize("n", [1, 3])
def test_role(api, n):
    """A chat's stream gives each choice its role once, first."""
    stream = api.stream("chat", max_tokens=6, n=n)
    for index in range(n):
        roles = [choice["delta"].get("role") for choice in stream.choices(index)]
        assert roles[0] == "assistant"
        assert not any(roles[1:])


@BOTH
@pytest.mark.parametrize("n", [1, 3])
def test_finish_reason(api, kind, n):
    """Each choice has exactly one finish_reason, in its last chunk."""
    stream = api.stream(kind, max_tokens=6, n=n)
    for index in range(n):
        reasons = [choice.get("finish_reason") for choice in stream.choices(index)]
        assert reasons[-1] in ("stop", "length")
        assert not any(reasons[:-1])


@BOTH
@pytest.mark.parametrize(
    "fields", [{"temperature": 0}, {"seed": 3}, {"seed": 4, "stop": [" the", "a"]}, {"seed": 5, "n": 3}], ids=repr
)
def test_the_same_text(api, kind, fields):
    """The pieces of a greedy or seeded stream together are the unstreamed answer."""
    fields = {"max_tokens": 32, **fields}
    whole, stream = api.ask(kind, **fields), api.stream(kind, **fields)
    for choice in whole["choices"]:
        assert stream.text(choice["index"]) == text_of(choice)
        assert stream.choices(choice["index"])[-1].get("finish_reason") == choice["finish_reason"]


def test_several_prompts(api):
    """A stream of several prompts has the choices of all of them, by index."""
    prompts = ["Once upon a time", "The old man"]
    body = {"model": api.model, "prompt": prompts, "max_tokens": 12, "temperature": 0}
    stream = api.stream_at(PATHS["completions"], body | {"stream": True})
    for choice in api.ask_at(PATHS["completions"], body)["choices"]:
        assert stream.text(choice["index"]) == choice["text"]


def test_echo(api):
    """A stream with echo begins with the prompt."""
    body = api.complete("Once upon a time", max_tokens=6, temperature=0, echo=True)
    assert api.stream("completions", max_tokens=6, temperature=0, echo=True).text() == body["choices"][0]["text"]


@BOTH
def test_no_usage(api, kind):
    """Without include_usage no chunk has usage, and each has a choice."""
    for event in api.stream(kind, max_tokens=4).events:
        assert event.get("usage") is None
        assert event["choices"]


@BOTH
def test_include_usage(api, kind):
    """include_usage adds one last chunk with usage and no choices; usage is null before it."""
    fields = {"max_tokens": 6, "temperature": 0}
    events = api.stream(kind, stream_options={"include_usage": True}, **fields).events
    assert events[-1]["choices"] == []
    assert all(event["choices"] for event in events[:-1])
    assert all("usage" in event and event["usage"] is None for event in events[:-1])
    usage = api.ask(kind, **fields)["usage"]
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert events[-1]["usage"][name] == usage[name]


@BOTH
def test_include_usage_false(api, kind):
    """include_usage false is as if it weren't there."""
    assert all(
        event["choices"] for event in api.stream(kind, max_tokens=4, stream_options={"include_usage": False}).events
    )


def test_logprobs_of_completions(api):
    """The log-probabilities of a stream of a completion together are those of the whole, offsets too."""
    fields = {"max_tokens": 10, "temperature": 0, "logprobs": 2}
    whole = api.ask("completions", **fields)["choices"][0]["logprobs"]
    parts = [choice.get("logprobs") or {} for choice in api.stream("completions", **fields).choices()]
    for name in ("tokens", "text_offset"):
        assert [value for part in parts for value in part.get(name, [])] == whole[name]
    values = [value for part in parts for value in part.get("token_logprobs", [])]
    assert values == pytest.approx(whole["token_logprobs"], abs=1e-3)


def test_logprobs_of_chat(api):
    """The log-probabilities of a chat's stream together are those of the whole."""
    fields = {"max_tokens": 10, "temperature": 0, "logprobs": True, "top_logprobs": 2}
    whole = api.ask("chat", **fields)["choices"][0]["logprobs"]["content"]
    parts = [choice.get("logprobs") for choice in api.stream("chat", **fields).choices()]
    entries = [entry for part in parts if part for entry in part["content"]]
    assert [entry["token"] for entry in entries] == [entry["token"] for entry in whole]
    assert [e["logprob"] for e in entries] == pytest.approx([e["logprob"] for e in whole], abs=1e-3)


@BOTH
def test_no_part_of_a_stop_leaks(api, kind):
    """No part of a stop string is ever sent, and what was held back for one that didn't come is."""
    whole = text_of(api.ask(kind, max_tokens=32, temperature=0)["choices"][0])
    need(len(whole) > 24, "the greedy answer is too short")
    for start in range(2, 20, 3):
        stop = whole[start : start + 5]
        assert api.stream(kind, max_tokens=32, temperature=0, stop=stop).text() == whole[: whole.index(stop)]
        never = stop + "\u0000"  # all of it but its last character comes
        assert api.stream(kind, max_tokens=32, temperature=0, stop=never).text() == whole


@BOTH
@pytest.mark.parametrize("seed", range(4))
def test_no_half_characters(api, kind, seed):
    """No chunk has half a character: with wild sampling, too, the pieces are the unstreamed answer."""
    fields = {"max_tokens": 48, "temperature": 2, "seed": seed, "stop": ["\u0000"]}
    assert api.stream(kind, "日本語 🙂", **fields).text() == text_of(api.ask(kind, "日本語 🙂", **fields)["choices"][0])


@pytest.mark.extension
@BOTH
def test_characters_of_many_tokens(api, kind):
    """A character whose bytes come as several tokens is sent whole; a truncated last one is U+FFFD, as unstreamed."""
    tokens = api.ask_at("/tokenize", {"prompt": "日"})["tokens"]
    need(len(tokens) > 1, "the tokenizer has this character as one token")
    bias = {str(token): 100 for token in tokens}
    for seed in range(6):
        fields = {"max_tokens": 13, "logit_bias": bias, "seed": seed}
        stream = api.stream(kind, **fields)
        assert stream.text() == text_of(api.ask(kind, **fields)["choices"][0])
        assert "\ufffd" in stream.text()


@BOTH
def test_many_at_once(api, kind):
    """Streams beside each other get each its own answer."""
    seeds = range(6)
    alone = [text_of(api.ask(kind, max_tokens=24, seed=seed)["choices"][0]) for seed in seeds]
    with ThreadPoolExecutor(len(seeds)) as pool:
        assert list(pool.map(lambda seed: api.stream(kind, max_tokens=24, seed=seed).text(), seeds)) == alone


@BOTH
def test_a_client_that_leaves(api, kind):
    """A client that leaves in the middle of its stream harms nobody."""
    for _ in range(3):
        body = api.body(kind, "Once upon a time", max_tokens=200, stream=True)
        with api.client.stream("POST", PATHS[kind], json=body) as response:
            next(response.iter_bytes())
    assert api.stream(kind, max_tokens=4).events


@pytest.mark.extension
@BOTH
def test_a_client_that_leaves_frees_its_slot(api, kind):
    """A request whose client has left ends soon."""
    import time

    body = api.body(kind, "Once upon a time", max_tokens=400, stream=True, ignore_eos=True, stop=["\u0000"])
    with api.client.stream("POST", PATHS[kind], json=body) as response:
        next(response.iter_bytes())
    end = time.monotonic() + 5
    while api.client.get("/health").json()["running"]:
        assert time.monotonic() < end, "the request still runs"
        time.sleep(0.02)
