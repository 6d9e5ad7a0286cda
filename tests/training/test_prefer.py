"""Preference tuning: the loss against the formula written out, and whole runs on a tiny model."""

import json
import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tiny import random_model, tiny_config

from model.checkpoint import load_model, save_model
from model.errors import CheckpointError, ConfigError
from model.gpt import GPT
from model.prompts import InstructionTemplate, PromptTemplate
from model.tokenizer import Tokenizer
from training.data.examples import Example
from training.data.pairs import Pair, PairRows, collate_pairs, fit_pairs
from training.errors import DataError
from training.instruct_recipe import PreferSettings
from training.objectives import PreferenceLoss
from training.prefer import REFERENCE, PreferRun, prefer
from training.reference import Reference, margins, pair_logprobs, without_dropout

TOKENIZER = Tokenizer.from_directory(Path(__file__).parents[2] / "checkpoints" / "homegrown-base")
WORDS = (
    "red", "blue", "green", "black", "white", "small", "large", "old", "new", "good", "bad", "long", "day", "sun", "sea", "sky",
)  # fmt: skip
ROWS = [
    {"instruction": f"Say {w}.", "input": "", "output": f"It is {w}.", "chosen": f"It is {w}.", "rejected": f"No, not {w}!"}
    for w in WORDS
]  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("base")
    save_model(
        random_model(tiny_config("llama", vocab_size=TOKENIZER.vocab_size, bos_token_id=0, eos_token_ids=(0,))),
        directory,
    )
    TOKENIZER.save(directory)
    return directory


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "rows.json"
    path.write_text(json.dumps(ROWS))
    return path


def settings(base: Path, **changes: Any) -> PreferSettings:
    sections: dict[str, Any] = {
        "model": str(base),
        "data": {"validation_fraction": 0.3},
        "optim": {"lr": 1e-3, "batch_rows": 4, "warmup_steps": 1},
        "run": {
            "steps": 6, "epochs": None, "bf16": False, "threads": 1, "device": "cpu", "tensorboard": False,
            "log_every": 1, "eval_every": 3, "save_every": 2, "keep": 9,
        },
        "answers": {"measured": 2, "shown": 1, "max_tokens": 6},
    }  # fmt: skip
    for name, value in changes.items():
        sections[name] = {**sections[name], **value} if isinstance(value, dict) and name in sections else value
    return PreferSettings.from_toml(None, sections)


@pytest.fixture(scope="module")
def finished(base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("run")
    assert prefer(settings(base), [data], directory) == directory / "model"
    return directory


def example(length: int, counted: int, seed: int) -> Example:
    tokens = np.random.default_rng(seed).integers(1, 120, length).astype(np.int32)
    return Example(tokens, np.arange(length) >= length - counted)


def some_pairs(n: int = 5) -> list[Pair]:
    return [Pair(example(6 + 3 * i, 3 + i, i), example(14 - i, 4, 50 + i)) for i in range(n)]


def tiny(architecture: str, **changes: Any) -> GPT:
    model = random_model(tiny_config(architecture, vocab_size=128, bos_token_id=0, eos_token_ids=(0,), **changes))
    assert isinstance(model, GPT)
    return model


def written_out(model: GPT, pairs: list[Pair], reference: np.ndarray, beta: float) -> torch.Tensor:
    """Equation 7 of the paper, a token at a time, each answer by itself, in float64."""
    total = torch.zeros((), dtype=torch.float64)
    for pair, before in zip(pairs, reference.tolist(), strict=True):
        ratios = []
        for side, known in zip((pair.chosen, pair.rejected), before, strict=True):
            tokens = torch.from_numpy(side.tokens).long()
            logits = model(tokens[None])[0].double()
            log_policy = torch.zeros((), dtype=torch.float64)
            for place in range(1, len(tokens)):
                if side.counted[place]:
                    weights = logits[place - 1].exp()
                    log_policy = log_policy + (weights[tokens[place]] / weights.sum()).log()
            ratios.append(log_policy - known)
        sigmoid = 1 / (1 + torch.exp(-beta * ratios[0] + beta * ratios[1]))
        total = total - sigmoid.log()
    return total


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_loss_and_gradient_are_those_of_the_formula(architecture: str) -> None:
    pairs, beta = some_pairs(), 0.3
    reference = pair_logprobs(tiny(architecture), pairs)
    moved = random_model(tiny(architecture).config, seed=1)  # a policy that is not the reference
    assert isinstance(moved, GPT)
    moved.requires_grad_(True)
    parameters = [p for p in moved.parameters() if p.requires_grad]
    batch = collate_pairs(pairs, reference)
    loss = PreferenceLoss(moved, bf16=False, beta=beta)(**batch.tensors())
    gradients = torch.autograd.grad(loss, parameters)
    expected = written_out(moved, pairs, reference, beta)
    expected_gradients = torch.autograd.grad(expected, parameters)
    assert batch.weight == len(pairs)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for gradient, wanted in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-3, atol=1e-5)
    # What is reported on the way is the same number.
    rewards = beta * margins(pair_logprobs(moved, pairs), reference)
    assert np.logaddexp(0.0, -rewards).sum() == pytest.approx(expected.item(), rel=1e-5)


