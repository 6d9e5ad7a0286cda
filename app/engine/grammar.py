"""Structured output: which tokens may come next so that an answer fits a JSON schema, a regular expression or a choice.

The parser is llguidance, imported when the first grammar is asked for. Grammars are compiled on a thread of their own; a
request gets a `Constraint`, which the step asks for masks (microseconds each) and tells the tokens that were taken.

What a finished answer keeps: it fits the grammar whenever the request ends with "stop". Cut by max_tokens ("length") or by a
stop string it is only the beginning of such an answer. So
- an end token or one of stop_token_ids can be drawn only where the answer is whole, whatever the grammar says of its text;
- special tokens are never part of the text;
- an answer to which nothing can be added ends at once (`finished`), with ignore_eos or below min_tokens too;
- with ignore_eos an answer that could be longer goes on until it can't, or until max_tokens;
- where a grammar and the bans of min_tokens leave no token at all, the request fails with a GrammarError.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from app.engine.messages import Grammar, GrammarError
from model.sampling import BANNED
from model.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer
    from torch import Tensor

__all__ = ["Constraint", "Grammar", "GrammarCompiler", "GrammarError"]

logger = logging.getLogger(__name__)

_CACHED = 32  # compiled grammars kept
_MOST_ABANDONED = 2  # compilations past their time that may still be running
_SPACES = r"[\x20\x0A\x0D\x09]{1,32}"  # between JSON's marks: enough to indent by, too few to go on for ever
# What one mask may cost at the worst: about 10 ms, and 20 MB of lexer states for each request.
_LIMITS = {"step_lexer_fuel": 100_000, "step_max_items": 50_000, "max_lexer_states": 20_000, "verbose_errors": False}
# Eight tokens' bits of a mask -> what is added to their logits: 0 or minus infinity. [256, 8] float32.
_BIAS = np.where(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little"), 0.0, BANNED).astype(
    np.float32
)
_REMEDY = {
    "json_object": "report it",
    "json_schema": "simplify the schema, or leave out what isn't supported",
    "regex": "write it in Rust's syntax (no look-around, no back-references, no \\b), matching the whole text",
    "choice": "give fewer or shorter choices",
}


class Constraint:
    """One request's state within its grammar. Not for two threads at once."""

    def __init__(self, matcher: LLMatcher, vocab_size: int, eos_ids: frozenset[int]) -> None:
        self._matcher = matcher
        self._vocab_size = vocab_size
        self._eos_ids = eos_ids
        self._n_ends = 0  # end tokens accepted; the parser doesn't know of them

    @property
    def finished(self) -> bool:
        """Nothing but the end may follow: the answer is whole, and the request ends with "stop"."""
        return self._n_ends > 0 or (self._matcher.is_stopped() and not self._matcher.is_error())

    @property
    def complete(self) -> bool:
        """The answer so far fits the grammar as it is; unless `finished` it may go on."""
        return self._matcher.is_accepting()

    def allow(self, logits_row: Tensor, ends: frozenset[int] | None = None) -> None:
        """Ban in place what may not come next: logits_row [V] float32, any device.

        `ends`: the tokens that end the answer, allowed where it is complete and nowhere else; the eos ids if None.
        GrammarError when no token is left, or when the grammar has grown too complex to go on.
        """
        mask = self._matcher.compute_bitmask()
        self._check()
        row = logits_row if logits_row.device.type == "cpu" else logits_row.cpu()
        values = row.numpy()  # numpy: one thread, which a row this short is better off with
        ends = self._eos_ids if ends is None else ends
        mine = [token for token in ends if token < self._vocab_size]
        kept = values[mine] if self.complete else BANNED
        bias = _BIAS[np.frombuffer(mask, np.uint8)].reshape(-1)[: self._vocab_size]
        values += BANNED if self._n_ends else bias
        values[mine] = kept
        if values.max(initial=BANNED) == BANNED:
            raise GrammarError("the grammar leaves no token to go on with that this model has and the request allows")
        if row is not logits_row:
            logits_row.copy_(row)

    def accept(self, token: int) -> bool:
        """Advance by a token of the answer. False: it may not come here, and the state is as it was. An eos id may come
        where the answer is complete. GrammarError when the grammar has grown too complex to go on."""
        if token in self._eos_ids:
            allowed = self.complete
            self._n_ends += allowed
            return allowed
        if self._n_ends:
            return False
        taken = self._matcher.try_consume_tokens([token]) == 1
        self._check()
        return taken

    def rollback(self, n: int) -> None:
        """Take back the last n tokens accepted, all of them at most (GrammarError for more)."""
        ends = min(n, self._n_ends)
        self._n_ends -= ends
        if n > ends:
            self._matcher.rollback(n - ends)
            self._check()

    def forced(self) -> list[int]:
        """Tokens that must come next, whatever the logits: a free draft. Often empty."""
        return [] if self.finished else list(self._matcher.compute_ff_tokens())

    def valid(self, tokens: Sequence[int]) -> int:
        """How many of `tokens`, one after the other, could come next; the state stays as it is."""
        if self._n_ends:
            return 0
        end = next((i for i, token in enumerate(tokens) if token in self._eos_ids), len(tokens))
        return self._matcher.validate_tokens(list(tokens[:end])) if end else 0

    def _check(self) -> None:
        if self._matcher.is_error():
            raise GrammarError(f"the grammar can't be followed any further: {_first_line(self._matcher.get_error())}")


