"""Grammars: what a random model writes under one fits it; what can't be used is refused in words; threads survive."""

import json
import threading
import time
from collections.abc import Iterator
from functools import cache
from typing import Any

import jsonschema
import pytest
import regex
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.engine.grammar import Constraint, GrammarCompiler
from app.engine.messages import Grammar, GrammarError
from app.engine.picking import Ask, Picked, pick
from app.engine.speculation import Drafter
from model.errors import HomegrownError
from model.sampling import SamplingRow
from model.sampling_params import SamplingParams
from model.tokenizer import Tokenizer

from tokenizers import Tokenizer as HfTokenizer  # isort: skip
from tokenizers import decoders, models, pre_tokenizers, trainers

END = "<|endoftext|>"
PADDED = 50304  # rows of logits: more than there are tokens


pytestmark = pytest.mark.usefixtures("one_thread")


def small_tokenizer(size: int = 400, specials: tuple[str, ...] = (END, "<|user|>")) -> Tokenizer:
    """A byte-level vocabulary of our own, as `tokenizer` trains them."""
    made = HfTokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(specials), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    made.train_from_iterator(
        ['the cat sat, {"name": "the", "n": [1, 2, 30]} ' * 9, "é ü 日本 🎉 <|user|> is text"], trainer
    )
    config = {"eos_token": END} if END in specials else {}
    return Tokenizer.from_json(json.loads(made.to_str()), config, source="small")


@cache
def vocabulary(name: str) -> tuple[Tokenizer, int, frozenset[int]]:
    """Tokenizer, rows of logits, ids that end an answer."""
    if name == "gpt2":
        return Tokenizer.gpt2(), PADDED, frozenset({50256})
    if name == "small":
        tokenizer = small_tokenizer()
        return tokenizer, tokenizer.vocab_size + 7, frozenset({tokenizer.special_tokens[END]})
    if name == "two ends":
        tokenizer = small_tokenizer(specials=(END, "<|user|>", "<|done|>"))
        return tokenizer, tokenizer.vocab_size, frozenset(tokenizer.special_tokens[text] for text in (END, "<|done|>"))
    tokenizer = small_tokenizer(specials=())
    return tokenizer, tokenizer.vocab_size, frozenset()


VOCABULARIES = ["gpt2", "small", "two ends", "no end"]


@cache
def compiler(name: str) -> GrammarCompiler:
    return GrammarCompiler(*vocabulary(name))


def constraint(grammar: Grammar, name: str = "gpt2") -> Constraint:
    return compiler(name).submit(grammar).result(30)


def schema(value: Any) -> Grammar:
    return Grammar("json_schema", json.dumps(value))


def logits_at(seed: int, step: int, size: int) -> torch.Tensor:
    """A random model: what it says of the next token depends on the step alone."""
    return 3 * torch.randn(1, size, generator=torch.Generator().manual_seed(1000 * seed + step))


def write(
    grammar: Grammar, name: str, seed: int, *, most: int = 120, speculate: bool = False, **params: Any
) -> tuple[list[int], str]:
    """A random model's answer under a grammar, as the engine has it: its tokens and why it ended."""
    _, size, eos_ids = vocabulary(name)
    p = SamplingParams(**params)
    ends = frozenset(p.stop_token_ids) | (frozenset() if p.ignore_eos else eos_ids)
    row = SamplingRow(p, seed, [], [], ends)
    limits = constraint(grammar, name)
    drafter = Drafter([])
    while True:
        left = most - len(row.output)
        drafts = drafter.draft(row.output, left - 1, constraint=limits) if speculate else []
        begin = len(row.output)
        logits = torch.cat([logits_at(seed, begin + i, size) for i in range(1 + len(drafts))])
        [picked] = pick(logits, [Ask(row, drafts, constraint=limits)])
        assert isinstance(picked, Picked), picked
        drafter.learn(len(drafts), len(picked.tokens) - 1)
        for token in picked.tokens:
            if token in ends:
                return row.output, "stop"
            row.append(token)
        if limits.finished:
            return row.output, "stop"
        if len(row.output) == most:
            return row.output, "length"


def text_of(tokens: list[int], name: str) -> str:
    tokenizer, _, eos_ids = vocabulary(name)
    assert not any(
        tokenizer.is_special(token) or token in eos_ids or not tokenizer.token_bytes(token) for token in tokens
    )
    return tokenizer.decode_bytes(tokens).decode()  # whole characters: no replacement


PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "é", "日本"]}, "maxItems": 3},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
SCHEMAS: list[Any] = [
    PERSON,
    {"type": "array", "items": {"$ref": "#/$defs/point"}, "minItems": 1, "maxItems": 2,
     "$defs": {"point": {"type": "object", "properties": {"x": {"type": "number"}, "y": {"type": ["integer", "null"]}},
                         "required": ["x", "y"], "additionalProperties": False}}},
    {"oneOf": [{"type": "string", "pattern": "^[a-c]{2,4}$"}, {"type": "boolean"}]},
    {"type": "string", "format": "uuid"},
    {"const": {"deep": [1, {"er": "\u00e9\n"}]}},
    {"enum": ["yes", "yes, sir", 7, None]},
    {"anyOf": [{"type": "integer", "multipleOf": 5, "minimum": -20, "maximum": 20}, {"type": "null"}]},
    {"allOf": [{"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]},
               {"properties": {"b": {"type": "null"}}, "required": ["b"], "additionalProperties": True}]},
]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(SCHEMAS), st.sampled_from(VOCABULARIES), st.integers(0, 10**6), st.booleans())
def test_an_answer_that_stopped_fits_its_schema(value: Any, name: str, seed: int, speculate: bool) -> None:
    tokens, finish = write(schema(value), name, seed, speculate=speculate)
    if finish == "stop":
        jsonschema.validate(
            json.loads(text_of(tokens, name)), value, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
        )


def test_most_answers_get_there() -> None:
    ends = [write(schema(PERSON), name, seed)[1] for name in VOCABULARIES for seed in range(5)]
    assert ends.count("stop") > 10


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(VOCABULARIES), st.integers(0, 10**6))
def test_a_json_object_is_one(name: str, seed: int) -> None:
    tokens, finish = write(Grammar("json_object", ""), name, seed)
    if finish == "stop":
        assert isinstance(json.loads(text_of(tokens, name)), dict)


REGEXES = [
    r"[0-9]{3}-[0-9]{4}",
    r"(ab|cd)*e",
    r"\p{L}{1,5} ?",
    "(日|本|🎉){1,3}",
    "a/b\\n",
    r"(?i:yes|no)",
    r"[^a-z]{2,5}",
]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(REGEXES), st.sampled_from(VOCABULARIES), st.integers(0, 10**6), st.booleans())
def test_an_answer_that_stopped_matches_its_expression(pattern: str, name: str, seed: int, speculate: bool) -> None:
    tokens, finish = write(Grammar("regex", pattern), name, seed, speculate=speculate)
    if finish == "stop":  # not by Python's re, which knows no letters younger than Python
        assert regex.fullmatch(pattern, text_of(tokens, name))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8), min_size=1, max_size=5),
    st.sampled_from(VOCABULARIES),
    st.integers(0, 10**6),
)
def test_an_answer_is_one_of_the_choices(choices: list[str], name: str, seed: int) -> None:
    tokens, finish = write(Grammar("choice", json.dumps(choices)), name, seed)
    assert finish == "stop"
    assert text_of(tokens, name) in choices


def test_every_choice_can_be_written() -> None:
    choices = ["a", "ab", "(a|b)*", "a#b ~ c", '"', "\\n", "\n", "\x00", END, "<|user|>"]
    for name in VOCABULARIES:
        tokenizer, _, _ = vocabulary(name)
        for choice in choices:
            limits = constraint(Grammar("choice", json.dumps(choices)), name)
            assert all(limits.accept(token) for token in tokenizer.encode(choice))
            assert limits.complete
            assert limits.finished == (choice != "a")


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([schema(PERSON), Grammar("regex", r"(ab|cd)*e"), Grammar("json_object", "")]),
    st.sampled_from(["gpt2", "small"]),
    st.integers(0, 10**6),
    st.sampled_from([0.0, 1.0]),
)
def test_drafts_change_no_answer(grammar: Grammar, name: str, seed: int, temperature: float) -> None:
    alone = write(grammar, name, seed, most=60, temperature=temperature)
    assert write(grammar, name, seed, most=60, temperature=temperature, speculate=True) == alone


def test_max_tokens_cuts_and_says_so() -> None:
    tokens, finish = write(Grammar("regex", "[a-z]{200}"), "small", 1, most=5)
    assert (len(tokens), finish) == (5, "length")


