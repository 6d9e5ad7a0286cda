"""Instruction tuning from files to a directory that serving reads, on a tiny model with a real vocabulary."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import random_model, tiny_config

from model.checkpoint import load_model, save_model
from model.errors import ConfigError
from model.generate import generate
from model.gpt import GPT
from model.prompts import InstructionTemplate, PromptTemplate
from model.sampling_params import SamplingParams
from model.tokenizer import Tokenizer
from training.answering import greedy_answers
from training.data.batch import IGNORE
from training.errors import DataError
from training.evaluate.results import Figure
from training.instruct import InstructRun, answer_loss, instruct
from training.instruct_recipe import InstructSettings
from training.tuned import _json

TOKENIZER = Tokenizer.from_directory(Path(__file__).parents[2] / "checkpoints" / "homegrown-base")
RECIPES = Path(__file__).parents[2] / "training" / "recipes"
WORDS = (
    "red", "blue", "green", "black", "white", "small", "large", "old", "new", "good", "bad", "long", "day", "sun", "sea", "sky",
)  # fmt: skip
ROWS = [
    {
        "instruction": f"Say the word that follows {word}.",
        "input": "" if n % 3 else "Be brief.",
        "output": f"It is {word}!",
    }
    for n, word in enumerate(WORDS)
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("base")
    config = tiny_config("llama", vocab_size=TOKENIZER.vocab_size, bos_token_id=0, eos_token_ids=(0,))
    save_model(random_model(config), directory)
    TOKENIZER.save(directory)
    return directory


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "rows.json"
    path.write_text(json.dumps(ROWS))
    return path


def settings(base: Path, **changes: Any) -> InstructSettings:
    sections: dict[str, Any] = {
        "model": str(base),
        "data": {"validation_fraction": 0.3},
        "optim": {"lr": 3e-3, "batch_rows": 4, "warmup_steps": 1},
        "run": {
            "steps": 6, "epochs": None, "bf16": False, "threads": 1, "device": "cpu", "tensorboard": False,
            "log_every": 1, "eval_every": 2, "save_every": 2, "keep": 9,
        },
        "answers": {"measured": 4, "shown": 2, "max_tokens": 8},
    }  # fmt: skip
    for name, value in changes.items():
        sections[name] = {**sections[name], **value} if isinstance(value, dict) and name in sections else value
    return InstructSettings.from_toml(None, sections)


@pytest.fixture(scope="module")
def finished(base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("run")
    assert instruct(settings(base, run={"sample_every": 3}), [data], directory) == directory / "model"
    return directory


def test_a_run_leaves_a_model_to_serve_and_what_is_known_of_it(finished: Path) -> None:
    model = finished / "model"
    assert isinstance(load_model(model), GPT)
    assert {"chat_template.jinja", "instruction_template.jinja", "tokenizer.json"} <= {p.name for p in model.iterdir()}
    lines = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    losses = [line["validation_loss"] for line in lines if "validation_loss" in line]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    assert sum("sample" in line for line in lines) == 4
    found = json.loads((finished / "evaluation.json").read_text())
    before, after = (found[side][0] for side in ("base", "model"))
    assert before["name"] == after["name"] == "answer loss"
    assert after["value"] < before["value"]
    assert {figure["name"] for figure in found["model"]} >= {"token F1", "ROUGE-L"}
    assert len(found["answers"]) == 4
    card = (model / "README.md").read_text()
    assert found["answers"][0]["request"].splitlines()[0] in card
    assert found["answers"][3]["reference"] not in card  # only two are shown
    assert (finished / "report.html").is_file()


def test_the_loss_reported_is_that_of_the_exported_weights(base: Path, data: Path, finished: Path) -> None:
    run = InstructRun(settings(base), [data])
    model = load_model(finished / "model")
    assert isinstance(model, GPT)
    found = json.loads((finished / "evaluation.json").read_text())
    assert answer_loss(model, run.validation, bf16=False) == pytest.approx(found["model"][0]["value"], abs=1e-6)


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_only_answers_count_behind_the_prompt_that_serving_makes(
    base: Path, data: Path, finished: Path, layout: str
) -> None:
    run = InstructRun(settings(base, data={"layout": layout}), [data])
    served = InstructionTemplate.from_directory(finished / "model")
    chat = PromptTemplate.from_directory(finished / "model")
    expected = {}
    for row in ROWS:
        prompt = served.encode(TOKENIZER, row["instruction"], row["input"])
        expected[row["output"] + "<|endoftext|>"] = prompt
        if not row["input"]:
            assert chat.encode([{"role": "user", "content": row["instruction"]}], TOKENIZER) == prompt
    for example in (*run.train, *run.validation):
        answer = TOKENIZER.decode(example.tokens[example.counted].tolist())
        assert example.tokens[~example.counted].tolist() == expected.pop(answer)
    assert not expected
    batch = run.source.batch(0, run.source.samples_per_epoch)
    learned = batch.tensors()["targets"]
    assert learned is not None
    assert int((learned != IGNORE).sum()) == sum(example.n_targets for example in run.train)


def test_answer_loss_is_the_mean_over_the_tokens_that_count(base: Path, data: Path) -> None:
    run = InstructRun(settings(base), [data])
    total = n = 0.0
    for example in run.validation:  # one at a time, without the batching
        tokens = torch.from_numpy(example.tokens).long()
        logprobs = run.model(tokens[None, :-1])[0].log_softmax(-1).gather(1, tokens[1:, None])[:, 0]
        total -= float(logprobs[torch.from_numpy(example.counted[1:])].sum().detach())
        n += example.n_targets
    assert answer_loss(run.model, run.validation, bf16=False) == pytest.approx(total / n, rel=1e-5)


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_a_resumed_run_ends_with_the_same_weights(base: Path, data: Path, tmp_path: Path, layout: str) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    some = settings(base, data={"layout": layout, "max_tokens": 96}, answers={"measured": 1})
    instruct(some, [data], whole)
    resumed.mkdir()
    shutil.copytree(whole / "states" / "step-00000002", resumed / "states" / "step-00000002")
    with pytest.raises(ConfigError, match="--resume"):
        instruct(some, [data], resumed)
    instruct(some, [data], resumed, resume=True)
    first, second = (load_file(d / "model" / "model.safetensors") for d in (whole, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_answers_of_a_base_without_a_template_end_where_serving_ends_them(
    base: Path, data: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = TOKENIZER.encode("It is red!\n\n### Instruction:\nSay the word.")
    monkeypatch.setattr(
        "training.questions.greedy_answers", lambda model, prompts, *_, **__: [goes_on for _ in prompts]
    )
    run = InstructRun(settings(base), [data])
    before, after = run.measure(base=True), run.measure()
    assert set(before.answers) == {"It is red!"}
    assert set(after.answers) == {TOKENIZER.decode(goes_on)}  # a tuned model is to end by itself
    assert {f.name: f.value for f in before.figures}["token F1"] > {f.name: f.value for f in after.figures}["token F1"]
    tuned = InstructRun(settings(finished / "model"), [data])  # a base with a template
    assert tuned.measure(base=True).answers == after.answers
    assert "its answers end at" in (finished / "model" / "README.md").read_text()


def test_an_adapter_carries_the_templates(base: Path, data: Path, tmp_path: Path) -> None:
    lora = settings(base, method="lora", optim={"lr": 1e-2}, run={"steps": 2}, answers={"measured": 1})
    model = instruct(lora, [data], tmp_path)
    assert (model / "adapter_model.safetensors").is_file()
    assert PromptTemplate.from_directory(model).stops == ()
    assert "peft" in (model / "README.md").read_text()


def test_chats_count_every_answer_and_rows_left_out_are_counted(base: Path, tmp_path: Path) -> None:
    def chat(n: int, *answers: str) -> dict[str, Any]:
        turns = [[("user", f"Question {n}.{i}?"), ("assistant", answer)] for i, answer in enumerate(answers)]
        return {"messages": [{"role": role, "content": text} for turn in turns for role, text in turn]}

    rows = [*(chat(n, "One.", "Two.") for n in range(20)), chat(20, ""), chat(21, "word " * 400)]
    rows[3]["messages"].append({"role": "user", "content": "And?"})
    path = tmp_path / "chats.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    run = InstructRun(settings(base), [path])
    examples = [*run.train, *run.validation]
    assert len(examples) == 20
    for example in examples:
        assert TOKENIZER.decode(example.tokens[example.counted].tolist()) == "One.<|endoftext|>Two.<|endoftext|>"
    assert "left out: 1 rows without an answer to learn" in run.notes
    assert "left out of these rows: 1 turns that lack an answer to learn, or a request before it" in run.notes
    assert any("1 examples dropped, longer than the context" in note for note in run.notes)
    cut = InstructRun(settings(base, data={"too_long": "truncate"}), [path])
    assert any("1 examples cut to the context" in note for note in cut.notes)


def test_validation_files_and_rows_that_they_share(base: Path, data: Path, tmp_path: Path) -> None:
    path = tmp_path / "validation.json"
    path.write_text(json.dumps(ROWS[:5]))
    run = InstructRun(settings(base, data={"validation": [str(path)]}), [data])
    assert (len(run.train), len(run.validation)) == (11, 5)
    assert "left out: 5 rows whose request is in the validation rows too" in run.notes


def test_a_split_by_field_keeps_its_values_on_one_side(base: Path, tmp_path: Path) -> None:
    rows = [{**row, "story": f"story {n % 6}"} for n, row in enumerate(ROWS)]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows))
    run = InstructRun(settings(base, data={"split_field": "story"}), [path])
    held_out = {TOKENIZER.decode(e.tokens[e.counted].tolist()).removesuffix("<|endoftext|>") for e in run.validation}
    sides = {row["story"]: set() for row in rows}
    for row in rows:
        sides[row["story"]].add(row["output"] in held_out)
    assert all(len(side) == 1 for side in sides.values())


@pytest.mark.parametrize(
    ("rows", "changes", "error", "message"),
    [
        ([{"text": "x"}], {}, DataError, r"rows\.json, row 1: has none of the fields"),
        ([ROWS[0], {"instruction": "x"}], {}, DataError, r"rows\.json, row 2: has no field 'output'"),
        ([ROWS[0]], {}, DataError, "no (training|validation) row"),
        (ROWS, {"max_tokens": 4}, DataError, "no training example is left .*longer than the context"),
        (ROWS, {"max_tokens": 999}, ConfigError, "max_tokens is 999, but the model's context is 128"),
        (ROWS, {"split_field": "story"}, DataError, r"row 1: has no field 'story'"),
    ],
)
def test_what_cannot_be_used_is_said_and_nothing_is_written(
    base: Path,
    tmp_path: Path,
    rows: list[dict[str, str]],
    changes: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    path, out = tmp_path / "rows.json", tmp_path / "out"
    path.write_text(json.dumps(rows))
    with pytest.raises(error, match=message):
        instruct(settings(base, data=changes), [path], out)
    assert not out.exists()


@pytest.mark.parametrize("path", sorted(RECIPES.glob("instruct_*.toml")), ids=lambda path: path.stem)
def test_the_recipes_are_whole(path: Path) -> None:
    recipe = InstructSettings.from_toml(path)
    assert recipe.data.about
    assert path.stem in path.read_text()  # the command that runs it


def test_answers_of_many_prompts_are_those_of_the_plain_generator(base: Path) -> None:
    model = load_model(base)
    assert isinstance(model, GPT)
    prompts = [TOKENIZER.encode(text) for text in ("The sun", "A", "Once upon a time there was", "word " * 120)]
    expected = [
        list(generate(model, prompt, SamplingParams(temperature=0), min(12, 128 - len(prompt)))) for prompt in prompts
    ]
    assert greedy_answers(model, prompts, 12) == expected
    assert len(expected[-1]) < 12  # the end of its context
    ends = {answer[3] for answer in expected[:2]}
    model.config = tiny_config("llama", vocab_size=TOKENIZER.vocab_size, bos_token_id=0, eos_token_ids=tuple(ends))
    expected = [
        list(generate(model, prompt, SamplingParams(temperature=0), min(12, 128 - len(prompt)))) for prompt in prompts
    ]
    assert greedy_answers(model, prompts, 12) == expected


def test_the_objective_of_a_run_sees_no_prompt_token(base: Path, data: Path) -> None:
    """The loss is that of the answers and their ends, found here by the text: of no token before them."""
    run = InstructRun(settings(base), [data])
    loss = run.job().objective(**run.source.batch(0, run.source.samples_per_epoch).tensors())
    answers, outputs = 0.0, {row["output"] for row in ROWS}
    for example in run.train:
        tokens = torch.from_numpy(example.tokens).long()
        answer = TOKENIZER.decode(tokens.tolist()).partition("### Response:\n")[2].removesuffix("<|endoftext|>")
        outputs.remove(answer)
        logprobs = run.model(tokens[None, :-1])[0].log_softmax(-1).gather(1, tokens[1:, None])[:, 0]
        answers -= float(logprobs[-len(TOKENIZER.encode(answer)) - 1 :].sum().detach())
    assert loss.item() == pytest.approx(answers, rel=1e-5)


def test_figures_are_json_whatever_they_are() -> None:
    figure = Figure("perplexity", math.inf, "broken", low=math.nan, high=2.0)
    assert json.loads(json.dumps(_json(figure), allow_nan=False)) == {
        "name": "perplexity", "value": None, "convention": "broken", "low": None, "high": 2.0, "share": False,
    }  # fmt: skip