def test_before_any_update_the_loss_is_that_of_a_coin() -> None:
    model = tiny("gpt2", dropout=0.5).requires_grad_(True)
    without_dropout(model)
    pairs = some_pairs()
    batch = collate_pairs(pairs, pair_logprobs(model, pairs))
    loss = PreferenceLoss(model, bf16=False, beta=0.1).train()(**batch.tensors())
    assert loss.item() / len(pairs) == pytest.approx(math.log(2), abs=1e-5)


def test_log_probabilities_count_the_answers_alone() -> None:
    model, pairs = tiny("llama"), some_pairs()
    found = pair_logprobs(model, pairs)
    other_prompt = [
        Pair(*(Example(np.where(e.counted, e.tokens, 7), e.counted) for e in (p.chosen, p.rejected))) for p in pairs
    ]
    assert not np.allclose(found, pair_logprobs(model, other_prompt))  # it is seen
    for pair, both in zip(pairs, found, strict=True):
        for side, value in zip((pair.chosen, pair.rejected), both, strict=True):
            tokens = torch.from_numpy(side.tokens).long()
            logprobs = model(tokens[None, :-1])[0].log_softmax(-1).gather(1, tokens[1:, None])[:, 0]
            assert value == pytest.approx(float(logprobs[torch.from_numpy(side.counted[1:])].sum()), abs=1e-4)


