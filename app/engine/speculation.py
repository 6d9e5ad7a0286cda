"""Speculative decoding without a draft model: what followed the same words before is guessed to follow again.

Prompt look-up (Saxena, 2023). A guess is only a guess: `app.engine.picking` draws every token as if there were none, so answers
are the same with and without. What this file decides is what to guess and whether guessing pays.
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
_FIRST_PAUSE, _LONGEST_PAUSE = 4, 256  # drafts
_MEMORY = 0.8  # weight of the past in the acceptance rate, for each draft


class Drafter:
    """One request's guesses: its prompt and output, indexed by pairs of tokens, and how its guesses fared.

    A token costs the same however long the text is, and about 150 bytes.
    """

    def __init__(self, prompt: Sequence[int], *, longest: int = _LONGEST_DRAFT) -> None:
        self._tokens: list[int] = []
        self._latest: dict[int, int] = {}  # a pair -> where what follows its latest occurrence stands
        self._before: list[
            int
        ] = []  # for each token: the same for the occurrence before that of the pair it ends; or -1
        self._prompt = prompt  # indexed at the first draft: a request that never guesses pays nothing
        self._n_prompt = len(prompt)
        self._longest = longest
        self._length = min(_FIRST_DRAFT, longest)
        self._rate = 1.0  # optimistic until learnt
        self._least = 0.0  # what it had to be at the last draft
        self._pause, self._next_pause = 0, _FIRST_PAUSE
        self._probing = False  # a pause is over: one draft is due whatever the rate was
        self._forced = False  # the last draft was the grammar's, and proves nothing of ours

    def draft(
        self, output: Sequence[int], limit: int, *, constraint: "Constraint | None" = None, least: float = 0.0
    ) -> list[int]:
        """Up to `limit` tokens that may come next; often none.

        output: all tokens so far; those that the last call hadn't seen are taken in. constraint: what it forces is
        guessed, what it forbids cut off; its state stays. least: guess only while at least this share of guesses comes
        true (`acceptance_needed`), but for a rare try whether it does again.
        """
        if limit <= 0:
            return []
        self._least = least
        self._index_prompt()
        for token in output[len(self._tokens) - self._n_prompt :]:
            self._add(token)
        forced = [] if constraint is None else constraint.forced()
        self._forced = bool(forced)
        if forced:
            return forced[:limit]
        if self._pause > 0:
            self._pause -= 1
            return []
        if self._rate < least and not self._probing:
            self._sit_out()
            return []
        found = self._look_up(min(limit, self._length))
        return found if constraint is None or not found else found[: constraint.valid(found)]

    def learn(self, drafted: int, accepted: int) -> None:
        """How the last draft fared: `accepted` of its `drafted` tokens were right. All: guess further next time. None,
        however little was guessed: pause, longer each time."""
        if drafted <= 0 or self._forced:
            return
        self._probing = False
        self._rate = _MEMORY * self._rate + (1 - _MEMORY) * accepted / drafted
        if accepted == drafted:
            self._length = min(2 * self._length, self._longest)
        else:
            self._length = accepted + 1 if accepted else max(1, self._length // 2)
        if accepted and self._rate >= self._least:
            self._next_pause = _FIRST_PAUSE
        elif accepted == drafted:
            self._next_pause = max(_FIRST_PAUSE, self._next_pause // 4)
        elif not accepted and (drafted == 1 or self._length == 1):
            self._sit_out()

    def _sit_out(self) -> None:
        self._pause, self._probing = self._next_pause, True
        self._next_pause = min(2 * self._next_pause, _LONGEST_PAUSE)

    def _index_prompt(self) -> None:
        if self._prompt:
            prompt, self._prompt = self._prompt, ()
            for token in prompt:
                self._add(token)

    def _add(self, token: int) -> None:
        tokens = self._tokens
        place = -1
        if tokens:
            pair = tokens[-1] << 32 | token
            place = self._latest.get(pair, -1)
            self._latest[pair] = len(tokens) + 1
        tokens.append(token)
        self._before.append(place)

    def _look_up(self, n: int) -> list[int]:
        """The n tokens behind the earlier place whose words agree longest with the last ones; the latest of equals."""
        tokens, end = self._tokens, len(self._tokens)
        place, best, best_match = self._before[-1] if self._before else -1, -1, 0
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


_GUESSED_SHARE = 0.15  # of a step's fixed cost, for one more row: int8 on two cores; stands until steps were measured
_GUESS_WEIGHT = 4.0  # in squared rows: how much spread among the measured steps outweighs it
_FADING = 0.98  # of older measurements, for each new one
_MOST_ROWS = 64  # of wider steps nothing is learnt: their products are of another kind
_OUTLIER = 4.0  # a pause of the whole machine counts for no more than this many times what was expected


@dataclass
class StepCost:
    """What a step costs: `base` for reading the weights, `row` for each token computed; in one unit, seconds once measured.

    Only their ratio decides anything. `observe` fits both to measured steps, by least squares that forget.
    """

    base: float = 1.0
    row: float = _GUESSED_SHARE
    _weight: float = 0.0
    _rows: float = 0.0  # fading means of rows and seconds, and of their (co)variance times _weight
    _seconds: float = 0.0
    _spread: float = 0.0
    _shared: float = 0.0

    def observe(self, rows: int, seconds: float) -> None:
        """Take in a measured step over `rows` tokens."""
        if not 0 < rows <= _MOST_ROWS or not seconds > 0:
            return
        if self._weight > 1:
            seconds = min(seconds, _OUTLIER * (self.base + self.row * rows))
        self._weight = _FADING * self._weight + 1
        off_rows, off_seconds = rows - self._rows, seconds - self._seconds
        self._rows += off_rows / self._weight
        self._seconds += off_seconds / self._weight
        self._spread = _FADING * self._spread + off_rows * (rows - self._rows)
        self._shared = _FADING * self._shared + off_rows * (seconds - self._seconds)
        guess = self._seconds * _GUESSED_SHARE / (1 + _GUESSED_SHARE * self._rows)
        slope = (self._shared + _GUESS_WEIGHT * guess) / (self._spread + _GUESS_WEIGHT)
        # Between a row that is next to free and steps that are all rows.
        self.row = min(max(slope, 0.01 * self._seconds / self._rows), 0.9 * self._seconds / self._rows)
        self.base = self._seconds - self.row * self._rows


_UNMEASURED = StepCost()


def acceptance_needed(n_decoding: int, cost: StepCost = _UNMEASURED) -> float:
    """The share of guesses that must come true for guessing to pay in a step of `n_decoding` rows, from 0 to 1.

    A drafted token takes `row` seconds and gives as many tokens as the share says; without it the step gives n_decoding
    tokens in base + row * n_decoding seconds. It pays when its rate is the better one.
    """
    return cost.row * n_decoding / (cost.base + cost.row * n_decoding)


def draft_budget(n_decoding: int, cost: StepCost = _UNMEASURED) -> int:
    """Drafted tokens, over all rows, worth verifying in a step of `n_decoding` rows; 0: guessing can't pay.

    They may take as long as reading the weights does: so a stream that guesses holds up the others by less than double.
    """
    if n_decoding <= 0 or acceptance_needed(n_decoding, cost) > 0.9:
        return 0
    return int(cost.base / cost.row)
