import math
import time

import pytest
from conformance import PATHS, need

PROMPT = "Once upon a time"


def counts(usage: dict) -> list[int]:
    """Its three numbers. (What was cached depends on who asked before.)"""
    return [usage[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")]


def test_shape(api):
    """An answer has OpenAI's form: id, object, created, model, choices, usage."""
    before = time.time()
    body = api.complete(PROMPT, max_tokens=5)
    assert body["object"] == "text_completion"
    assert body["id"].startswith("cmpl-")
    assert before - 600 < body["created"] < time.time() + 600
    assert body["model"] == api.model
    (choice,) = body["choices"]
    assert (choice["index"], choice["logprobs"]) == (0, None)
    assert choice["finish_reason"] in ("stop", "length")
    assert isinstance(choice["text"], str)
    usage = body["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["prompt_tokens"] >= 2


def test_ids_differ(api):
    """Each answer has its own id."""
    assert len({api.complete(PROMPT, max_tokens=1)["id"] for _ in range(3)}) == 3


def test_default_length(api):
    """max_tokens is 16 unless said otherwise."""
    body = api.complete(PROMPT, temperature=0)
    whole = api.complete(PROMPT, temperature=0, max_tokens=16)
    assert body["choices"][0]["text"] == whole["choices"][0]["text"]
    assert counts(body["usage"]) == counts(whole["usage"])


def test_length(api):
    """An answer has max_tokens tokens and finish_reason length, or it has fewer and stop."""
    for max_tokens in (1, 3, 20):
        body = api.complete(PROMPT, max_tokens=max_tokens, temperature=0)
        n_tokens, reason = body["usage"]["completion_tokens"], body["choices"][0]["finish_reason"]
        assert n_tokens == max_tokens if reason == "length" else n_tokens < max_tokens


@pytest.mark.extension
def test_nothing_asked_for(api):
    """max_tokens 0 gives an empty answer, also to a prompt that fills the context."""
    for prompt in (PROMPT, api.ids(" hello")[:1] * api.context):
        body = api.complete(prompt, max_tokens=0)
        assert (body["choices"][0]["text"], body["choices"][0]["finish_reason"]) == ("", "length")
        assert body["usage"]["completion_tokens"] == 0


def test_default_prompt(api):
    """Without a prompt, a new text begins."""
    assert api.ask_at(PATHS["completions"], {"model": api.model, "max_tokens": 3})["usage"]["prompt_tokens"] == 1


def test_prompt_as_list(api):
    """Of a list of prompts each gets its own answer, in order, and usage counts them all."""
    prompts = [PROMPT, "The old man", "It was"]
    body = api.complete(prompts, max_tokens=6, temperature=0)
    alone = [api.complete(prompt, max_tokens=6, temperature=0) for prompt in prompts]
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert [choice["text"] for choice in body["choices"]] == [one["choices"][0]["text"] for one in alone]
    for name, count in body["usage"].items():
        if isinstance(count, int):
            assert count == sum(one["usage"][name] for one in alone)


def test_prompt_as_ids(api):
    """A prompt may be token ids."""
    ids = api.ids(PROMPT)
    body = api.complete(ids, max_tokens=6, temperature=0)
    assert body["usage"]["prompt_tokens"] == len(ids)
    if api.ours:
        assert body["choices"][0]["text"] == api.complete(PROMPT, max_tokens=6, temperature=0)["choices"][0]["text"]


def test_prompts_as_ids(api):
    """Prompts may be lists of token ids."""
    lists = [api.ids(PROMPT), api.ids("The old man"), api.ids("It was")]
    body = api.complete(lists, max_tokens=6, temperature=0)
    assert body["usage"]["prompt_tokens"] == sum(map(len, lists))
    alone = [api.complete(ids, max_tokens=6, temperature=0)["choices"][0]["text"] for ids in lists]
    assert [choice["text"] for choice in body["choices"]] == alone


@pytest.mark.parametrize(
    "prompt", [[], [[]], [PROMPT, 5], [[1], "a"], [5.5], {"a": 1}, 7, [None], [[[1]]], [-1], [10**9]]
)
def test_wrong_prompt(api, prompt):
    """A prompt of another form, or with an id out of the vocabulary, is a 400 that names prompt."""
    api.refuse(PATHS["completions"], {"model": api.model, "prompt": prompt, "max_tokens": 2}, param="prompt")


def test_index(api):
    """Choice j of prompt i has index i * n + j; each prompt counts once in usage."""
    one, both = (api.complete(prompt, max_tokens=4, n=2, seed=5) for prompt in (PROMPT, [PROMPT, "The old man"]))
    assert [choice["index"] for choice in both["choices"]] == [0, 1, 2, 3]
    assert [choice["text"] for choice in both["choices"][:2]] == [choice["text"] for choice in one["choices"]]
    assert one["usage"]["prompt_tokens"] == api.complete(PROMPT, max_tokens=1)["usage"]["prompt_tokens"]


def test_best_of(api):
    """best_of as large as n is fine."""
    assert len(api.complete(PROMPT, max_tokens=2, n=2, best_of=2)["choices"]) == 2


def test_best_of_smaller(api):
    """best_of smaller than n is a 400."""
    api.refuse(PATHS["completions"], {"model": api.model, "prompt": "a", "n": 3, "best_of": 2})


def test_echo(api):
    """With echo the text begins with the prompt."""
    plain, echoed = (api.complete(PROMPT, max_tokens=6, temperature=0, echo=echo) for echo in (False, True))
    assert echoed["choices"][0]["text"] == PROMPT + plain["choices"][0]["text"]
    assert counts(echoed["usage"]) == counts(plain["usage"])


def test_echo_of_several(api):
    """Each choice echoes its own prompt."""
    prompts = [PROMPT, "The old man"]
    body = api.complete(prompts, max_tokens=2, echo=True, n=2)
    for choice in body["choices"]:
        assert choice["text"].startswith(prompts[choice["index"] // 2])


def test_scoring(api):
    """echo, max_tokens 0 and logprobs score a prompt: the first token has none, the others fit the text."""
    body = api.complete(PROMPT + " there was a", max_tokens=0, echo=True, logprobs=1)
    (choice,) = body["choices"]
    assert choice["text"] == PROMPT + " there was a"
    assert body["usage"]["completion_tokens"] == 0
    logprobs = choice["logprobs"]
    assert logprobs["token_logprobs"][0] is None
    assert logprobs["top_logprobs"][0] is None
    assert all(value <= 0 for value in logprobs["token_logprobs"][1:])
    assert "".join(logprobs["tokens"]) == choice["text"]
    assert len({len(logprobs[name]) for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")}) == 1
    assert len(logprobs["tokens"]) == body["usage"]["prompt_tokens"]


def test_scoring_and_one_token(api):
    """echo with logprobs and max_tokens 1 scores prompt and answer in one list, as evaluation harnesses ask."""
    scored = api.complete(PROMPT, max_tokens=0, echo=True, logprobs=1)["choices"][0]["logprobs"]
    body = api.complete(PROMPT, max_tokens=1, echo=True, logprobs=1, temperature=0)
    logprobs = body["choices"][0]["logprobs"]
    assert len(logprobs["tokens"]) == len(scored["tokens"]) + 1
    assert logprobs["token_logprobs"][1:-1] == pytest.approx(scored["token_logprobs"][1:], abs=1e-3)
    assert logprobs["token_logprobs"][-1] == pytest.approx(max(logprobs["top_logprobs"][-1].values()), abs=1e-3)


def test_scoring_agrees_with_generating(api):
    """A token has the same log-probability as an answer's and as a prompt's."""
    first = api.complete(PROMPT, max_tokens=8, temperature=0, logprobs=0)["choices"][0]
    again = api.complete(PROMPT + first["text"], max_tokens=0, echo=True, logprobs=0)["choices"][0]["logprobs"]
    n_tokens = len(first["logprobs"]["tokens"])
    need(again["tokens"][-n_tokens:] == first["logprobs"]["tokens"], "this text is split otherwise as a prompt")
    assert again["token_logprobs"][-n_tokens:] == pytest.approx(first["logprobs"]["token_logprobs"], abs=1e-2)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_logprobs(api, count):
    """logprobs gives each token's log-probability and so many likeliest ones."""
    choice = api.complete(PROMPT, max_tokens=6, temperature=0, logprobs=count)["choices"][0]
    logprobs = choice["logprobs"]
    assert "".join(logprobs["tokens"]) == choice["text"]
    assert all(value <= 0 for value in logprobs["token_logprobs"])
    for token, value, top in zip(
        logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"] or [], strict=bool(count)
    ):
        assert count <= len(top) <= count + 1
        assert count == 0 or top[token] == value == max(top.values())
        assert sum(map(math.exp, top.values())) <= 1.001


def test_too_many_logprobs(api):
    """More than 5 logprobs are a 400."""
    api.refuse(PATHS["completions"], {"model": api.model, "prompt": "a", "logprobs": 6}, param="logprobs")
    api.refuse(PATHS["completions"], {"model": api.model, "prompt": "a", "logprobs": -1}, param="logprobs")


def test_logprobs_are_the_models_own(api):
    """Log-probabilities are of the model's own distribution, whatever the sampling parameters."""
    plain = api.complete(PROMPT, max_tokens=5, temperature=0, logprobs=3)["choices"][0]
    bent = api.complete(PROMPT, max_tokens=5, temperature=2, top_p=1e-6, seed=1, logprobs=3)["choices"][0]
    assert bent["text"] == plain["text"]
    assert bent["logprobs"]["token_logprobs"] == pytest.approx(plain["logprobs"]["token_logprobs"], abs=1e-3)


def test_logprobs_with_a_bias(api):
    """A bias, too, changes what is drawn and not what is reported."""
    plain = api.complete(PROMPT, max_tokens=1, temperature=0, logprobs=5)["choices"][0]["logprobs"]
    banned = {str(number): -100 for number in range(100)}
    bent = api.complete(PROMPT, max_tokens=1, temperature=0, logprobs=5, logit_bias=banned)["choices"][0]["logprobs"]
    mine, other = sorted(plain["top_logprobs"][0].values())[-5:], sorted(bent["top_logprobs"][0].values())[-5:]
    assert other == pytest.approx(mine, abs=1e-3)


def test_text_offset(api):
    """text_offset counts characters, from the prompt's first with echo."""
    text = "Zoë – 日本: once upon a time"
    for echo in (False, True):
        choice = api.complete(text, max_tokens=5, temperature=0, logprobs=1, echo=echo)["choices"][0]
        offsets, tokens = choice["logprobs"]["text_offset"], choice["logprobs"]["tokens"]
        start = 0 if echo else offsets[0]
        assert start in (0, len(text))  # where an answer's offsets begin is told differently by different servers
        assert offsets == sorted(offsets)
        if not any("\ufffd" in token or token.startswith("bytes:") for token in tokens):
            assert offsets == [start + len("".join(tokens[:i])) for i in range(len(tokens))]
        else:
            assert offsets[-1] - start <= len(choice["text"])


def test_unicode(api):
    """Text of any script comes back as it was."""
    text = "naïve café – 日本語 עברית 🙂‍↔️ \u0000\n\ttab"
    assert api.complete(text, max_tokens=1, echo=True)["choices"][0]["text"].startswith(text)


@pytest.mark.extension
def test_special_tokens_in_a_prompt(api):
    """A special token written in a raw prompt counts as such."""
    assert api.complete("<|endoftext|>", max_tokens=1)["usage"]["prompt_tokens"] == 1


@pytest.mark.extension
def test_cached_tokens(api):
    """usage tells how many of a prompt's tokens were known already."""
    prompt = "A long prefix that nobody else here asks with, " * 8
    api.complete(prompt, max_tokens=1)
    usage = api.complete(prompt, max_tokens=1)["usage"]
    assert 0 < usage["prompt_tokens_details"]["cached_tokens"] < usage["prompt_tokens"]
