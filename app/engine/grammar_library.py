"""Grammars and vocabularies in the terms of llguidance, the library that parses; and what it refuses, in words."""

from __future__ import annotations

import contextlib
import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from app.engine.messages import Grammar, GrammarError
from model.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

# Between JSON's marks: a blank or two, or a new line and its indentation. Anything goes in JSON, but a weak model writes blanks
# for ever where it may.
_SPACES = r"(\x20{1,2}|\x0D?\x0A[\x20\x09]{0,32})"
# What one mask may cost at the worst: about 10 ms, and 20 MB of lexer states for each request.
_LIMITS = {"step_lexer_fuel": 100_000, "step_max_items": 50_000, "max_lexer_states": 20_000, "verbose_errors": False}
REMEDY = {
    "json_object": "report it",
    "json_schema": "simplify the schema, or leave out what isn't supported",
    "regex": "write it in Rust's syntax (no look-around, no back-references, no \\b), matching the whole text",
    "choice": "give fewer or shorter choices",
}


def load_vocabulary(tokenizer: Tokenizer, vocab_size: int, eos_ids: frozenset[int]) -> LLTokenizer:
    """Takes 0.1 s for 50,000 tokens. Masks have one bit more than the model has logits: the parser's own end."""
    try:
        import llguidance
    except ImportError as error:
        raise GrammarError(
            f"structured output needs the library llguidance: pip install llguidance ({error})"
        ) from None
    wrapper = llguidance.TokenizerWrapper(_Vocabulary(tokenizer, vocab_size, eos_ids))
    return llguidance.LLTokenizer(wrapper)


def compile_grammar(grammar: Grammar, vocabulary: LLTokenizer, *, max_bytes: int) -> LLMatcher:
    """The parser at its start, its first mask computed. GrammarError for a grammar that can't be used."""
    from llguidance import LLMatcher, LLParserLimits

    try:
        size = len(grammar.value.encode())
    except UnicodeEncodeError:
        raise GrammarError(f"{grammar.kind}: has half a surrogate pair, which is no text; leave it out") from None
    if size > max_bytes:
        raise GrammarError(f"{grammar.kind}: of {size} bytes; at most {max_bytes} can be used: make it shorter")
    try:
        matcher = LLMatcher(vocabulary, _source(grammar), log_level=0, limits=LLParserLimits(**_LIMITS))
    except ValueError as error:
        raise _refused(grammar, str(error)) from None
    mask = np.frombuffer(matcher.compute_bitmask(), np.uint8)  # the first one is the slowest: not within a step
    if matcher.is_error() and not matcher.get_error().startswith("NoExtension"):  # that is: nothing can follow
        raise _refused(grammar, matcher.get_error())
    if matcher.is_error() or not np.unpackbits(mask, count=vocabulary.vocab_size - 1, bitorder="little").any():
        empty = not matcher.is_error() and matcher.is_accepting()
        raise _refused(grammar, "only the empty text fits" if empty else "no text fits that this model can write")
    return matcher


def first_line(text: str) -> str:
    """The parser's word on what is wrong, cut to what a person reads."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("<")]
    said = [line for line in lines if line.startswith("error:")] or lines[:1] or ["no reason given"]
    return said[0].removeprefix("error: ")[:300]


def _source(grammar: Grammar) -> str:
    """The grammar in llguidance's own form. GrammarError when it isn't even what its kind says."""
    from llguidance import LLMatcher

    if grammar.kind == "regex":
        return LLMatcher.grammar_from_regex(grammar.value)
    if grammar.kind == "choice":
        return LLMatcher.grammar_from_regex("|".join(re.escape(choice) for choice in _choices(grammar)))
    schema: Any = {"type": "object"} if grammar.kind == "json_object" else _json(grammar)
    if schema is True:
        schema = {}
    if not isinstance(schema, dict):
        raise GrammarError(f"json_schema: a schema is a JSON object, not {type(schema).__name__}")
    strict = {"lenient": False, "coerce_one_of": False, "whitespace_flexible": True, "whitespace_pattern": _SPACES}
    return LLMatcher.grammar_from_json_schema(schema, overrides=strict)  # type: ignore[arg-type]


def _choices(grammar: Grammar) -> list[str]:
    choices = _json(grammar)
    if (
        not isinstance(choices, list)
        or not choices
        or not all(isinstance(choice, str) and choice for choice in choices)
    ):
        raise GrammarError("choice: must be a JSON array of at least one string, none of them empty")
    if any(re.search("[\ud800-\udfff]", choice) for choice in choices):
        raise GrammarError("choice: has half a surrogate pair, which is no text; leave it out")
    return list(dict.fromkeys(choices))


def _json(grammar: Grammar) -> Any:
    try:
        return json.loads(grammar.value)
    except RecursionError:
        raise GrammarError(f"{grammar.kind}: nested too deep; {REMEDY[grammar.kind]}") from None
    except ValueError as error:
        raise GrammarError(f"{grammar.kind}: not valid JSON: {error}") from None


def _refused(grammar: Grammar, why: str) -> GrammarError:
    return GrammarError(f"{grammar.kind}: {first_line(why)}; {REMEDY[grammar.kind]}")


class _Vocabulary:
    """Our tokenizer as llguidance wants it. Its end of text is an id of its own behind the last one: ends are our business,
    since a model may have several, or none."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, eos_ids: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self.tokens = [tokenizer.token_bytes(token) for token in range(vocab_size)] + [b"<|end of grammar|>"]
        self.eos_token_id = vocab_size
        self.bos_token_id = None
        special = {token for token in range(vocab_size) if tokenizer.is_special(token)}
        self.special_token_ids = sorted(special | eos_ids | {vocab_size})
        special |= eos_ids | {vocab_size}
        self._ids = {data: token for token, data in enumerate(self.tokens) if data and token not in special}
        self._longest = max(map(len, self._ids), default=1)

    def __call__(self, data: bytes) -> list[int]:
        """Tokens of text that the grammar forces: the model's usual ones where they spell just these bytes."""
        with contextlib.suppress(UnicodeDecodeError):
            ids = self._tokenizer.encode(data.decode())
            if self._tokenizer.decode_bytes(ids) == data:
                return ids
        ids, at = [], 0
        while at < len(data):
            size = next((n for n in range(self._longest, 0, -1) if data[at : at + n] in self._ids), 0)
            if not size:
                break  # no token for this byte: what follows can't be forced
            ids.append(self._ids[data[at : at + size]])
            at += size
        return ids
