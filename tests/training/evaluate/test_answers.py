"""Answers against references: SQuAD's and ROUGE's counting, and a whole evaluation computed again by hand."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.errors import ConfigError, HomegrownError
from model.generate import generate
from model.prompts import ALPACA_TEMPLATE, InstructionTemplate, PromptTemplate
from model.sampling_params import SamplingParams
from training.data.dialogues import Instruction, Turn
from training.errors import DataError
from training.evaluate.answers import evaluate_answers, served_templates
from training.evaluate.detect import detect
from training.evaluate.overlap import exact_match, normalize_answer, rouge_l, token_f1
from training.evaluate.results import wilson
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


@pytest.mark.parametrize(("row", "written"), [
    (ROWS[0], "Red.\n\n### Instruction:\nx"),
    ({"messages": [{"role": "user", "content": "A colour?"}, {"role": "assistant", "content": "Red."}]}, "Red.\n\nUser:\nx"),
])  # fmt: skip
def test_a_model_without_templates_is_asked_and_cut_as_it_is_served(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: Any, written: str
) -> None:
    asked: list[list[int]] = []

    def answers(_model: object, prompts: list[list[int]], _max_tokens: int, **_: object) -> list[list[int]]:
        asked.extend(prompts)
        return [subject.tokenizer.encode(written) for _ in prompts]

    monkeypatch.setattr("training.evaluate.answers.greedy_answers", answers)
    result = evaluate_answers(subject, write(tmp_path / "a.jsonl", [row]), Options(max_tokens=40))
    assert result.figure("exact match").value == 1.0
    assert result.details["examples"][0]["answer"] == "Red."
    if "messages" in row:
        template = PromptTemplate.from_directory(subject.directory)
        assert asked == [template.encode(row["messages"][:1], subject.tokenizer)]


def test_a_models_own_template_is_used_and_cuts_nothing(
    tiny_llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = shutil.copytree(tiny_llama_dir, tmp_path / "own")
    (own / "instruction_template.jinja").write_text("Q: {{ instruction }}\nA:")
    subject = load_subject(own)
    templates = served_templates(subject)
    turn = Turn(Instruction("Name a colour."), "Red.")
    assert subject.tokenizer.decode(templates.prompt(turn.request)).endswith("Q: Name a colour.\nA:")
    text = "Red.\n\n### Instruction:\nx"
    monkeypatch.setattr("training.evaluate.answers.greedy_answers", lambda *_, **__: [subject.tokenizer.encode(text)])
    result = evaluate_answers(subject, write(tmp_path / "a.jsonl", ROWS[:1]), Options(max_tokens=40))
    assert result.details["examples"][0]["answer"] == text


@pytest.mark.parametrize(("written", "share"), [("Red", 1.0), ("Red " * 8, 0.0), ("Red.\n\n###" + "x" * 30, 0.0)])
def test_an_answer_that_fills_its_room_did_not_end_by_itself(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str, share: float
) -> None:
    ids = subject.tokenizer.encode(written)[:8]
    monkeypatch.setattr("training.evaluate.answers.greedy_answers", lambda *_, **__: [ids])
    result = evaluate_answers(subject, write(tmp_path / "a.jsonl", ROWS[:1]), Options(max_tokens=8))
    assert result.figure("ended by itself").value == share
    stopped = subject.tokenizer.encode("A.\n\n### In")
    monkeypatch.setattr("training.evaluate.answers.greedy_answers", lambda *_, **__: [stopped])
    result = evaluate_answers(subject, write(tmp_path / "a.jsonl", ROWS[:1]), Options(max_tokens=len(stopped)))
    assert result.figure("ended by itself").value == 1.0


def test_the_answers_shown_are_drawn_by_the_seed(subject: Subject, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"instruction": f"Number {i}.", "output": str(i)} for i in range(30)])
    shown = [
        [int(example["reference"]) for example in result.details["examples"]]
        for result in (evaluate_answers(subject, path, Options(max_tokens=1, seed=seed)) for seed in (0, 0, 1))
    ]
    assert shown[0] == shown[1] != shown[2]
    assert len(shown[0]) == 5
    assert shown[0] == sorted(shown[0])


def test_rows_without_an_answer_and_columns_of_other_names(subject: Subject, tmp_path: Path) -> None:
    rows = [{"question": "Name a colour.", "answer": "Red."}, {"question": "Name two.", "answer": " "}]
    path, names = write(tmp_path / "a.jsonl", rows), (("instruction", "question"), ("output", "answer"))
    with pytest.raises(DataError, match=r"a\.jsonl, line 1: .*--field instruction=COLUMN"):
        evaluate_answers(subject, path, Options(max_tokens=4))
    result = evaluate_answers(subject, path, Options(max_tokens=4, fields=names))
    assert result.details["examples"][0]["reference"] == "Red."
    assert (result.items, result.total) == (1, 1)
    assert "left out: 1 of 2 rows, which have no answer" in result.notes
    assert detect(path, Options(fields=names), classifier=False) == "answers"
    with pytest.raises(ConfigError, match="--field question: there is no such field"):
        evaluate_answers(subject, path, Options(fields=(("question", "instruction"),)))
    headless = tmp_path / "a.csv"
    headless.write_text("Name a colour.,Red.\n")
    found = evaluate_answers(subject, headless, Options(max_tokens=4, columns=("instruction", "output")))
    assert found.figure("answer loss").value == result.figure("answer loss").value


def test_the_first_sentence_of_a_chat_is_that_of_its_last_message(subject: Subject, tmp_path: Path) -> None:
    turns = [("user", "Hello. You!"), ("assistant", "Hi!"), ("user", "See you. Bye."), ("assistant", "See you.")]
    chat = [{"messages": [{"role": role, "content": content} for role, content in turns]}]
    result = evaluate_answers(subject, write(tmp_path / "c.jsonl", chat), Options(max_tokens=4))
    assert result.baselines[0].values["exact match"] == 0.5
    assert result.baselines[0].intervals["exact match"] == wilson(1, 2)


def test_a_row_that_the_template_refuses_is_named(tiny_llama_dir: Path, tmp_path: Path) -> None:
    own = shutil.copytree(tiny_llama_dir, tmp_path / "own")
    (own / "chat_template.jinja").write_text(
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}{{ messages[0].content }}"
    )
    rows = [
        {"messages": [{"role": role, "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}
        for role in ("user", "system")
    ]
    with pytest.raises(DataError, match=r"c\.jsonl, line 2: .*no system"):
        evaluate_answers(load_subject(own), write(tmp_path / "c.jsonl", rows), Options(max_tokens=4))


def test_what_does_not_fit_is_cut_or_left_out_and_said(subject: Subject, tmp_path: Path) -> None:
    rows = [ROWS[0], {**ROWS[0], "instruction": "Name " * 200}, {**ROWS[0], "output": "Red " * 200}]
    result = evaluate_answers(subject, write(tmp_path / "a.jsonl", rows), Options(max_tokens=8))
    notes = " ".join(result.notes)
    assert "left out: 1 answers" in notes
    assert (result.items, result.total, result.to_json()["limited"]) == (2, 2, False)
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
