"""Structured output: what may come next under a JSON schema, a regular expression or a choice (library llguidance)."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING

from torch import Tensor

from model.errors import HomegrownError
from model.tokenizer import Tokenizer

if TYPE_CHECKING:
    from app.engine.messages import Grammar


class GrammarError(HomegrownError):
    """A grammar that can't be used, or that leaves no token to go on with."""


class Constraint:
    """One request's state within its grammar. Not for two threads at once."""

    @property
    def finished(self) -> bool:
        """Nothing but the end may follow: the answer is whole, and the request ends with "stop"."""
        raise NotImplementedError

    @property
    def complete(self) -> bool:
        """The answer so far is a whole one (it may go on if not `finished`)."""
        raise NotImplementedError

    def allow(self, logits_row: Tensor, ends: frozenset[int] = frozenset()) -> None:
        """Ban in place what the grammar forbids now: logits_row [V] float32. `ends`: the row's end_ids."""
        raise NotImplementedError

    def accept(self, token: int) -> bool:
        """Advance by a token of the answer; False: it isn't allowed, and the state is as before. An end id is accepted
        where the answer is complete."""
        raise NotImplementedError

    def rollback(self, n: int) -> None:
        """Take back the last n tokens accepted."""
        raise NotImplementedError

    def forced(self) -> list[int]:
        """Tokens that must come next: a free draft."""
        raise NotImplementedError

    def valid(self, tokens: Sequence[int]) -> int:
        """How many of `tokens` the grammar would accept one after the other; the state is unchanged."""
        raise NotImplementedError


class GrammarCompiler:
    """Makes constraints of grammars, on a thread of its own."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        vocab_size: int,
        eos_ids: frozenset[int],
        *,
        seconds: float = 5.0,
        max_bytes: int = 65536,
    ) -> None:
        raise NotImplementedError

    def submit(self, grammar: Grammar) -> Future[Constraint]:
        """The grammar's constraint, at its start, as a future; its exception is a GrammarError."""
        raise NotImplementedError
