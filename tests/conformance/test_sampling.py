"""How tokens are chosen, and where an answer ends: the same for completions and chat."""

import pytest
from conformance import need, text_of

BOTH = pytest.mark.parametrize("kind", ["completions", "chat"])
PROMPT = "Tell me about the old man and the sea."


def answer(api, kind, text=PROMPT, **fields) -> str:
    return text_of(api.ask(kind, text, **{"max_tokens": 24, **fields})["choices"][0])


@BOTH
def test_greedy(api, kind):
    """Temperature 0 always gives the same answer."""
    assert len({answer(api, kind, temperature=0) for _ in range(3)}) == 1


@BOTH
def test_greedy_whatever_else(api, kind):
    """Temperature 0 is greedy whatever seed and top_p say."""
    greedy = answer(api, kind, temperature=0)
    for other in ({"seed": 1}, {"seed": 2}, {"top_p": 0.1}, {"top_p": 1, "seed": 3}):
        assert answer(api, kind, temperature=0, **other) == greedy


@pytest.mark.extension
@BOTH
@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"min_p": 1}, {"top_p": 1e-9}], ids=repr)
def test_narrowest(api, kind, narrow):
    """The narrowest top_k, min_p and top_p leave the likeliest token alone."""
    assert answer(api, kind, temperature=2, **narrow) == answer(api, kind, temperature=0)


@BOTH
def test_seed(api, kind):
    """The same seed gives the same answer, another one another."""
    texts = [answer(api, kind, seed=seed) for seed in (1, 1, 2, 3)]
    assert texts[0] == texts[1]
    assert len(set(texts)) == 3


@BOTH
def test_seeds_of_any_size(api, kind):
    """Seeds are 64-bit integers of either sign."""
    for seed in (0, -1, 2**63 - 1, -(2**63)):
        assert answer(api, kind, seed=seed) == answer(api, kind, seed=seed)


@BOTH
def test_no_seed(api, kind):
    """Without a seed each answer is drawn anew."""
    assert len({answer(api, kind, temperature=1.5) for _ in range(4)}) > 1


@BOTH
def test_n(api, kind):
    """n gives so many choices, which differ; usage counts them all."""
    body = api.ask(kind, PROMPT, max_tokens=24, n=4, temperature=1.5)
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2, 3]
    assert len({text_of(choice) for choice in body["choices"]}) > 1
    assert body["usage"]["completion_tokens"] > 24


@BOTH
def test_n_with_a_seed(api, kind):
    """With a seed, n choices differ and come again."""
    first, again = ([text_of(c) for c in api.ask(kind, max_tokens=24, n=3, seed=7)["choices"]] for _ in range(2))
    assert first == again
    assert len(set(first)) == 3
    assert first[0] == answer(api, kind, "Once upon a time", seed=7)


@BOTH
def test_stop(api, kind):
    """An answer ends before a stop string, with finish_reason stop."""
    whole = answer(api, kind, temperature=0)
    need(len(whole) > 8, "the greedy answer is too short to be cut")
    stop = whole[4:8]
    for stops in (stop, [stop], ["\u0000never", stop]):
        (choice,) = api.ask(kind, PROMPT, max_tokens=24, temperature=0, stop=stops)["choices"]
        assert text_of(choice) == whole[: whole.index(stop)]
        assert choice["finish_reason"] == "stop"


@BOTH
def test_first_of_several_stops(api, kind):
    """Of several stop strings the one that comes first in the text counts."""
    whole = answer(api, kind, temperature=0)
    need(len(whole) > 12, "the greedy answer is too short to be cut")
    stops = [whole[9:12], whole[2:5]]
    assert answer(api, kind, temperature=0, stop=stops) == whole[: min(map(whole.index, stops))]


@pytest.mark.extension
@BOTH
def test_stop_reason(api, kind):
    """stop_reason says which stop it was: null at the model's own end or at max_tokens."""
    whole = answer(api, kind, temperature=0)
    (choice,) = api.ask(kind, PROMPT, max_tokens=24, temperature=0, stop=["\u0000", whole[4:8]])["choices"]
    assert choice["stop_reason"] == whole[4:8]
    assert api.ask(kind, PROMPT, max_tokens=1)["choices"][0]["stop_reason"] is None