def test_ends_come_only_where_the_answer_is_whole() -> None:
    tokenizer, size, _ = vocabulary("two ends")
    end, done = tokenizer.special_tokens[END], tokenizer.special_tokens["<|done|>"]
    limits = constraint(Grammar("regex", "ab?"), "two ends")
    a, b = tokenizer.encode("a")[0], tokenizer.encode("b")[0]

    def allowed(ends: frozenset[int] | None = None) -> set[int]:
        row = torch.zeros(size)
        limits.allow(row, ends)
        return set((row == 0).nonzero()[:, 0].tolist())

    assert a in allowed()
    assert not {end, done} & allowed()
    assert not limits.accept(end)
    assert limits.accept(a)
    assert limits.complete
    assert not limits.finished
    assert allowed() == {b, end, done}
    assert allowed(frozenset()) == {b}  # ignore_eos
    assert allowed(frozenset({b, done})) == {b, done}
    assert limits.accept(done)
    assert limits.finished
    assert not limits.accept(b)
    limits = constraint(Grammar("regex", "ab?"), "two ends")
    with pytest.raises(GrammarError, match="no token"):
        allowed(frozenset({a, end}))  # a stop id is an end, so not allowed here, where nothing else is
    assert limits.accept(a)
    assert limits.accept(b)
    assert limits.finished
    assert allowed() == {end, done}


def test_ignore_eos_and_min_tokens_do_not_outlast_the_grammar() -> None:
    for params in ({"ignore_eos": True}, {"min_tokens": 50}, {"ignore_eos": True, "min_tokens": 50}):
        tokens, finish = write(Grammar("choice", '["yes", "no"]'), "small", 3, **params)
        assert finish == "stop"
        assert text_of(tokens, "small") in ("yes", "no")
    longer, finish = write(Grammar("regex", "a*"), "small", 3, most=30, ignore_eos=True)
    assert (len(longer), finish) == (30, "length")
    longer, _ = write(Grammar("regex", "a*"), "small", 3, most=90, min_tokens=30)
    assert len(longer) >= 30


def test_a_token_that_is_refused_changes_nothing() -> None:
    tokenizer, _, _ = vocabulary("small")
    limits = constraint(Grammar("regex", "abc"), "small")
    assert not limits.accept(tokenizer.encode("b")[0])
    assert not limits.accept(tokenizer.special_tokens["<|user|>"])
    assert not limits.accept(10**6)
    assert limits.valid([10**6]) == 0
    assert all(limits.accept(token) for token in tokenizer.encode("abc"))


def test_requests_with_one_grammar_do_not_share_their_state() -> None:
    first, second = (constraint(Grammar("choice", '["ab", "cd"]'), "small") for _ in range(2))
    tokenizer = vocabulary("small")[0]
    assert all(first.accept(token) for token in tokenizer.encode("ab"))
    assert not second.complete
    assert all(second.accept(token) for token in tokenizer.encode("cd"))


@pytest.mark.parametrize(("kind", "value", "said"), [
    ("regex", "(a", "unclosed group"), ("regex", "(?=a)b", "look-ahead"), ("regex", r"(a)\1", "backreferences"),
    ("regex", "", "only the empty text"), ("regex", r"[^\s\S]", "no text fits"), ("regex", "\ud800", "surrogate"),
    ("regex", "a" * 70_000, "70000 bytes"),
    ("json_schema", "{", "not valid JSON"), ("json_schema", "[1]", "a JSON object, not list"),
    ("json_schema", "false", "a JSON object, not bool"), ("json_schema", '{"type": "person"}', "person"),
    ("json_schema", '{"not": {}}', "not"), ("json_schema", '{"type": "array", "uniqueItems": true}', "uniqueItems"),
    ("json_schema", '{"oneOf": [{"type": "number"}, {"type": "integer"}]}', "oneOf"),
    ("json_schema", '{"type": "integer", "minimum": 5, "maximum": 3}', "minimum"),
    ("json_schema", '{"$ref": "https://example.com/x.json"}', "example.com"), ("json_schema", '{"$ref": "#"}', "no text fits"),
    ("json_schema", '{"not": {}, "x-guidance": {"lenient": true}}', "not"),
    ("json_schema", "[" * 30_000, "nested too deep"), ("json_schema", '{"a":' * 3000 + "1" + "}" * 3000, "nested too deep"),
    ("json_schema", '{"enum": ["\\ud800"]}', "surrogate|serializable"),
    ("choice", "[]", "at least one"), ("choice", '["a", ""]', "none of them empty"), ("choice", '["a", 1]', "array"),
    ("choice", '["\\ud800"]', "surrogate"), ("choice", '"a"', "array"),
])  # fmt: skip
def test_what_cannot_be_used_is_refused_in_words(kind: Any, value: str, said: str) -> None:
    with pytest.raises(GrammarError, match=said) as caught:
        constraint(Grammar(kind, value), "small")
    assert isinstance(caught.value, HomegrownError)
    assert str(caught.value).startswith(kind)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_true_is_a_schema_for_any_value() -> None:
    tokens, finish = write(Grammar("json_schema", "true"), "small", 4, most=200)
    if finish == "stop":
        json.loads(text_of(tokens, "small"))


