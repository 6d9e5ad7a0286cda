"""Log-probabilities as OpenAI's two forms show them: completions in parallel lists, chat one object per token."""

from collections.abc import Sequence
from typing import Any

from app.engine.messages import Delta, Token, TokenLogprobs
from model.tokenizer import IncrementalDecoder, Tokenizer

BANNED_LOGPROB = -9999.0
_AS_CHARACTERS = 8  # a reported token is about as much work as so many characters to tokenise


def json_logprob(logprob: float) -> float:
    """The number as JSON can hold it: a banned token's minus infinity becomes -9999.0."""
    return max(logprob, BANNED_LOGPROB)


def report_size(deltas: Sequence[Delta]) -> int:
    """How much work it is to spell the log-probabilities of these: as so many characters of text, for Service.off_loop."""
    entries = 0
    for delta in deltas:
        for scores in (*(token.logprobs for token in delta.tokens[:1]), *(delta.prompt_logprobs or ())[1:2]):
            entries = max(entries, 1 + len(scores.top_ids)) if scores is not None else entries
    return entries * _AS_CHARACTERS * sum(len(delta.tokens) + len(delta.prompt_logprobs or ()) for delta in deltas)


def token_choice(token_id: int, logprob: float, tokenizer: Tokenizer) -> dict[str, Any]:
    """A token as text (U+FFFD where it is part of a character), its log-probability and its true bytes."""
    data = tokenizer.token_bytes(token_id)
    return {"token": data.decode("utf-8", "replace"), "logprob": json_logprob(logprob), "bytes": list(data)}


def chat_logprobs(tokens: Sequence[Token], tokenizer: Tokenizer) -> dict[str, Any]:
    """`logprobs` of a chat choice, or of a chunk of it, for the tokens of an answer that was asked for them."""
    return {"content": [_chat_entry(token, tokenizer) for token in tokens], "refusal": None}


def _chat_entry(token: Token, tokenizer: Tokenizer) -> dict[str, Any]:
    logprobs = token.logprobs
    assert logprobs is not None, "the engine was asked for log-probabilities"
    alternatives = zip(logprobs.top_ids, logprobs.top_logprobs, strict=True)
    return {
        **token_choice(token.id, logprobs.logprob, tokenizer),
        "top_logprobs": [token_choice(other, value, tokenizer) for other, value in alternatives],
    }


def completion_logprobs(tokens: Sequence[Token], tokenizer: Tokenizer, *, offset: int = 0) -> dict[str, Any]:
    """`logprobs` of a completion choice, or of a chunk of it. `offset` is added to every text_offset: the length of an echoed
    prompt. A token without log-probabilities (the first of a prompt) has null in their place."""
    return {
        "tokens": [token_name(token.id, tokenizer) for token in tokens],
        "token_logprobs": [
            None if token.logprobs is None else json_logprob(token.logprobs.logprob) for token in tokens
        ],
        "top_logprobs": [_top(token, tokenizer) for token in tokens],
        "text_offset": [offset + token.text_offset for token in tokens],
        "bytes": [list(tokenizer.token_bytes(token.id)) for token in tokens],
    }


def token_name(token_id: int, tokenizer: Tokenizer) -> str:
    r"""The token's text, or `bytes:\xe2\x82` for one that is part of a character: as keys of an object the latter must differ."""
    data = tokenizer.token_bytes(token_id)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def _top(token: Token, tokenizer: Tokenizer) -> dict[str, float] | None:
    """The likeliest tokens, best first, and always the token itself: up to one more than was asked for."""
    logprobs = token.logprobs
    if logprobs is None:
        return None
    top: dict[str, float] = {}
    for other, value in zip(logprobs.top_ids, logprobs.top_logprobs, strict=True):
        top.setdefault(token_name(other, tokenizer), json_logprob(value))  # of two with one text, the likelier
    top.setdefault(token_name(token.id, tokenizer), json_logprob(logprobs.logprob))
    return top


def scored_prompt(
    ids: Sequence[int], logprobs: Sequence[TokenLogprobs | None], tokenizer: Tokenizer, *, hidden: int = 0
) -> list[Token]:
    """A prompt's tokens, each with its log-probabilities and its offset in the prompt's text. The first `hidden` ones are not
    part of that text (a token that was put in front of it)."""
    decoder = IncrementalDecoder(tokenizer, skip_special=False)
    tokens, decoded = [], 0
    for place, (token_id, scores) in enumerate(zip(ids, logprobs, strict=True)):
        tokens.append(Token(token_id, decoded, scores))
        if place >= hidden:
            decoded += len(decoder.push(token_id))
    return tokens