@pytest.mark.extension
@BOTH
def test_stop_token_ids(api, kind):
    """A stop token id ends the answer and is named as its reason."""
    comma = api.ids(",")[0]
    (choice,) = api.ask(kind, PROMPT, logit_bias={str(comma): 100}, stop_token_ids=[comma])["choices"]
    assert (text_of(choice), choice["finish_reason"], choice["stop_reason"]) == ("", "stop", comma)


@pytest.mark.extension
@BOTH
def test_stops_count_only_what_made_it(api, kind):
    """usage counts the tokens that made it into the answer."""
    whole = api.ask(kind, PROMPT, max_tokens=24, temperature=0)
    cut = api.ask(kind, PROMPT, max_tokens=24, temperature=0, stop=text_of(whole["choices"][0])[4:8])
    assert cut["usage"]["completion_tokens"] < whole["usage"]["completion_tokens"]


def test_a_stop_does_not_match_across_prompt_and_answer(api):
    """A stop string that begins in the prompt doesn't match; nor does the prompt itself."""
    text = "Once upon a time there was"
    whole = answer(api, "completions", text, temperature=0)
    need(len(whole) > 3, "the greedy answer is too short")
    for stop in (text[-2:] + whole[:2], text[-3:] + whole[:1], "upon a"):
        if stop not in whole:
            assert answer(api, "completions", text, temperature=0, stop=stop) == whole
            echoed = answer(api, "completions", text, temperature=0, stop=stop, echo=True)
            assert echoed == text + whole


@BOTH
def test_logit_bias(api, kind):
    """A bias of 100 forces a token, and of -100 bans it."""
    forced = answer(api, kind, max_tokens=6, logit_bias={"300": 100})
    piece = forced[: len(forced) // 6]
    assert piece
    assert forced == piece * 6
    both = answer(api, kind, max_tokens=6, logit_bias={"300": 100, "301": -100}, seed=1)
    assert both == forced
    banned = answer(api, kind, max_tokens=6, temperature=0, logit_bias={"300": -100, "301": 100})
    assert len(banned) >= 6
    assert banned == banned[: len(banned) // 6] * 6 != forced


@BOTH
def test_penalties(api, kind):
    """Penalties change an answer that repeats itself."""
    bias = {"300": 20, "301": 20}
    plain = answer(api, kind, temperature=0, logit_bias=bias)
    assert answer(api, kind, temperature=0, logit_bias=bias, frequency_penalty=2) != plain
    assert answer(api, kind, temperature=0, presence_penalty=0, frequency_penalty=0, logit_bias=bias) == plain


@pytest.mark.extension
@BOTH
def test_ignore_eos_and_min_tokens(api, kind):
    """min_tokens keeps the end away for so long, ignore_eos for ever."""
    end = {str(api.ids("<|endoftext|>")[0]): 100}
    assert api.ask(kind, PROMPT, max_tokens=9, logit_bias=end)["usage"]["completion_tokens"] == 0
    body = api.ask(kind, PROMPT, max_tokens=9, logit_bias=end, min_tokens=4)
    assert (body["usage"]["completion_tokens"], body["choices"][0]["finish_reason"]) == (4, "stop")
    body = api.ask(kind, PROMPT, max_tokens=9, logit_bias=end, ignore_eos=True)
    assert (body["usage"]["completion_tokens"], body["choices"][0]["finish_reason"]) == (9, "length")


@pytest.mark.extension
@BOTH
def test_repetition_penalty(api, kind):
    """repetition_penalty is taken and changes the answer."""
    assert answer(api, kind, temperature=0, repetition_penalty=3) != answer(api, kind, temperature=0)


@BOTH
def test_the_same_in_company(api, kind):
    """A greedy or seeded answer is the same alone and beside others."""
    from concurrent.futures import ThreadPoolExecutor

    asked = [
        {"temperature": 0},
        {"seed": 1},
        {"seed": 2},
        {"temperature": 0, "max_tokens": 40},
        {"seed": 3, "top_p": 0.9},
    ]
    alone = [answer(api, kind, **fields) for fields in asked]
    with ThreadPoolExecutor(len(asked)) as pool:
        assert list(pool.map(lambda fields: answer(api, kind, **fields), asked)) == alone
