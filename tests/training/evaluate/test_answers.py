"""Answers against references: SQuAD's and ROUGE's counting, and a whole evaluation computed again by hand."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.errors import ConfigError, HomegrownError
from model.generate import generate
from model.prompts import ALPACA_TEMPLATE, InstructionTemplate
from model.sampling_params import SamplingParams
from training.errors import DataError
from training.evaluate.answers import evaluate_answers
from training.evaluate.overlap import exact_match, normalize_answer, rouge_l, token_f1
from training.evaluate.subject import Options, Subject, load_subject

ROWS = [
    {"instruction": "Name a colour.", "input": "", "output": "Red."},
    {"instruction": "Where is the boat?", "input": "The boat is in the green harbour. It is small.", "output": "in the harbour"},
]  # fmt: skip


@pytest.fixture(scope="module")
def subject(tiny_llama_dir: Path) -> Subject:
    return load_subject(tiny_llama_dir)


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    return path


@pytest.mark.parametrize(("answer", "reference", "f1"), [
    ("The red boat!", "red boat", 1.0), ("a red boat", "the green boat", 0.5), ("", "", 1.0), ("", "boat", 0.0),
    ("the", "a", 1.0), ("boat boat", "boat", 2 / 3), ("one two three", "four", 0.0),
])  # fmt: skip
def test_token_f1(answer: str, reference: str, f1: float) -> None:
    assert token_f1(answer, reference) == pytest.approx(f1)
    assert exact_match(answer, reference) == (normalize_answer(answer) == normalize_answer(reference))


def test_normalisation_is_squads() -> None:
    assert normalize_answer("  The  Cat's, an old-ish  A. Theatre ") == "cats oldish theatre"


@given(*(st.text(alphabet="ab cdE1.,'é\n", max_size=40) for _ in range(2)))
def test_rouge_l_is_that_of_the_rouge_score_package(answer: str, reference: str) -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"])
    assert rouge_l(answer, reference) == pytest.approx(scorer.score(reference, answer)["rougeL"].fmeasure)


def test_a_whole_evaluation_by_hand(subject: Subject, tmp_path: Path) -> None:
    result = evaluate_answers(subject, write(tmp_path / "a.jsonl", ROWS), Options(max_tokens=8))
    template, tokenizer, model = (
        InstructionTemplate.from_text(ALPACA_TEMPLATE),
        subject.tokenizer,
        subject.language_model,
    )
    nats, n, matches, f1s, rouges = 0.0, 0, [], [], []
    for row in ROWS:
        prompt = template.encode(tokenizer, row["instruction"], row["input"])
        target = [*tokenizer.encode(row["output"]), 50256]
        with torch.no_grad():
            table = model(torch.tensor([[*prompt, *target][:-1]]))[0, len(prompt) - 1 :].double().log_softmax(-1)
        nats -= float(table.gather(1, torch.tensor(target)[:, None]).sum())
        n += len(target)
        ids = list(generate(model, prompt, SamplingParams(temperature=0), 8))
        answer = tokenizer.decode(ids).partition("\n\n### ")[0].strip()
        matches.append(exact_match(answer, row["output"]))
        f1s.append(token_f1(answer, row["output"]))
        rouges.append(rouge_l(answer, row["output"]))
    assert result.figure("answer loss").value == pytest.approx(nats / n, rel=1e-5)
    assert result.figure("exact match").value == pytest.approx(sum(matches) / 2)
    assert result.figure("token F1").value == pytest.approx(sum(f1s) / 2)
    assert result.figure("ROUGE-L").value == pytest.approx(sum(rouges) / 2)
    first = result.baselines[0].values
    assert first["token F1"] == pytest.approx((0 + token_f1("The boat is in the green harbour.", "in the harbour")) / 2)
    assert [example["reference"] for example in result.details["examples"]] == ["Red.", "in the harbour"]


def test_chats_count_every_turn_and_completions_stand_as_they_are(subject: Subject, tmp_path: Path) -> None:
    turns = [("user", "Hello"), ("assistant", "Hi!"), ("user", "Bye"), ("assistant", "See you.")]
    chat = [{"messages": [{"role": role, "content": content} for role, content in turns]}]
    result = evaluate_answers(subject, write(tmp_path / "c.jsonl", chat), Options(max_tokens=4))
    assert result.items == 2
    raw = [{"prompt": "The sea is", "completion": " green<|endoftext|>"}]
    result = evaluate_answers(subject, write(tmp_path / "r.jsonl", raw), Options(max_tokens=4))
    ids = [*subject.tokenizer.encode("The sea is"), *subject.tokenizer.encode(" green"), 50256]
    with torch.no_grad():
        table = subject.language_model(torch.tensor([ids[:-1]]))[0].double().log_softmax(-1)
    expected = -(table[2, ids[3]] + table[3, ids[4]]) / 2
    assert result.figure("answer loss").value == pytest.approx(float(expected), rel=1e-5)
    assert result.details["examples"][0]["reference"] == "green"


def test_what_does_not_fit_is_cut_or_left_out_and_said(subject: Subject, tmp_path: Path) -> None:
    rows = [ROWS[0], {**ROWS[0], "instruction": "Name " * 200}, {**ROWS[0], "output": "Red " * 200}]
    result = evaluate_answers(subject, write(tmp_path / "a.jsonl", rows), Options(max_tokens=8))
    notes = " ".join(result.notes)
    assert "left out: 1 answers" in notes
    assert "1 prompts lost their beginning" in notes
    assert math.isfinite(result.figure("answer loss").value)
    with pytest.raises(HomegrownError, match="every answer is longer"):
        evaluate_answers(subject, write(tmp_path / "b.jsonl", rows[2:]), Options(max_tokens=8))
    with pytest.raises(ConfigError, match="max_tokens"):
        evaluate_answers(subject, write(tmp_path / "b.jsonl", rows), Options(max_tokens=128))


def test_rows_without_answers_and_of_no_known_format(subject: Subject, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no row has an answer"):
        evaluate_answers(subject, write(tmp_path / "a.jsonl", [{**ROWS[0], "output": " "}]), Options())
    with pytest.raises(DataError, match="line 2"):
        evaluate_answers(subject, write(tmp_path / "b.jsonl", [ROWS[0], {"question": "?"}]), Options())
