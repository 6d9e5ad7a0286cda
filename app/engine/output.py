"""A request's tokens -> the text that may be shown: UTF-8 put together, stop strings kept back, log-probabilities alongside.

Free of torch; runs on the client's side, where it shares no processor time with the steps.
"""

from collections.abc import Sequence

from app.engine.messages import Delta, Finish, Timings, Token, TokenLogprobs
from model.tokenizer import IncrementalDecoder, Tokenizer


class StopMatcher:
    """Finds the first stop string to be completed, and never lets a character go that may yet be part of one.

    What it finds depends on the text alone, not on the pieces it comes in.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""
        self.matched: str | None = None

    def push(self, piece: str) -> str:
        """The text that may go out now that `piece` has come; after a match, what stood before it."""
        if not self._stops:
            return piece
        text = self._held + piece
        found = [(at + len(stop), at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            _, at, self.matched = min(found)
            self._held = ""
            return text[:at]
        keep = max(_overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """The text kept back: no stop string can be completed any more."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that `stop` begins with, short of all of it."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)


class OutputProcessor:
    """One request's road from token ids to deltas. `push` and `finish` in turn, `take` whenever somebody reads.

    Until `min_tokens` tokens have come stop strings are not looked for, as vLLM has it.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str], *, min_tokens: int, prompt_tokens: int) -> None:
        self._decoder = IncrementalDecoder(tokenizer)
        self._matcher = StopMatcher(stops)
        self._min_tokens = min_tokens
        self._prompt_tokens = prompt_tokens
        self._tokens: list[Token] = []  # all that have come
        self._taken = 0  # how many of them are out
        self._decoded = 0  # characters the decoder has given
        self._released = 0  # of these, how many may be shown
        self._ready: list[str] = []  # shown, but not yet taken
        self.finished: Finish | None = None

    @property
    def stopped(self) -> bool:
        """Whether a stop string has been completed: the request needs no more tokens."""
        return self._matcher.matched is not None

    @property
    def has_delta(self) -> bool:
        """Whether `take` has something to show."""
        return bool(self._ready) or self.finished is not None

    def push(self, token_id: int, logprobs: TokenLogprobs | None) -> None:
        """Take in the next token of the answer; ignored after a stop string."""
        if self.stopped:
            return
        self._tokens.append(Token(token_id, self._decoded, logprobs))
        piece = self._decoder.push(token_id)
        self._decoded += len(piece)
        self._release(self._matcher.push(piece) if len(self._tokens) > self._min_tokens else piece)

    def finish(self, reason: str, stop_token: int | None, timings: Timings) -> None:
        """No token will come any more. A stop string, even one completed by the last character, is the stronger reason."""
        if not self.stopped:
            tail = self._decoder.flush()  # half a character becomes U+FFFD
            self._decoded += len(tail)
            self._release(self._matcher.push(tail))
        if self.stopped:
            # Only tokens that begin before the cut are part of the answer.
            self._tokens = [token for token in self._tokens if token.text_offset < self._released]
            reason, stop_reason = "stop", self._matcher.matched
        else:
            self._release(self._matcher.flush())
            stop_reason = stop_token
        self.finished = Finish(reason, stop_reason, self._prompt_tokens, len(self._tokens), timings)

    def take(self) -> Delta:
        """All that may be shown and was not taken before, as one delta."""
        end = self._taken
        while end < len(self._tokens) and (self.finished or self._tokens[end].text_offset < self._released):
            end += 1
        delta = Delta("".join(self._ready), self._tokens[self._taken : end], self.finished)
        self._taken = end
        self._ready.clear()
        return delta

    def _release(self, text: str) -> None:
        if text:
            self._released += len(text)
            self._ready.append(text)
