"""Speculative decoding without a draft model: the tokens that followed the same words before are guessed to follow again.

Prompt look-up (Saxena, 2023). A guess is only ever a guess: `app.engine.picking` draws every token as if there were none, so
answers are the same with and without. What this file decides is whether guessing pays.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.engine.grammar import Constraint

_LEAST_MATCH = 2  # tokens that must agree before what followed them is guessed
_LONGEST_MATCH = 8  # agreement beyond this makes no difference between two places
_PLACES = 8  # earlier places looked at: bounds the work of a draft
_LONGEST_DRAFT = 8
_FIRST_DRAFT = 3
_LONGEST_PAUSE = 256
_MEMORY = 0.8  # weight of the past in the acceptance rate, per draft


class Drafter:
    """One request's guesses: its prompt and output, indexed by pairs of tokens, and how its guesses fared.

    `append` and `draft` cost the same however long the text is. Memory: about 100 bytes a token.
    """

    def __init__(self, prompt: Sequence[int], *, longest: int = _LONGEST_DRAFT) -> None:
        self._tokens: list[int] = []
        self._latest: dict[tuple[int, int], int] = {}  # pair -> where the token behind its latest occurrence stands
        self._before: list[int] = []  # for each position: the same pair's occurrence before that, or -1
        self._prompt = prompt  # indexed at the first draft, so that requests which never guess pay nothing
        self._n_prompt = len(prompt)
        self._longest = longest
        self._length = min(_FIRST_DRAFT, longest)
        self._rate = 1.0  # of drafted tokens accepted, decaying average; optimistic until learnt
        self._pause = 0  # drafts to sit out
        self._next_pause = 4

    @property
    def acceptance(self) -> float:
        """The share of drafted tokens that were right lately, from 0 to 1."""
        return self._rate

    def append(self, token: int) -> None:
        """Take in the next token of the output."""
        self._index_prompt()
        self._add(token)

    def draft(
        self, output: Sequence[int], limit: int, *, constraint: "Constraint | None" = None, least: float = 0.0
    ) -> list[int]:
        """Up to `limit` tokens that may come next; often none.

        output: all tokens so far; those not yet taken in by `append` are taken in now. constraint: what it forces is
        guessed for free, what it forbids is cut off; its state is unchanged. least: guess only while at least this
        share of guesses comes true (`acceptance_needed`).
        """
        if limit <= 0:
            return []
        self._index_prompt()
        for token in output[len(self._tokens) - self._n_prompt :]:
            self._add(token)
        if constraint is not None and (forced := constraint.forced()):
            return forced[:limit]
        if self._pause > 0:
            self._pause -= 1
            return []
        if self._rate < least:
            self._sit_out()
            return []
        found = self._look_up(min(limit, self._length))
        return found if constraint is None or not found else found[: constraint.valid(found)]

    def learn(self, drafted: int, accepted: int) -> None:
        """How a draft fared: `accepted` of its `drafted` tokens were right. All right: guess further next time; none,
        more than once: pause, longer each time."""
        if drafted <= 0:
            return
        self._rate = _MEMORY * self._rate + (1 - _MEMORY) * accepted / drafted
        if accepted == drafted:
            self._length = min(2 * self._length, self._longest)
        else:
            self._length = max(1, accepted + 1 if accepted else self._length // 2)
        if accepted:
            self._next_pause = 4
        elif self._length == 1:
            self._sit_out()

    def _sit_out(self) -> None:
        self._pause = self._next_pause
        self._next_pause = min(2 * self._next_pause, _LONGEST_PAUSE)
        self._rate = max(self._rate, 0.5)  # what a retry starts from

    def _index_prompt(self) -> None:
        if self._prompt:
            prompt, self._prompt = self._prompt, ()
            for token in prompt:
                self._add(token)

    def _add(self, token: int) -> None:
        tokens = self._tokens
        tokens.append(token)
        if len(tokens) >= 2:
            pair = (tokens[-2], token)
            self._before.append(self._latest.get(pair, -1))
            self._latest[pair] = len(tokens)
        else:
            self._before.append(-1)

    def _look_up(self, n: int) -> list[int]:
        """The n tokens behind the earlier place whose words agree longest with the last ones; the latest of equals."""
        tokens, end = self._tokens, len(self._tokens)
        if end <= _LEAST_MATCH:
            return []
        place, best, best_match = self._before[end - 1], -1, 0
        for _ in range(_PLACES):
            if place < 0:
                break
            match = _LEAST_MATCH
            while match < _LONGEST_MATCH and match < place and tokens[place - match - 1] == tokens[end - match - 1]:
                match += 1
            if match > best_match:
                best, best_match = place, match
            place = self._before[place - 1]
        if best < 0:
            return []
        period = end - best  # a text that repeats itself goes on doing so
        return [tokens[best + i % period] for i in range(n)]


@dataclass
class StepCost:
    """What a step costs: `base` for reading the weights, and `row` for each token computed; in the same unit.

    `observe` fits both to measured steps; the ratio is what decisions need.
    """

    base: float = 1.0
    row: float = 0.15

    def observe(self, rows: int, seconds: float) -> None:
        """Take in a measured step over `rows` tokens."""


_DEFAULT_COST = StepCost()


def acceptance_needed(n_decoding: int, cost: StepCost = _DEFAULT_COST) -> float:
    """The share of guesses that must come true for a draft to pay in a step of `n_decoding` rows."""
    return cost.row * n_decoding / (cost.base + cost.row * n_decoding)


def draft_budget(n_decoding: int, cost: StepCost = _DEFAULT_COST) -> int:
    """Drafted tokens, over all rows, worth verifying in a step of `n_decoding` rows; 0: guessing doesn't pay."""
    if n_decoding <= 0 or acceptance_needed(n_decoding, cost) > 0.9:
        return 0
    return int(cost.base / cost.row)
