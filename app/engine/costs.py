"""What steps have cost so far, and what follows for the next: how many prompt tokens may go along with the running streams."""

from app.engine.speculation import StepCost

_LEAST = 8  # prompt tokens in a step whatever they cost: prompts must get on
_FIRST = 128  # prompt tokens in a step beside which nothing decodes, until it is known what they cost
# Seconds that a step may take for prompts' sake. As long waits who has just come, or gone: a slot is to be free 0.2 s after its
# client has left. Much shorter steps would read the weights too often.
_LONGEST = 0.16
# How much longer than a step without prompt tokens one with them may take, at least and at most, in parts of the former. With
# as many streams as prompts a stream's tokens come half as fast while a prompt is prefilled. Where more prompts wait than
# streams run, it is they who lose by small steps: each pays for decoding again.
_STRETCH = (0.8, 3.0)
_WEIGHT = 0.15  # of a new measurement
_OUTLIER = 4.0  # a pause of the whole machine counts for no more than this many times what was expected


class StepCosts:
    """Decaying averages of measured steps.

    A step is taken to cost what decoding so many rows costs (measured by itself, for each power of two) and so much for
    each further token. With nothing measured yet, `first` prompt tokens go along.
    """

    def __init__(self, prefill_chunk: int, *, first: int = 32) -> None:
        self.prefill_chunk, self._first = prefill_chunk, first
        self._decode: dict[int, float] = {}  # bit length of the number of rows -> seconds
        self._token: float | None = None  # seconds for each token beside the decoded ones
        self._measured = 0  # steps that told it
        self.speculation = StepCost()  # the same steps, as the drafting sees them

    def budget(self, n_decoding: int, n_prompts: int = 1) -> int:
        """Tokens of `n_prompts` prompts that the next step may prefill beside `n_decoding` decoded rows."""
        if n_decoding == 0:
            return self._alone()
        decode = self._decode.get(n_decoding.bit_length())
        if decode is None or self._token is None:
            return min(self._first, self.prefill_chunk)
        low, high = _STRETCH
        seconds = min(min(max(n_prompts / n_decoding, low), high) * decode, max(_LONGEST - decode, _LONGEST / 4))
        return min(max(int(seconds / self._token), _LEAST), self.prefill_chunk)

    def observe(self, n_decoding: int, n_prompt: int, seconds: float, *, n_drafted: int = 0) -> None:
        """A step decoded so many rows, computed `n_prompt` tokens of prompts beside them, and so many drafted ones."""
        n_rows = n_decoding + n_prompt + n_drafted
        if n_rows == 0 or seconds <= 0:  # a clock may be coarser than a step
            return
        self.speculation.observe(n_rows, seconds)
        if n_drafted:
            return  # a drafted token costs more than a prompt's: it needs logits too
        size = n_decoding.bit_length()
        if n_prompt == 0:
            self._decode[size] = _blend(self._decode.get(size), seconds)
        elif n_decoding == 0:
            # A short prompt's step is mostly the reading of the weights: it says only what a token costs at most.
            if n_prompt >= self._first or (self._token is not None and seconds / n_prompt < self._token):
                self._learn(seconds / n_prompt)
        elif size in self._decode:
            # Not less than a fraction of the step: decoding may have become cheaper since it was measured.
            rest = max(seconds - self._decode[size], seconds / 8)
            self._learn(rest / n_prompt)
        elif self._token is not None:
            self._decode[size] = max(seconds - self._token * n_prompt, seconds / 4)

    def _learn(self, token: float) -> None:
        """Of the first measurements the plain average: the very first step is often a slow one."""
        self._measured += 1
        self._token = _blend(self._token, token, max(_WEIGHT, 1 / self._measured))

    def _alone(self) -> int:
        """The whole chunk, or the largest half, quarter, ... of it that isn't too long: equal parts leave no crumbs."""
        if self._token is None:
            return min(_FIRST, self.prefill_chunk)
        size = self.prefill_chunk
        while size * self._token > _LONGEST and size > _LEAST:
            size = max(size // 2, _LEAST)
        return size


def _blend(old: float | None, new: float, weight: float = _WEIGHT) -> float:
    return new if old is None else old + weight * (min(new, _OUTLIER * old) - old)
