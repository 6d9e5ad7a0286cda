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
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

import numpy as np
import torch

from app.engine.grammar_job import GrammarJob
from app.engine.grammar_library import REMEDY, compile_grammar, first_line, load_vocabulary
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
# Eight tokens' bits of a mask -> what is added to their logits: 0 or minus infinity. [256, 8] float32.
_BIAS = np.where(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little"), 0.0, BANNED).astype(
    np.float32
)


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
        ends = self._eos_ids if ends is None else ends
        bias = _BIAS[np.frombuffer(mask, np.uint8)].reshape(-1)[: self._vocab_size]  # a new array
        if self._n_ends:
            bias[:] = BANNED
        bias[[token for token in ends if token < self._vocab_size]] = 0.0 if self.complete else BANNED
        if bias.max() == BANNED:
            raise GrammarError("the grammar leaves no token to go on with that this model has and the request allows")
        if logits_row.device.type == "cpu":
            np.add(logits_row.numpy(), bias, out=logits_row.numpy())  # without threads: the row is too short for them
        else:
            logits_row += torch.from_numpy(bias).to(logits_row.device)

    def accept(self, token: int) -> bool:
        """Advance by a token of the answer. False: it may not come here, and the state is as it was. An eos id may come
        where the answer is complete. GrammarError when the grammar has grown too complex to go on."""
        if token in self._eos_ids:
            allowed = self.complete
            self._n_ends += allowed
            return allowed
        if self._n_ends or not 0 <= token < self._vocab_size:
            return False
        taken = self._matcher.try_consume_tokens([token]) == 1
        self._check()
        return taken

    def forced(self) -> list[int]:
        """Tokens that must come next, whatever the logits: a free draft. Often empty."""
        return [] if self.finished else list(self._matcher.compute_ff_tokens())

    def valid(self, tokens: Sequence[int]) -> int:
        """How many of `tokens`, one after the other, could come next; the state stays as it is."""
        if self._n_ends:
            return 0
        foreign = (i for i, token in enumerate(tokens) if token in self._eos_ids or not 0 <= token < self._vocab_size)
        end = next(foreign, len(tokens))
        return self._matcher.validate_tokens(list(tokens[:end])) if end else 0

    def _check(self) -> None:
        if self._matcher.is_error():
            raise GrammarError(f"the grammar can't be followed any further: {first_line(self._matcher.get_error())}")


class GrammarCompiler:
    """Makes constraints of grammars on a thread of its own, and keeps the latest grammars.

    A compilation that computes for longer than `seconds` is abandoned: the requests that wait for it fail, another thread takes
    over, and the old one ends when the parser lets go (a thread can't be killed). While too many such threads run, new
    grammars are refused.

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
        self._jobs: SimpleQueue[GrammarJob | None] = SimpleQueue()
        self._lock = threading.Lock()  # guards what follows
        self._open: dict[Grammar, GrammarJob] = {}  # queued or being compiled
        self._cache: OrderedDict[Grammar, LLMatcher] = OrderedDict()
        self._worker: threading.Thread | None = None
        self._abandoned = 0
        self._loading = threading.Lock()
        self._vocabulary: LLTokenizer | None = None

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
            if (job := self._open.get(grammar)) is not None:
                job.futures.append(future)
                return future
            self._open[grammar] = job = GrammarJob(grammar, [future])
            self._jobs.put(job)
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
            with self._lock:
                if all(future.cancelled() for future in job.futures):
                    del self._open[job.grammar]
                    continue
            try:
                vocabulary = self._load_vocabulary()
                job.start_clocks()
                self._watch(job)
                compiled, error = self._compile(job.grammar, vocabulary), None
            except GrammarError as refusal:
                compiled, error = None, refusal
            except Exception as fault:
                logger.exception("a grammar could not be compiled")
                compiled, error = None, GrammarError(f"{job.grammar.kind}: it could not be compiled ({fault})")
            if not self._report(job, compiled, error):
                return

    def _report(self, job: GrammarJob, compiled: LLMatcher | None, error: GrammarError | None) -> bool:
        """Tell what came of a job. False: this thread was abandoned meanwhile, and another has its place."""
        with self._lock:
            if compiled is not None:  # late or not: who asks again gets it
                self._cache[job.grammar] = compiled
                if len(self._cache) > _CACHED:
                    self._cache.popitem(last=False)
            late, job.over = job.over, True
            if job.clock is not None:
                job.clock.cancel()
            if late:
                self._abandoned -= 1
                if self._worker is not None:
                    return False
                self._worker = threading.current_thread()
            else:
                del self._open[job.grammar]
        if late:
            return True
        if compiled is None:
            job.tell(error=error)
        else:
            job.tell(lambda: self._constraint(compiled))
        return True

    def _watch(self, job: GrammarJob) -> None:
        """Look again when a job's time may be up."""
        job.clock = threading.Timer(max(job.seconds_left(self._seconds), 0.01), self._look, [job])
        job.clock.daemon = True
        job.clock.start()

    def _look(self, job: GrammarJob) -> None:
        with self._lock:
            if job.over:
                return
            if job.seconds_left(self._seconds) > 0:
                self._watch(job)
                return
            refused = self._abandon(job)
        limit = f"not compiled within {self._seconds:g} seconds"
        job.tell(error=GrammarError(f"{job.grammar.kind}: {limit}; {REMEDY[job.grammar.kind]}"))
        for other in refused:
            other.tell(error=_busy())

    def _abandon(self, job: GrammarJob) -> list[GrammarJob]:
        """Leave a job and its thread to themselves; under the lock. The jobs that nobody can take over."""
        job.over = True
        del self._open[job.grammar]
        self._abandoned += 1
        self._worker = None
        if self._abandoned < _MOST_ABANDONED:
            self._start_worker()
            return []
        refused, closing = [], False
        with contextlib.suppress(Empty):
            while True:
                other = self._jobs.get_nowait()
                if other is None:
                    closing = True
                else:
                    refused.append(other)
                    del self._open[other.grammar]
        if closing:
            self._jobs.put(None)
        return refused

    def _load_vocabulary(self) -> LLTokenizer:
        with self._loading:
            if self._vocabulary is None:
                self._vocabulary = load_vocabulary(self._tokenizer, self._vocab_size, self._eos_ids)
            return self._vocabulary

    def _compile(self, grammar: Grammar, vocabulary: LLTokenizer) -> LLMatcher:
        return compile_grammar(grammar, vocabulary, max_bytes=self._max_bytes)

    def _constraint(self, compiled: LLMatcher) -> Constraint:
        return Constraint(compiled.deep_copy(), self._vocab_size, self._eos_ids)


def _busy() -> GrammarError:
    return GrammarError("other grammars, too complex to compile in time, are still being given up; try again later")


def _yield_to_others() -> None:
    """Give this thread a low priority, where the system can do that for a single thread: steps come first."""
    with contextlib.suppress(AttributeError, OSError):
        if os.uname().sysname == "Linux":
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
