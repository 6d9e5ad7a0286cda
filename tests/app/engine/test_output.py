import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.engine.messages import Timings, TokenLogprobs
from app.engine.output import OutputProcessor, StopMatcher
from model.tokenizer import Tokenizer

TIMES = Timings(0.0, 0.0, 0.0)
letters = st.text("ab", max_size=30)
stops = st.lists(st.text("ab", min_size=1, max_size=4), max_size=4)


def first_completed(text: str, stops: list[str]) -> tuple[str, str | None]:
    """The definition: read character by character, end at the first stop that is complete."""
    for end in range(len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            stop = max(found, key=len)  # the one that begins first
            return text[: end - len(stop)], stop
    return text, None


@given(letters, stops, st.data())
def test_stop_matcher_finds_what_the_definition_finds_however_the_text_is_cut(text, stops, data):
    expected, stop = first_completed(text, stops)
    matcher, out, at = StopMatcher(stops), "", 0
    while at < len(text) and matcher.matched is None:
        size = data.draw(st.integers(1, 6))
        out += matcher.push(text[at : at + size])
        at += size
        assert expected.startswith(out)  # nothing leaves that may be part of a stop
    if matcher.matched is None:
        out += matcher.flush()
    assert (out, matcher.matched) == (expected, stop)


@pytest.fixture(scope="module")
def tokenizer(model_dir) -> Tokenizer:
    return Tokenizer.from_directory(model_dir)


@given(
    text=st.text("aé€😀\ufffd", max_size=12),
    cut=st.integers(0, 3),
    stops=st.lists(st.text("aé€", min_size=1, max_size=3), max_size=2),
)
def test_deltas_hold_whole_characters_and_add_up(tokenizer, text, cut, stops):
    data = text.encode()
    data = data[: len(data) - cut] if cut < len(data) else data
    whole, stop = first_completed(data.decode("utf-8", "replace"), stops)
    output = OutputProcessor(tokenizer, stops, min_tokens=0, prompt_tokens=3)
    deltas = []
    for byte in data:
        output.push(byte, TokenLogprobs(-1.0, [], []))
        if output.stopped:
            break
        if output.has_delta:
            deltas.append(output.take())
    output.finish("length", None, TIMES)
    deltas.append(output.take())
    assert "".join(d.text for d in deltas) == whole
    finish = deltas[-1].finish
    assert finish is not None
    assert (finish.reason, finish.stop_reason) == (("stop", stop) if stop else ("length", None))
    tokens = [token for delta in deltas for token in delta.tokens]
    assert len(tokens) == finish.completion_tokens
    offsets = [token.text_offset for token in tokens]
    assert offsets == sorted(offsets)
    assert all(offset < max(len(whole), 1) for offset in offsets)
    if stop is None:
        assert bytes(token.id for token in tokens) == data


def test_tokens_beyond_the_cut_are_not_counted(tokenizer):
    output = OutputProcessor(tokenizer, ["cd"], min_tokens=0, prompt_tokens=1)
    for byte in b"abcdef":
        output.push(byte, None)
    output.finish("length", None, TIMES)
    delta = output.take()
    assert delta.text == "ab"
    assert [token.id for token in delta.tokens] == list(b"ab")
    assert delta.finish.completion_tokens == 2
    assert delta.finish.stop_reason == "cd"


def test_min_tokens_holds_stop_strings_off(tokenizer):
    output = OutputProcessor(tokenizer, ["a"], min_tokens=2, prompt_tokens=1)
    for byte in b"aaba":
        output.push(byte, None)
    output.finish("length", None, TIMES)
    assert output.take().text == "aab"


def test_a_half_character_is_never_shown_before_its_end(tokenizer):
    output = OutputProcessor(tokenizer, [], min_tokens=0, prompt_tokens=1)
    for byte in "é".encode()[:1]:
        output.push(byte, None)
    assert not output.has_delta
    output.finish("length", None, TIMES)
    assert output.take().text == "\ufffd"


def test_an_ignored_end_token_is_counted_but_shows_nothing(tokenizer):
    output = OutputProcessor(tokenizer, [], min_tokens=0, prompt_tokens=1)
    for token in (97, 256, 98):
        output.push(token, None)
    output.finish("length", None, TIMES)
    delta = output.take()
    assert delta.text == "ab"
    assert [(t.id, t.text_offset) for t in delta.tokens] == [(97, 0), (256, 1), (98, 1)]
