import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.engine.slots import SlotTable, common_prefix

few = st.lists(st.integers(0, 2), max_size=200)


@given(few, few, few, st.integers(0, 300))
def test_common_prefix_is_what_a_plain_loop_finds(shared, a, b, limit):
    a, b = shared + a, shared + b
    expected = 0
    while expected < min(len(a), len(b), limit) and a[expected] == b[expected]:
        expected += 1
    assert common_prefix(a, b, limit) == expected


class Table(SlotTable):
    """Remembers copies; `hold` makes a free slot hold tokens."""

    def __init__(self, n, **options):
        self.copies = []
        super().__init__(n, lambda *copy: self.copies.append(copy), **options)

    def hold(self, *contents, adapter=0):
        slots = [self.take(adapter, tokens, None, 0) for tokens in contents]
        for slot, tokens in zip(slots, contents, strict=True):
            slot.tokens.extend(tokens)
            slot.whole = len(tokens)
        for slot in slots:
            self.release(slot)
        return slots


def start(table, prompt, adapter=0):
    source, length = table.find(adapter, prompt, len(prompt) - 1)
    return table.take(adapter, prompt, source, length)


A, B = list(range(100)), list(range(200, 300))


def test_a_free_warm_slot_is_continued_in_place():
    table = Table(3)
    warm = table.hold(A)[0]
    slot = start(table, [*A, 1, 2])
    assert slot is warm
    assert slot.tokens == A
    assert not table.copies


def test_a_running_slot_is_copied():
    table = Table(2)
    first = start(table, A)
    first.tokens.extend(A)
    slot = start(table, [*A[:60], 7])
    assert slot is not first
    assert slot.tokens == A[:60]
    assert table.copies == [(first.index, slot.index, 60)]
    assert first.tokens == A


def test_a_long_warm_prefix_is_copied_rather_than_cut_while_an_emptier_slot_is_free():
    table = Table(2)
    (warm,) = table.hold(A)
    slot = start(table, [*A[:20], 7])
    assert slot is not warm
    assert slot.tokens == A[:20]
    assert warm.tokens == A


def test_another_adapters_tokens_are_not_taken():
    table = Table(2)
    table.hold(A, adapter=1)
    assert table.find(0, A, 99) == (None, 0)
    assert table.find(1, A, 99)[1] == 99


def test_empty_slots_are_used_before_short_ones_and_those_before_long_ones():
    table = Table(3)
    long, short = table.hold(A, B[:10])
    order = [start(table, [50 + i]) for i in range(3)]
    assert order[1:] == [short, long]
    assert table.n_free == 0


def test_among_equals_the_least_recently_used_goes_first():
    table = Table(2)
    old, new = table.hold(A, B)
    again = start(table, [*A, 1])
    assert again is old
    table.release(again)
    assert start(table, [500, 1]) is new


def test_nothing_stays_for_ever():
    table = Table(2)
    (stale,) = table.hold(A)
    for i in range(50):
        slot = table.take(0, [1000 + i], None, 0)
        slot.tokens.extend([1000 + i] * 10)
        table.release(slot)
        if slot is stale:
            return
    pytest.fail("a prefix that nobody asks for is never overwritten")


def test_with_a_grain_only_whole_chunks_are_taken_over():
    table = Table(2, grain=16)
    (warm,) = table.hold(A)
    assert table.find(0, A, 99) == (warm, 96)
    assert table.find(0, A, 40) == (warm, 32)
    warm.whole = 32  # the rest was decoded, token by token
    assert table.find(0, A, 99) == (warm, 32)
    slot = start(table, A)
    assert (slot.tokens, slot.whole) == (A[:32], 32)


def test_a_copy_that_fails_leaves_an_empty_slot():
    table = SlotTable(2, lambda *_: 1 / 0)
    first = start(table, A)
    first.tokens.extend(A)
    assert start(table, A).tokens == []


def test_forgetting():
    table = Table(3)
    mine, other = table.hold(A, adapter=1)[0], table.hold(B, adapter=2)[0]
    running = table.take(1, [5], None, 0)
    running.tokens.append(5)
    table.forget(1)
    assert (mine.tokens, other.tokens, running.tokens) == ([], B, [5])
    assert table.problem({running.index}, {0, 1}) is not None  # a slot still holds tokens of adapter 2
    table.forget()
    assert other.tokens == []
    assert table.problem({running.index}, {0, 1}) is None


def test_the_integrity_check_notices_what_is_wrong():
    table = Table(2)
    assert table.problem(set(), {0}) is None
    assert table.problem({0}, {0}) is not None
    slot = start(table, A)
    assert table.problem(set(), {0}) is not None
    slot.tokens.extend(A)
    assert table.problem({slot.index}, {0}, 100) is None
    assert table.problem({slot.index}, {0}, 99) is not None
