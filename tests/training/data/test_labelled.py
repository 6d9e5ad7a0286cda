"""Labelled texts: what is read and refused, repeats, the split, and the batches made of them."""

import gzip
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.classify_recipe import ClassifyData
from training.data.label_batches import LabelledRows
from training.data.labelled import (
    Labelled,
    class_weights,
    deduplicate,
    labels_of,
    read_class_files,
    read_data,
    read_labelled,
    split_rows,
)
from training.data.length_order import LengthOrder
from training.errors import DataError


def rows(*pairs: tuple[str, str]) -> list[Labelled]:
    return [Labelled(text, label, f"made up, line {i}") for i, (text, label) in enumerate(pairs, 1)]


def many(n: int) -> list[Labelled]:
    return rows(*((f"text number {i}", "ab"[i % 2]) for i in range(n)))


def write(path: Path, objects: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in objects))
    return path


@pytest.mark.parametrize(("objects", "said"), [
    ([{"text": "a", "label": "x"}, {"text": "b"}], r"d\.jsonl, line 2: has no field 'label'; it has 'text'"),
    ([{"body": "a", "label": "x"}], r"d\.jsonl, line 1: has no field 'text'"),
    ([{"text": "a", "label": "x"}, {"text": " \n ", "label": "y"}], r"d\.jsonl, line 2: 'text' is empty"),
    ([{"text": "a", "label": ""}], r"d\.jsonl, line 1: 'label' is empty"),
    ([{"text": "a", "label": None}], r"d\.jsonl, line 1: 'label' must be a text"),
    ([{"text": "a", "label": "x"}, {"text": "b", "label": "x"}], r"d\.jsonl: every row has the label 'x'"),
])  # fmt: skip
def test_a_row_that_cannot_be_used_is_named(tmp_path: Path, objects: list[dict[str, object]], said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_data(ClassifyData(), [write(tmp_path / "d.jsonl", objects)], seed=0)


def test_labels_may_be_numbers_get_other_names_and_an_order(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", [{"text": f"text {i}", "label": i % 3} for i in range(60)])
    data = read_data(ClassifyData(label_names={"0": "low", "2": "high"}), [path], seed=0)
    assert data.labels == ("1", "high", "low")
    ordered = ClassifyData(label_names={"0": "low", "1": "middle", "2": "high"}, labels=("low", "middle", "high"))
    assert read_data(ordered, [path], seed=0).labels == ("low", "middle", "high")
    with pytest.raises(DataError, match="line 3: label '2' is none of '0', '1'"):
        read_data(ClassifyData(labels=("0", "1")), [path], seed=0)


@pytest.mark.parametrize("labels", [("0",), ("0", "1", "0")])
def test_an_order_of_labels_has_two_or_more_each_once(tmp_path: Path, labels: tuple[str, ...]) -> None:
    path = write(tmp_path / "d.jsonl", [{"text": f"text {i}", "label": i % len(set(labels))} for i in range(60)])
    with pytest.raises(DataError, match=r"data\.labels: '0'.*two labels or more, each once"):
        read_data(ClassifyData(labels=labels), [path], seed=0)


def test_files_of_one_class_each(tmp_path: Path) -> None:
    (tmp_path / "neg.txt").write_bytes("\ufeff dull and slow . \n\nno\u2019s wit\r\n".encode())
    with gzip.open(tmp_path / "pos.txt.gz", "wt") as file:
        file.write("a joy\n")
    found = list(read_class_files([("neg", tmp_path / "neg.txt"), ("pos", tmp_path / "pos.txt.gz")]))
    assert [(row.text, row.label) for row in found] == [
        ("dull and slow .", "neg"),
        ("no\u2019s wit", "neg"),
        ("a joy", "pos"),
    ]
    assert found[1].where.endswith("neg.txt, line 3")
    (tmp_path / "bad.txt").write_bytes(b"fine\n\xff\n")
    with pytest.raises(DataError, match=r"bad\.txt, line 2: not UTF-8"):
        list(read_class_files([("x", tmp_path / "bad.txt")]))
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(DataError, match=r"empty\.txt: empty"):
        list(read_class_files([("x", tmp_path / "empty.txt")]))
    with pytest.raises(DataError, match=r"none\.txt: no such file"):
        list(read_class_files([("x", tmp_path / "none.txt")]))


def test_columns_name_the_fields_of_a_file_without_a_header(tmp_path: Path) -> None:
    (tmp_path / "d.tsv").write_text('ham\tsee you "soon"\nspam\tWIN\n')
    found = read_labelled([tmp_path / "d.tsv"], text_field="text", label_field="label", columns=("label", "text"))
    assert [(row.label, row.text) for row in found] == [("ham", 'see you "soon"'), ("spam", "WIN")]


def test_repeats_are_dropped_and_counted(tmp_path: Path) -> None:
    kept = deduplicate(rows(("a", "x"), ("b", "y"), ("a", "x"), ("a", "y"), ("c", "x")), seen=rows(("c", "x")))
    assert [(row.text, row.label) for row in kept.rows] == [("a", "x"), ("b", "y")]
    assert (kept.repeats, kept.conflicts) == (3, 1)
    objects: list[dict[str, object]] = [{"text": f"t{i % 50}", "label": i % 2} for i in range(60)]
    path = write(tmp_path / "d.jsonl", [*objects, {"text": "t4", "label": 1}])
    test = write(tmp_path / "test.jsonl", [{"text": f"t{i}", "label": i % 2} for i in (7, 8)])
    data = read_data(ClassifyData(test=(str(test),)), [path], seed=0)
    assert data.notes == [
        "11 of 61 rows dropped: their text was there before, 1 of them with another label",
        "2 rows dropped: their text is in the validation or test files",
    ]
    assert len(data.train) + len(data.validation) == 48
    kept_all = read_data(ClassifyData(test=(str(test),), deduplicate=False), [path], seed=0)
    assert not kept_all.notes
    assert len(kept_all.train) + len(kept_all.validation) == 61


def test_validation_files_measure_and_the_rest_trains(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", [{"text": f"t{i}", "label": i % 2} for i in range(20)])
    held = write(tmp_path / "v.jsonl", [{"text": f"v{i}", "label": i % 2} for i in range(6)])
    data = read_data(ClassifyData(validation=(str(held),)), [path], seed=0)
    assert (len(data.train), len(data.validation)) == (20, 6)


def test_test_rows_are_a_share_of_their_own(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", [{"text": f"t{i}", "label": i % 2} for i in range(1000)])
    made = [read_data(ClassifyData(test_fraction=0.2, validation_fraction=v), [path], seed=0) for v in (0.2, 0.4)]
    assert made[0].test == made[1].test  # whatever validates
    assert made[0].validation != made[1].validation
    for data, share in zip(made, (0.2, 0.4), strict=True):
        sides = [{row.text for row in side} for side in (data.train, data.validation, data.test)]
        assert sum(map(len, sides)) == len(set.union(*sides)) == 1000
        assert 150 < len(data.test) < 250
        # Its hash is another: were it the validation rows' own, the rest would hold nothing below the fraction.
        assert len(data.validation) == pytest.approx(share * (1000 - len(data.test)), rel=0.2)
    assert not read_data(ClassifyData(), [path], seed=0).test
    held = write(tmp_path / "t.jsonl", [{"text": f"u{i}", "label": i % 2} for i in range(6)])
    given = read_data(ClassifyData(test=(str(held),), test_fraction=0.2), [path], seed=0)
    assert (len(given.test), len(given.train) + len(given.validation)) == (6, 1000)
    with pytest.raises(DataError, match=r"the test split got no row: .* or set test_fraction"):
        read_data(ClassifyData(test_fraction=1e-9), [path], seed=0)


def test_a_label_without_a_row_to_learn_from_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", [{"text": f"t{i}", "label": i % 2} for i in range(20)])
    with pytest.raises(DataError, match="label '2' has no row to learn from"):
        read_data(ClassifyData(labels=("0", "1", "2")), [path], seed=0)


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans(), st.booleans()), min_size=40), st.integers(0, 5))
@settings(max_examples=30)
def test_equal_texts_are_never_on_both_sides(items: list[tuple[int, bool, bool]], seed: int) -> None:
    made = rows(*((f"Text {i}".upper() if upper else f"text  {i}", "x" if label else "y") for i, label, upper in items))
    try:
        train, validation = split_rows(made, 0.3, seed, "validation")
    except DataError:
        return  # all on one side
    assert sorted(map(repr, [*train, *validation])) == sorted(map(repr, made))
    same = [{" ".join(row.text.lower().split()) for row in side} for side in (train, validation)]
    assert not same[0] & same[1]


def test_the_split_keeps_its_share_and_says_when_a_side_is_empty() -> None:
    _, validation = split_rows(many(4000), 0.1, 1, "validation")
    assert 320 < len(validation) < 480
    with pytest.raises(DataError, match="the validation split got no row"):
        split_rows(many(3), 0.001, 0, "validation")


def test_balanced_weights_make_labels_count_the_same() -> None:
    made = rows(*((f"t{i}", "rare" if i < 5 else "common") for i in range(50)))
    weights = class_weights(made, labels_of(made))
    assert weights == pytest.approx([50 / 90, 5.0])
    assert sum(weights[0 if row.label == "common" else 1] for row in made) == pytest.approx(50, rel=1e-5)


def source(n: int, batch_rows: int, seed: int = 0) -> LabelledRows:
    lengths = np.random.default_rng(3).integers(1, 60, n)
    tokens = [np.full(length, i, np.int32) for i, length in enumerate(lengths)]
    labels = np.arange(n) % 2
    return LabelledRows(
        tokens, labels, np.where(labels, 2.0, 1.0).astype(np.float32), context=61, seed=seed, batch_rows=batch_rows
    )


@given(n=st.integers(1, 200), batch_rows=st.integers(1, 16), cut=st.integers(1, 24), seed=st.integers(0, 3))
@settings(max_examples=40)
def test_batches_are_a_pure_function_of_the_cursor(n: int, batch_rows: int, cut: int, seed: int) -> None:
    whole = [source(n, batch_rows, seed).batch(sample, 1) for sample in range(3 * n)]
    ids = [int(batch.tokens[0, 0]) for batch in whole]
    for epoch in range(3):
        assert Counter(ids[epoch * n : (epoch + 1) * n]) == Counter(range(n))
    again = source(n, batch_rows, seed)
    for start in range(0, 3 * n - cut, max(1, n // 3)):
        batch = again.batch(start, cut)
        assert batch.tokens[:, 0].tolist() == ids[start : start + cut]
        for row, length, label, weight in zip(batch.tokens, batch.lengths, batch.labels, batch.weights, strict=True):
            assert row[:length].eq(row[0]).all()
            assert not row[length:].any()
            assert label == row[0] % 2
            assert weight == (2.0 if label else 1.0)
        assert batch.tokens.shape[1] <= 61


def test_an_epochs_partial_batch_is_of_any_length() -> None:
    left = {frozenset(LengthOrder(range(10), seed=seed, batch_rows=4).places(8, 2).tolist()) for seed in range(30)}
    assert left == {frozenset({0, 1}), frozenset({4, 5}), frozenset({8, 9})}


def test_rows_of_like_length_come_together_and_epochs_differ() -> None:
    made = source(997, 16)
    batches = [made.batch(start, 16) for start in range(0, 2 * 997 - 16, 16)]
    padding = 1 - sum(batch.n_tokens for batch in batches) / sum(batch.tokens.numel() for batch in batches)
    assert padding < 0.15  # about 0.45 with rows as they come
    first, second = ([int(t[0]) for b in some for t in b.tokens] for some in (batches[:62], batches[62:124]))
    assert first != second
    widths = [batch.tokens.shape[1] for batch in batches[:30]]
    assert widths not in (sorted(widths), sorted(widths, reverse=True))