@dataclass
class _Job:
    grammar: Grammar
    future: Future[Constraint]
    over: bool = False  # its future has been told, by whoever came first: the worker or the clock


class GrammarCompiler:
    """Makes constraints of grammars on a thread of its own, and keeps the latest grammars.

    A compilation that takes longer than `seconds` is abandoned: its request fails, another thread takes over, and the old
    one ends when the parser lets go (a thread can't be killed). While too many such threads run, new grammars are refused.

    vocab_size: that of the model's logits, which may exceed the tokenizer's; ids without a token are never allowed.
    eos_ids: the tokens that end an answer; may be empty. max_bytes: the longest `Grammar.value`, in UTF-8.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        vocab_size: int,
        eos_ids: frozenset[int],
        *,
        seconds: float = 5.0,
        max_bytes: int = 65536,
    ) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._eos_ids = frozenset(token for token in eos_ids if 0 <= token < vocab_size)
        self._seconds = seconds
        self._max_bytes = max_bytes
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._lock = threading.Lock()  # guards what follows
        self._cache: OrderedDict[Grammar, LLMatcher] = OrderedDict()
        self._worker: threading.Thread | None = None
        self._abandoned = 0
        self._vocabulary: LLTokenizer | None = None  # the worker's alone

    def submit(self, grammar: Grammar) -> Future[Constraint]:
        """A constraint at its start, when it is compiled; at once for a grammar seen lately. The future's exception is a
        GrammarError that says what is wrong and what to do. Cancelling the future spares the work not yet begun."""
        future: Future[Constraint] = Future()
        with self._lock:
            if (compiled := self._cache.get(grammar)) is not None:
                self._cache.move_to_end(grammar)
                future.set_result(self._constraint(compiled))
                return future
            if self._worker is None and self._abandoned >= _MOST_ABANDONED:
                future.set_exception(_busy())
                return future
            self._jobs.put(_Job(grammar, future))
            if self._worker is None:
                self._start_worker()
        return future

    def close(self) -> None:
        """Let the thread end after what it has begun. No `submit` afterwards."""
        self._jobs.put(None)

    def _start_worker(self) -> None:
        self._worker = threading.Thread(target=self._work, name="grammar", daemon=True)
        self._worker.start()

    def _work(self) -> None:
        _yield_to_others()
        while (job := self._jobs.get()) is not None:
            if not job.future.set_running_or_notify_cancel():
                continue
            clock = threading.Timer(self._seconds, self._give_up, [job])
            clock.daemon = True
            try:
                if self._vocabulary is None:
                    self._vocabulary = _load_vocabulary(self._tokenizer, self._vocab_size, self._eos_ids)
                clock.start()
                compiled, error = self._compile(job.grammar), None
            except GrammarError as refusal:
                compiled, error = None, refusal
            except Exception as fault:
                logger.exception("a grammar could not be compiled")
                compiled, error = None, GrammarError(f"{job.grammar.kind}: it could not be compiled ({fault})")
            clock.cancel()
            if not self._report(job, compiled, error):
                return

    def _report(self, job: _Job, compiled: LLMatcher | None, error: GrammarError | None) -> bool:
        """Tell what came of a job. False: this thread was abandoned meanwhile, and another has its place."""
        with self._lock:
            if compiled is not None:  # late or not: who asks again gets it
                self._cache[job.grammar] = compiled
                if len(self._cache) > _CACHED:
                    self._cache.popitem(last=False)
            late, job.over = job.over, True
            if late:
                self._abandoned -= 1
                if self._worker is not None:
                    return False
                self._worker = threading.current_thread()
        if not late:
            if compiled is None:
                job.future.set_exception(error)
            else:
                job.future.set_result(self._constraint(compiled))
        return True

    def _give_up(self, job: _Job) -> None:
        """The clock's: a job's time is up."""
        with self._lock:
            if job.over:
                return
            job.over = True
            self._abandoned += 1
            self._worker = None
            refused = []
            if self._abandoned < _MOST_ABANDONED:
                self._start_worker()
            else:
                with contextlib.suppress(Empty):
                    while True:
                        refused.append(self._jobs.get_nowait())
        job.future.set_exception(
            GrammarError(
                f"{job.grammar.kind}: not compiled within {self._seconds:g} seconds; {_REMEDY[job.grammar.kind]}"
            )
        )
        for other in refused:
            if other is None:
                self._jobs.put(None)
            elif other.future.set_running_or_notify_cancel():
                other.future.set_exception(_busy())

    def _compile(self, grammar: Grammar) -> LLMatcher:
        """GrammarError for one that can't be used."""
        from llguidance import LLMatcher, LLParserLimits

        try:
            size = len(grammar.value.encode())
        except UnicodeEncodeError:
            raise GrammarError(f"{grammar.kind}: has half a surrogate pair, which is no text; leave it out") from None
        if size > self._max_bytes:
            raise GrammarError(
                f"{grammar.kind}: of {size} bytes; at most {self._max_bytes} can be used: make it shorter"
            )
        try:
            matcher = LLMatcher(self._vocabulary, _source(grammar), log_level=0, limits=LLParserLimits(**_LIMITS))
        except ValueError as error:
            raise _refused(grammar, str(error)) from None
        mask = np.frombuffer(matcher.compute_bitmask(), np.uint8)  # the first one is the slowest: not within a step
        if matcher.is_error() and matcher.stop_reason() not in ("NoExtension", "NoExtensionBias"):
            raise _refused(grammar, matcher.get_error())
        if matcher.is_error() or not np.unpackbits(mask, count=self._vocab_size, bitorder="little").any():
            empty = not matcher.is_error() and matcher.is_accepting()
            raise _refused(grammar, "only the empty text fits" if empty else "no text fits that this model can write")
        return matcher

    def _constraint(self, compiled: LLMatcher) -> Constraint:
        return Constraint(compiled.deep_copy(), self._vocab_size, self._eos_ids)


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
        raise GrammarError(f"{grammar.kind}: nested too deep; {_REMEDY[grammar.kind]}") from None
    except ValueError as error:
        raise GrammarError(f"{grammar.kind}: not valid JSON: {error}") from None