def test_blanks_come_to_an_end() -> None:
    """A model that writes nothing but blanks when it may still gets to the end of its answer."""
    tokenizer, size, _ = vocabulary("small")
    value = {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"], "additionalProperties": False}
    limits = constraint(schema(value), "small")
    blanks = [token for token in range(size) if tokenizer.token_bytes(token).strip(b" \n\t\r") == b""]
    for _ in range(300):
        row = torch.zeros(size)
        row[[token for token in blanks if tokenizer.token_bytes(token)]] = 9
        limits.allow(row)
        assert limits.accept(int(row.argmax()))
        if limits.finished:
            return
    pytest.fail("no end in sight")


def test_json_may_be_laid_out_as_usual() -> None:
    tokenizer, _, _ = vocabulary("small")
    value = {"name": "x", "age": 7, "tags": ["a", "é"]}
    usual = [json.dumps(value, ensure_ascii=False, indent=indent) for indent in (None, 1, 2, 4, "\t")]
    for text in [*usual, usual[2].replace("\n", "\r\n"), json.dumps(value, ensure_ascii=False, separators=(",", ":"))]:
        limits = constraint(schema(PERSON), "small")
        assert all(limits.accept(token) for token in tokenizer.encode(text)), text
        assert limits.finished
    limits = constraint(schema(PERSON), "small")
    assert limits.valid(tokenizer.encode("{\n\n\n")) < len(tokenizer.encode("{\n\n\n"))


def test_an_answer_that_is_whole_at_its_last_token_stopped(loop, engine) -> None:
    """Through the engine, with just as many tokens as it takes, and with one less."""

    async def ends(most: int, **params: Any) -> tuple[str, str, int]:
        request = SamplingParams(temperature=0.0, **params)
        delta = await engine.generate([1, 2, 3], request, most, grammar=Grammar("choice", '["abcabc"]')).collect()
        return delta.text, delta.finish.reason, len(delta.tokens)

    text, finish, size = loop.run(ends(20))
    assert (text, finish) == ("abcabc", "stop")
    for params in ({"ignore_eos": True}, {"min_tokens": 9}):
        assert loop.run(ends(20, **params)) == ("abcabc", "stop", size)
    assert loop.run(ends(size)) == ("abcabc", "stop", size)
    assert loop.run(ends(size - 1))[1:] == ("length", size - 1)


def test_a_huge_schema_is_compiled_or_refused_in_time() -> None:
    made = GrammarCompiler(*vocabulary("small"), max_bytes=10**6)
    wide = {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(2000)}, "required": ["p1999"]}
    combined: dict[str, Any] = {"type": "object"}
    for _ in range(10):
        combined = {"allOf": [{"anyOf": [combined, {"type": "string"}]}, {"anyOf": [combined, {"type": "integer"}]}]}
    for value in (wide, combined):
        began = time.monotonic()
        error = made.submit(schema(value)).exception(60)
        assert error is None or isinstance(error, GrammarError)
        assert time.monotonic() - began < 30
    made.close()


def test_a_grammar_that_grows_too_complex_fails_alone() -> None:
    """Limits on each step: a mask, or a token, that would take too long is an error of this request."""
    made = GrammarCompiler(*vocabulary("small"))
    limits = made.submit(Grammar("regex", "(.*[a-m].{60}[a-m].*[n-z].{50}[n-z])*")).result(30)
    size = vocabulary("small")[1]
    slowest = 0.0
    try:
        for step in range(300):
            row = torch.randn(size, generator=torch.Generator().manual_seed(step))
            began = time.thread_time()
            limits.allow(row)
            limits.accept(int(row.argmax()))
            slowest = max(slowest, time.thread_time() - began)
    except GrammarError:
        pass  # either way
    assert slowest < 2


