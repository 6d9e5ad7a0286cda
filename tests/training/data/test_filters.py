"""What is left out of a corpus, and the account of it."""

import random
import tracemalloc
from collections.abc import Iterator
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from training.data import near, words
from training.data.account import Account
from training.data.filters import FilterSettings, character_shares, filtered
from training.data.near import NearDuplicates
from training.data.words import word_blocks


def keep(documents: list[str], **options: object) -> tuple[list[str], Account]:
    account = Account()
    return list(filtered(documents, FilterSettings(**options), account)), account  # type: ignore[arg-type]


def prose(seed: int, n: int = 200) -> list[str]:
    rng = random.Random(seed)
    return [f"w{rng.randrange(5000)}" for _ in range(n)]


def test_by_default_all_is_kept_and_counted() -> None:
    kept, account = keep(["a", "", "a", "é"])
    assert kept == ["a", "", "a", "é"]
    assert (account.kept.documents, account.kept.bytes, account.dropped) == (4, 4, {})
    assert account.settings == FilterSettings().model_dump(mode="json")


def test_each_reason_is_counted_for_itself() -> None:
    documents = ["ab", "abcdef", "é" * 10, "12345", "abc ==", "abcd"]
    kept, account = keep(documents, min_chars=3, max_chars=6, min_letters=0.5, max_odd=0.3)
    assert kept == ["abcdef", "abcd"]
    assert asdict(account)["dropped"] == {
        "shorter than 3 characters": {"documents": 1, "bytes": 2},
        "longer than 6 characters": {"documents": 1, "bytes": 20},
        "under 50% letters": {"documents": 1, "bytes": 5},
        "over 30% odd characters": {"documents": 1, "bytes": 6},
    }
    assert account.lines() == [
        "kept 2 documents, 0.0 MB; left out 4 documents (66.7 %)",
        "  shorter than 3 characters: 1 documents, 0.0 MB",
        "  longer than 6 characters: 1 documents, 0.0 MB",
        "  under 50% letters: 1 documents, 0.0 MB",
        "  over 30% odd characters: 1 documents, 0.0 MB",
    ]


def test_lengths_are_reached_exactly() -> None:
    assert keep(["abc", "abcd", "abcde"], min_chars=4, max_chars=4)[0] == ["abcd"]


@pytest.mark.parametrize(("text", "letters", "odd"), [
    ("", 0, 0), (" \n\t\x1c", 0, 0), ("abé中नमस्ते", 1, 0), ("a1.-", 0.25, 0), ("a\ufffd\x00\ud800", 0.25, 0.75), ("=+$🙂", 0, 1),
    ("a" * 3_000_000 + "1" * 1_000_000, 0.75, 0),
])  # fmt: skip
def test_the_shares_of_letters_and_odd_characters(text: str, letters: float, odd: float) -> None:
    assert character_shares(text) == pytest.approx((letters, odd))


def test_exact_repeats_go_whatever_their_case_and_white_space() -> None:
    documents = ["The cat sat.", "the  CAT\nsat.", "The cat sat", "The catsat.", "The cat sat."]
    kept, account = keep(documents, dedup="exact")
    assert kept == ["The cat sat.", "The cat sat", "The catsat."]
    assert account.dropped["repeat of an earlier document"].documents == 2


@given(st.text("aB \n\u2028é", max_size=60), st.integers(1, 9))
def test_words_are_the_same_in_blocks_of_any_size(text: str, size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words, "_BLOCK", size)
        assert [word for block in word_blocks(text) for word in block] == text.lower().split()


@settings(max_examples=50)
@given(st.lists(st.lists(st.sampled_from(["ab", "AB", "c", "d", "Ω"]), max_size=7).map(" ".join), max_size=12))
def test_short_documents_are_alike_only_if_equal(documents: list[str]) -> None:
    """Below two runs of five words there is nothing between the same and another."""
    documents = [text for text in documents if len(text.split()) <= 5]
    exact, near_too = (keep(documents, dedup=kind)[0] for kind in ("exact", "near"))
    assert exact == near_too


def test_near_repeats_go_and_others_stay() -> None:
    """One word changed in 200 leaves 191 of 201 runs of five words: 0.95 alike; one in 20 leaves 0.6."""
    originals = [prose(seed) for seed in range(40)]
    close, far = [list(text) for text in originals], [list(text) for text in originals]
    for a, b in zip(close, far, strict=True):
        a[100] = "changed"
        b[::20] = ["changed"] * 10
    kept, account = keep([" ".join(text) for text in originals + close + far], dedup="near")
    assert kept[:40] == [" ".join(text) for text in originals]
    assert len(kept) - 40 >= 39  # the far ones, an estimate far off aside
    assert set(kept[40:]) <= {" ".join(text) for text in far}
    assert account.dropped["near repeat of an earlier document"].documents == 120 - len(kept)


def test_the_threshold_decides() -> None:
    one, other = prose(1, 1000), prose(1, 1000)
    other[::50] = ["changed"] * 20  # 100 of 996 runs on either side: 0.82 alike
    for threshold, alike in [(0.5, True), (0.7, True), (0.95, False)]:
        seen = NearDuplicates(threshold)
        assert seen.add(" ".join(one))
        assert seen.add(" ".join(other)) is not alike


def test_a_sketch_does_not_depend_on_blocks_or_the_words_met_before(monkeypatch: pytest.MonkeyPatch) -> None:
    text = " ".join(prose(3, 3000))
    whole = NearDuplicates(0.8)._sketch(text)
    monkeypatch.setattr(words, "_BLOCK", 100)
    monkeypatch.setattr(near, "_BLOCK", 7)
    monkeypatch.setattr(words, "_KNOWN", 50)
    other = NearDuplicates(0.8)
    other.add(" ".join(prose(4, 500)))
    assert (other._sketch(text) == whole).all()


def test_the_sketch_estimates_the_similarity() -> None:
    errors = []
    for seed in range(10):
        one, other = prose(seed, 2000), prose(seed, 1000) + prose(seed + 100, 1000)
        runs = [{tuple(text[i : i + 5]) for i in range(len(text) - 4)} for text in (one, other)]
        truth = len(runs[0] & runs[1]) / len(runs[0] | runs[1])
        a, b = (NearDuplicates(0.8)._sketch(" ".join(text)) for text in (one, other))
        errors.append((a == b).mean() - truth)
    assert abs(sum(errors) / 10) < 0.05
    assert max(map(abs, errors)) < 0.15


@pytest.mark.parametrize("kind", ["none", "exact", "near"])
def test_memory_grows_with_hashes_alone(kind: str) -> None:
    """5 MB of text pass, in documents of 0.2 MB."""

    def documents() -> Iterator[str]:
        for i in range(25):
            yield f"{i} document " + f"word{i} and another " * 10_000

    list(filtered(["warm up"], FilterSettings(dedup=kind), Account()))  # type: ignore[arg-type]
    tracemalloc.start()
    for _ in filtered(documents(), FilterSettings(dedup=kind), Account()):  # type: ignore[arg-type]
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_500_000


@pytest.mark.parametrize("options", [
    {"min_chars": -1}, {"min_chars": 5, "max_chars": 4}, {"min_letters": 1.1}, {"dedup": "fuzzy"}, {"near_threshold": 1.0},
    {"min_words": 3},
])  # fmt: skip
def test_settings_that_can_not_be(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        FilterSettings(**options)  # type: ignore[arg-type]