def _refused(grammar: Grammar, why: str) -> GrammarError:
    return GrammarError(f"{grammar.kind}: {_first_line(why)}; {_REMEDY[grammar.kind]}")


def _first_line(text: str) -> str:
    """The parser's word on what is wrong, cut to what a person reads."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("<")]
    said = [line for line in lines if line.startswith("error:")] or lines[:1] or ["no reason given"]
    return said[0].removeprefix("error: ")[:300]


def _busy() -> GrammarError:
    return GrammarError("other grammars, too complex to compile in time, are still being given up; try again later")


def _load_vocabulary(tokenizer: Tokenizer, vocab_size: int, eos_ids: frozenset[int]) -> LLTokenizer:
    try:
        import llguidance
    except ImportError as error:
        raise GrammarError(
            f"structured output needs the library llguidance: pip install llguidance ({error})"
        ) from None
    wrapper = llguidance.TokenizerWrapper(_Vocabulary(tokenizer, vocab_size, eos_ids))
    return llguidance.LLTokenizer(wrapper)


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
        self._ids = {
            data: token for token, data in enumerate(self.tokens) if data and token not in self.special_token_ids
        }
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


def _yield_to_others() -> None:
    """Give this thread a low priority, where the system can do that for a single thread: steps come first."""
    with contextlib.suppress(AttributeError, OSError):
        if os.uname().sysname == "Linux":
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