def test_each_pair_comes_once_an_epoch_with_its_own_reference() -> None:
    pairs = some_pairs(7)
    reference = np.arange(14, dtype=np.float32).reshape(7, 2)
    source = PairRows(pairs, reference, seed=3, batch_rows=2)
    for epoch in range(2):
        found = Counter[float]()
        for start in range(0, 7, 2):
            batch = source.batch(epoch * 7 + start, min(2, 7 - start))
            assert batch.chosen_tokens.shape == batch.rejected_tokens.shape
            for row, (chosen, rejected) in enumerate(
                zip(batch.reference_chosen.tolist(), batch.reference_rejected.tolist(), strict=True)
            ):
                pair = pairs[int(chosen) // 2]
                assert rejected == chosen + 1
                n = pair.chosen.positions
                assert batch.chosen_tokens[row, :n].tolist() == pair.chosen.tokens[:-1].tolist()
                found[chosen] += 1
        assert found == Counter({float(2 * i): 1 for i in range(7)})


def test_pairs_that_cannot_teach_are_dropped_and_counted() -> None:
    good, long = Pair(example(8, 3, 0), example(9, 3, 1)), Pair(example(8, 3, 0), example(40, 35, 1))
    same = Pair(example(8, 3, 0), example(8, 3, 0))
    fitted = fit_pairs([good, long, same], 20, "drop")
    assert fitted.pairs[0].chosen is good.chosen
    assert fitted.dropped == {"dropped, longer than the context": 1, "dropped, both answers the same": 1}
    cut = fit_pairs([good, long, same], 20, "truncate")
    assert [pair.positions for pair in cut.pairs] == [8, 20]
    assert cut.dropped == {"cut to the context": 1, "dropped, both answers the same": 1}


def test_a_run_makes_the_better_answers_gain(finished: Path) -> None:
    assert isinstance(load_model(finished / "model"), GPT)
    found = json.loads((finished / "evaluation.json").read_text())
    before, after = ({figure["name"]: figure["value"] for figure in found[side]} for side in ("base", "model"))
    assert before["DPO loss"] == pytest.approx(math.log(2))
    assert before["margin"] == 0
    assert after["DPO loss"] < before["DPO loss"]
    assert after["margin"] > 0
    assert after["preferred more than before"] > 0.5
    lines = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    assert next(line["loss"] for line in lines if "loss" in line) == pytest.approx(math.log(2), abs=1e-5)
    assert {"validation_accuracy", "validation_margin"} <= {key for line in lines for key in line}
    assert "(DPO)" in (finished / "model" / "README.md").read_text()


def test_prompts_are_those_that_serving_makes(base: Path, data: Path, finished: Path) -> None:
    run = PreferRun(settings(base), [data])
    served = InstructionTemplate.from_directory(finished / "model")
    assert PromptTemplate.from_directory(finished / "model").stops == ()
    prompts = [served.encode(TOKENIZER, row["instruction"]) for row in ROWS]
    for pair in (*run.train, *run.validation):
        for side in (pair.chosen, pair.rejected):
            assert side.tokens[~side.counted].tolist() in prompts
    answers = {TOKENIZER.decode(pair.rejected.tokens[pair.rejected.counted].tolist()) for pair in run.train}
    assert answers <= {row["rejected"] + "<|endoftext|>" for row in ROWS}


def test_a_resumed_run_ends_with_the_same_weights(base: Path, data: Path, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "states" / "step-00000002", tmp_path / "states" / "step-00000002")
    with pytest.raises(ConfigError, match="--resume"):
        prefer(settings(base), [data], tmp_path)
    prefer(settings(base), [data], tmp_path, resume=True)
    first, second = (load_file(d / "model" / "model.safetensors") for d in (finished, tmp_path))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_reference_is_kept_and_belongs_to_its_run(finished: Path, tmp_path: Path) -> None:
    Reference.unknown(3, 2).save(tmp_path / REFERENCE, "key")
    again = Reference.load(tmp_path / REFERENCE, "key")
    assert again is not None
    assert again.train.shape == (3, 2)
    assert Reference.load(tmp_path / REFERENCE, "another key") is None
    assert Reference.load(tmp_path / "missing.safetensors", "key") is None
    content = bytearray((tmp_path / REFERENCE).read_bytes())
    content[-3] ^= 1  # one bit of the last number
    (tmp_path / REFERENCE).write_bytes(content)
    assert Reference.load(tmp_path / REFERENCE, "key") is None
    (tmp_path / REFERENCE).write_bytes((finished / REFERENCE).read_bytes()[:-40])
    assert Reference.load(tmp_path / REFERENCE, "key") is None


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("model.checkpoint.save_file", full)
    with pytest.raises(CheckpointError, match=rf"{REFERENCE}: can't be written .*No space left.*make room"):
        Reference.unknown(3, 2).save(tmp_path / REFERENCE, "key")
    assert not list(tmp_path.iterdir())


def test_a_run_goes_on_with_the_reference_that_it_kept(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.distributed import join

    with join("cpu") as world:
        run = PreferRun(settings(base), [data])
        run.refer(tmp_path, world)
        first = run.reference

        def computed_again(*_: object, **__: object) -> Reference:
            raise AssertionError("the reference was computed again")

        monkeypatch.setattr(Reference, "of", computed_again)
        run = PreferRun(settings(base), [data])
        run.refer(tmp_path, world)
        assert np.array_equal(run.reference.train, first.train)
        with pytest.raises(AssertionError, match="computed again"):  # of other rows it is another one
            PreferRun(settings(base, run={"seed": 5}), [data]).refer(tmp_path, world)


def test_lora_prefers_too(base: Path, data: Path, tmp_path: Path) -> None:
    some = settings(base, method="lora", optim={"lr": 5e-3}, run={"steps": 3})
    model = prefer(some, [data], tmp_path)
    assert (model / "adapter_model.safetensors").is_file()
    found = json.loads((tmp_path / "evaluation.json").read_text())
    assert found["model"][0]["value"] < math.log(2)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"prompt": "x", "chosen": "y"}], r"rows\.json, row 1: has no field 'rejected'"),
        ([{"chosen": "y", "rejected": "z"}], "none of the fields 'instruction' or 'prompt'"),
        ([{**row, "rejected": row["chosen"]} for row in ROWS], "no training pair is left .*both answers the same"),
        ([{**row, "rejected": ""} for row in ROWS], "left out: 16 rows without an answer"),
    ],
)
def test_what_cannot_be_used_is_said_and_nothing_is_written(
    base: Path, tmp_path: Path, rows: list[dict[str, str]], message: str
) -> None:
    path, out = tmp_path / "rows.json", tmp_path / "out"
    path.write_text(json.dumps(rows))
    with pytest.raises(DataError, match=message):
        prefer(settings(base), [path], out)
    assert not out.exists()


def test_the_recipe_is_whole() -> None:
    path = Path(__file__).parents[2] / "training" / "recipes" / "dpo_small.toml"
    assert PreferSettings.from_toml(path).data.about
    assert path.stem in path.read_text()
