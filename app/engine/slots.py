"""Cache slots and the tokens they hold: a slot stays warm when its request has ended, and a later prompt begins from it."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

logger = logging.getLogger(__name__)

_WORTH_COPYING = 8  # tokens: below this, computing them with the rest costs as little


@dataclass(eq=False, slots=True)
class Slot:
    """`tokens`: the sequence whose keys and values lie in the slot, with `adapter` (0: none) in force."""

    index: int
    adapter: int = 0
    tokens: list[int] = field(default_factory=list)
    whole: int = 0  # of these, how many were prefilled in whole chunks from the start
    taken: bool = False
    worth: float = 0.0  # of a free slot: the lowest is overwritten first


class SlotTable:
    """All slots. A prompt takes over the longest prefix of it that any slot holds under the same adapter.

    Which free slot is overwritten is decided as the GreedyDual cache does (Cao and Irani, 1997): a slot's worth is its length
    plus the age of the table when it was freed, and the age is the worth of the last one overwritten. So empty slots go first,
    short ones before long ones, and among equals the least recently used; but nothing stays for ever.

    `grain`: only multiples of so many tokens are taken over, and only from whole chunks of that size prefilled at the same
    places; 1 takes whatever there is. `copy(source, target, length)` copies between slots.
    """

    def __init__(self, n_slots: int, copy: Callable[[int, int, int], None], *, grain: int = 1) -> None:
        self.slots = [Slot(index) for index in range(n_slots)]
        self._free = dict(enumerate(self.slots))
        self._copy, self._grain = copy, grain
        self._age = 0.0

    @property
    def n_free(self) -> int:
        """How many no request has."""
        return len(self._free)

    def find(self, adapter: int, prompt: Sequence[int], limit: int) -> tuple[Slot | None, int]:
        """The slot that holds most of prompt[:limit], and how many tokens that is: a free one before a running one, then the one
        that has the least beside it."""
        best, best_key = None, (0, False, 0)
        for slot in self.slots:
            if slot.adapter == adapter and slot.tokens and slot.tokens[0] == prompt[0]:
                length = self.cut(slot, common_prefix(slot.tokens, prompt, limit))
                key = (length, not slot.taken, length - len(slot.tokens))
                if length and (best is None or key > best_key):
                    best, best_key = slot, key
        return best, best_key[0]

    def cut(self, slot: Slot, length: int) -> int:
        """How many of the first `length` tokens of a slot can be taken over."""
        return length if self._grain == 1 else self.whole(min(length, slot.whole))

    def whole(self, length: int) -> int:
        """`length` cut to a multiple of the grain."""
        return length // self._grain * self._grain

    def take(self, adapter: int, prompt: Sequence[int], source: Slot | None, length: int) -> Slot:
        """A free slot for a request, holding the first `length` tokens of its prompt if that is worth it: `source`, which
        holds them, or another into which they are copied, so that less is lost."""
        victim = min(self._free.values(), key=_worth)
        if source is not None and not source.taken and len(source.tokens) - length <= len(victim.tokens):
            slot = source
            self._shorten(slot, length)
        else:
            slot = victim
            self._age = max(self._age, slot.worth)
            self.clear(slot)
        slot.taken = True
        del self._free[slot.index]
        slot.adapter = adapter
        if slot is not source and source is not None:
            self.fill(slot, prompt, source, length)
        return slot

    def fill(self, slot: Slot, prompt: Sequence[int], source: Slot, length: int) -> None:
        """Copy the first `length` tokens of a prompt from `source`, which holds them, into `slot`, if that is worth it."""
        if length < _WORTH_COPYING:
            return
        try:
            self._copy(source.index, slot.index, length)
        except Exception:
            logger.exception("a slot could not be copied; its tokens are computed again")
        else:
            slot.tokens = list(prompt[:length])
            slot.whole = length

    def release(self, slot: Slot) -> None:
        """Give a slot back; what it holds stays."""
        slot.taken = False
        slot.worth = self._age + len(slot.tokens) if slot.tokens else 0.0
        self._free[slot.index] = slot

    def clear(self, slot: Slot) -> None:
        """Forget what a slot holds."""
        self._shorten(slot, 0)
        slot.worth = 0.0

    def forget(self, adapter: int | None = None) -> None:
        """Forget what the free slots hold, all of them or those of one adapter."""
        for slot in self._free.values():
            if adapter is None or slot.adapter == adapter:
                self.clear(slot)
                slot.adapter = 0

    def problem(self, taken: set[int], adapters: set[int], context: int | None = None) -> str | None:
        """What is wrong, if anything: slots lost, doubled, of an adapter that is gone, or longer than they can be."""
        held = {slot.index for slot in self.slots if slot.taken}
        if held != taken or set(self._free) != {slot.index for slot in self.slots} - taken:
            return f"slots {sorted(held)} are marked as taken, {sorted(taken)} have a request, {sorted(self._free)} are free"
        for slot in self.slots:
            if slot.adapter and slot.adapter not in adapters:
                return f"slot {slot.index} holds tokens of adapter {slot.adapter}, which is gone"
            if slot.whole > len(slot.tokens) or (context is not None and len(slot.tokens) > context):
                return f"slot {slot.index} of {context} tokens is said to hold {len(slot.tokens)}, {slot.whole} in whole chunks"
        return None

    def _shorten(self, slot: Slot, length: int) -> None:
        del slot.tokens[length:]
        slot.whole = min(slot.whole, length)


def common_prefix(a: Sequence[int], b: Sequence[int], limit: int) -> int:
    """How many of the first `limit` tokens two sequences share from the start."""
    end, low, step = min(len(a), len(b), limit), 0, 32
    while low < end:  # slices are compared in C; a piece that differs is halved until it is short
        high = min(low + step, end)
        if a[low:high] == b[low:high]:
            low, step = high, 2 * step
        elif high - low <= 8:
            return low + next(i for i in range(high - low) if a[low + i] != b[low + i])
        else:
            end, step = high, (high - low) // 2
    return low


def _worth(slot: Slot) -> float:
    return slot.worth
