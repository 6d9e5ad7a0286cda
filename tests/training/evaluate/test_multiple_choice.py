"""LAMBADA and HellaSwag on items made here, against log-probabilities computed one text at a time."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.gpt import GPT
from training.errors import DataError
from training.evaluate.hellaswag import evaluate_hellaswag, read_items
from training.evaluate.lambada import evaluate_lambada, read_passages
from training.evaluate.ngram_baseline import Ngrams
from training.evaluate.results import wilson
from training.evaluate.subject import Options, Subject, load_subject

PASSAGES = [
    "The boat went out at dawn. Nobody saw the boat",
    'He said, "Give me the lantern.\n\nShe gave him the lantern',
    "It was a long walk to the house of Esmeralda",
    "Rain, rain and more antidisestablishmentarianism",
]
ITEMS = [
    {"ctx": "Cooking: A man opens a tin. he", "label": 1, "endings": ["eats.", "opens a second, much larger tin.", "sings a song"]},
    {"ctx": "Cooking: A man opens a tin. he", "label": 0, "endings": ["pours it out.", "flies"]},
    {"ctx": "Swim", "label": 3, "endings": ["a", "b c", "d e f g h i", "j"]},
]  # fmt: skip


@pytest.fixture(scope="module")
def subject(tiny_gpt2_dir: Path) -> Subject:
    return load_subject(tiny_gpt2_dir)


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    return path


def logprobs(model: GPT, tokens: list[int]) -> np.ndarray:
    """Of every token but the first."""
    with torch.no_grad():
        table = model(torch.tensor([tokens]))[0, :-1].double().log_softmax(-1)
    return table[torch.arange(len(tokens) - 1), torch.tensor(tokens[1:])].numpy()


def test_lambada(subject: Subject, tmp_path: Path) -> None:
    result = evaluate_lambada(subject, write(tmp_path / "l.jsonl", [{"text": text} for text in PASSAGES]), Options())
    words, tokens = [], []
    for text in PASSAGES:
        head, ids = subject.tokenizer.encode(text.rpartition(" ")[0]), subject.tokenizer.encode(text)
        found = logprobs(subject.language_model, ids)[len(head) - 1 :]
        words.append(-found.sum())
        tokens.append(-found[-1])
    assert len(subject.tokenizer.encode(" antidisestablishmentarianism")) > 1
    assert result.figure("last-word perplexity").value == pytest.approx(math.exp(np.mean(words)), rel=1e-4)
    assert result.figure("last-token perplexity").value == pytest.approx(math.exp(np.mean(tokens)), rel=1e-4)
    assert (result.items, result.total) == (4, 4)


def test_lambada_counts_a_word_only_when_all_its_tokens_are_greedy(subject: Subject, tmp_path: Path) -> None:
    """Passages whose last word is what the model itself would write, and the same with another first token."""
    model, tokenizer = subject.language_model, subject.tokenizer
    texts = []
    for start in (
        "The old man and the sea went",
        "A red house in the",
        "They looked at her and",
        "No one knew what the",
    ):
        ids = tokenizer.encode(start + " the")
        with torch.no_grad():
            likeliest = int(model(torch.tensor([ids]))[0, -1].argmax())
        text = tokenizer.decode([*ids, likeliest])
        if (
            tokenizer.encode(text) == [*ids, likeliest]
            and not text.endswith(" ")
            and " " not in tokenizer.decode([likeliest])
        ):
            texts.append(
                text
            )  # " the" and the likeliest token behind it, without a blank between: one word of two tokens
    assert texts
    result = evaluate_lambada(subject, write(tmp_path / "l.jsonl", [{"text": text} for text in texts]), Options())
    assert result.figure("last-token accuracy").value == 1.0
    assert result.figure("last-word accuracy").value < 1.0


def test_hellaswag(subject: Subject, tmp_path: Path) -> None:
    result = evaluate_hellaswag(subject, write(tmp_path / "h.jsonl", ITEMS), Options())
    hits: dict[str, list[bool]] = {"accuracy": [], "accuracy by characters": [], "accuracy by tokens": []}
    for item in ITEMS:
        scores: dict[str, list[float]] = {name: [] for name in hits}
        for ending in item["endings"]:
            n = len(subject.tokenizer.encode(item["ctx"]))
            found = logprobs(subject.language_model, subject.tokenizer.encode(f"{item['ctx']} {ending}"))[n - 1 :]
            scores["accuracy"].append(found.sum())
            scores["accuracy by characters"].append(found.sum() / len(ending))
            scores["accuracy by tokens"].append(found.mean())
        for name, values in scores.items():
            hits[name].append(int(np.argmax(values)) == item["label"])
    for name, values in hits.items():
        assert result.figure(name).value == pytest.approx(np.mean(values)), name
    assert len({tuple(values) for values in hits.values()}) > 1  # the conventions differ on these items
    assert result.baselines[0].values["accuracy"] == pytest.approx((1 / 3 + 1 / 2 + 1 / 4) / 3)
    assert any("each context in one piece" in note for note in result.notes)  # not as lm-eval's


def test_hellaswag_as_published_is_put_together_and_cleaned(subject: Subject, tmp_path: Path) -> None:
    row = {
        "activity_label": "Roof repair", "ctx_a": "A man sits on a roof.", "ctx_b": "he", "ctx": "left aside", "label": "1",
        "endings": ["[header] jumps [title] Why?  Because.", "starts"],
    }  # fmt: skip
    (item,) = read_items(write(tmp_path / "h.jsonl", [row]))
    assert item.context == "Roof repair: A man sits on a roof. He"
    assert item.endings == (" jumps. Why? Because.", "starts")
    result = evaluate_hellaswag(subject, write(tmp_path / "h.jsonl", [row]), Options())
    assert not any("in one piece" in note for note in result.notes)
    assert item.label == 1


@pytest.mark.parametrize(("change", "said"), [
    ({"endings": "a"}, "line 2: 'endings'"), ({"endings": ["a"]}, "line 2: 'endings'"), ({"endings": ["a", ""]}, "'endings'"),
    ({"label": 2}, "line 2: 'label' must be from 0 to 1"), ({"label": "x"}, "'label'"), ({"label": -1}, "'label'"),
    ({"ctx": None}, "line 2: 'ctx'"),
])  # fmt: skip
def test_a_bad_item_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    rows = [ITEMS[1], ITEMS[1] | change]
    with pytest.raises(DataError, match=said):
        read_items(write(tmp_path / "h.jsonl", rows))


def test_a_passage_of_one_word_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 2: has only one word"):
        read_passages(write(tmp_path / "l.jsonl", [{"text": PASSAGES[0]}, {"text": " alone "}]))


def test_a_limit_draws_some_and_says_so(subject: Subject, tmp_path: Path) -> None:
    path = write(tmp_path / "l.jsonl", [{"text": text} for text in PASSAGES])
    two = evaluate_lambada(subject, path, Options(limit=2))
    assert (two.items, two.total, two.to_json()["limited"]) == (2, 4, True)
    pairs = [
        evaluate_lambada(subject, write(tmp_path / "s.jsonl", [{"text": a}, {"text": b}]), Options()).figures[1].value
        for i, a in enumerate(PASSAGES)
        for b in PASSAGES[i + 1 :]
    ]
    assert sum(two.figures[1].value == pytest.approx(value, rel=1e-4) for value in pairs) == 1
    assert evaluate_lambada(subject, path, Options(limit=2)).figures == two.figures
    assert len({evaluate_lambada(subject, path, Options(limit=2, seed=s)).figures[1].value for s in range(6)}) > 1


def test_ngrams_beside_them(tmp_path: Path, tiny_gpt2_dir: Path) -> None:
    """A corpus that holds the answers gives the n-grams all of them."""
    path = tmp_path / "corpus.txt"
    endings = [f"{item['ctx']} {item['endings'][int(item['label'])]}" for item in ITEMS[1:]]
    path.write_text("\n<|endoftext|>\n".join([*PASSAGES[:2], *endings] * 20), "utf-8")
    subject = load_subject(tiny_gpt2_dir)
    options = Options(ngrams=Ngrams(path, subject.tokenizer))
    lambada = evaluate_lambada(subject, write(tmp_path / "l.jsonl", [{"text": t} for t in PASSAGES[:2]]), options)
    assert lambada.baselines[0].values["last-word accuracy"] == 1.0
    assert lambada.baselines[0].values["last-word perplexity"] < 2
    assert lambada.baselines[0].intervals["last-word accuracy"] == wilson(2, 2)
    assert not lambada.notes
    hellaswag = evaluate_hellaswag(subject, write(tmp_path / "h.jsonl", ITEMS[1:]), options)
    assert hellaswag.baselines[1].values["accuracy"] == 1.0
    assert "accuracy" in hellaswag.baselines[1].intervals
    for plain in (
        evaluate_lambada(subject, tmp_path / "l.jsonl", Options()),
        evaluate_hellaswag(subject, tmp_path / "h.jsonl", Options()),
    ):
        assert "--baseline-corpus" in " ".join(plain.notes)