class Slow(GrammarCompiler):
    """Grammars whose value says so are compiled only when the gate opens."""

    gate: threading.Event
    compiled: list[str]

    def _compile(self, grammar: Grammar, vocabulary: Any) -> Any:
        self.compiled.append(grammar.value)
        if grammar.value.startswith("slow"):
            self.gate.wait(30)
        return super()._compile(grammar, vocabulary)


@pytest.fixture
def slow() -> Iterator[Slow]:
    made = Slow(*vocabulary("small"), seconds=0.05)
    made.gate, made.compiled = threading.Event(), []
    yield made
    made.gate.set()
    made.close()


def test_a_compilation_that_takes_too_long_is_abandoned(slow: Slow) -> None:
    late, next_one = slow.submit(Grammar("regex", "slow")), slow.submit(Grammar("regex", "quick"))
    with pytest.raises(GrammarError, match=r"not compiled within 0\.05 seconds"):
        late.result(30)
    assert next_one.result(30).complete is False  # another thread has taken over
    slow.gate.set()
    deadline = time.monotonic() + 30
    while slow._abandoned and time.monotonic() < deadline:
        time.sleep(0.01)
    assert slow.submit(Grammar("regex", "slow")).result(30).complete is False  # it got done after all


def test_too_many_that_take_too_long_are_refused_until_they_end(slow: Slow) -> None:
    before = threading.active_count()
    stuck = [slow.submit(Grammar("regex", f"slow{i}")) for i in range(4)]
    for future in stuck:
        assert isinstance(future.exception(30), GrammarError)
    with pytest.raises(GrammarError, match="try again later"):
        slow.submit(Grammar("regex", "quick")).result(30)
    slow.gate.set()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if slow.submit(Grammar("regex", "quick")).exception(30) is None:
            break
        time.sleep(0.01)
    assert slow.submit(Grammar("regex", "other")).result(30)
    assert threading.active_count() <= before + 2


def test_a_cancelled_grammar_is_not_compiled(slow: Slow) -> None:
    slow.submit(Grammar("regex", "slow"))
    waiting = [slow.submit(Grammar("regex", "(never compiled")) for _ in range(2)]
    assert all(future.cancel() for future in waiting)
    slow.gate.set()
    assert slow.submit(Grammar("regex", "quick")).result(30)
    assert "(never compiled" not in slow.compiled


def test_one_grammar_for_many_requests_is_compiled_once(slow: Slow) -> None:
    slow._seconds = 10
    asked = [slow.submit(Grammar("regex", "slow|[ab]+")) for _ in range(5)]
    assert asked[0].cancel()  # of no concern to the others
    slow.gate.set()
    given = [future.result(30) for future in asked[1:]]
    assert slow.compiled == ["slow|[ab]+"]
    assert len({id(constraint) for constraint in given}) == 4  # each with a state of its own
    refused = [slow.submit(Grammar("regex", "(")) for _ in range(3)]
    assert all(isinstance(future.exception(30), GrammarError) for future in refused)


def test_waiting_for_a_processor_is_no_fault_of_the_grammar(slow: Slow) -> None:
    threading.Timer(2.5 * slow._seconds, slow.gate.set).start()
    assert slow.submit(Grammar("regex", "slow")).result(30)


def test_a_fault_inside_is_the_requests_own(slow: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Slow, "_compile", lambda *_: 1 / 0)
        with pytest.raises(GrammarError, match="division"):
            slow.submit(Grammar("regex", "a")).result(30)
    assert slow.submit(Grammar("regex", "a")).result(30)


def test_only_the_latest_grammars_are_kept() -> None:
    made = GrammarCompiler(*vocabulary("small"))
    for i in range(40):
        made.submit(Grammar("choice", f'["{i}"]')).result(30)
    assert len(made._cache) == 32
    assert Grammar("choice", '["39"]') in made._cache
    assert Grammar("choice", '["0"]') not in made._cache
    made.close()


def test_without_the_library_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "llguidance", None)
    with pytest.raises(GrammarError, match="pip install llguidance"):
        GrammarCompiler(*vocabulary("small")).submit(Grammar("regex", "a")).result(30)
