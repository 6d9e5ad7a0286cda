"""The dry run: right figures, a measured speed, and nothing left behind."""

import gzip
import json
import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import random_model, save_tiny, tiny_config

from model.errors import ConfigError
from model.gpt import GPT, SequenceClassifier
from model.lora import LoraConfig, add_lora
from model.tokenizer import Tokenizer
from training import trial
from training.costs import count_parameters, training_flops
from training.data.batch import LabelBatch
from training.data.loader import Windows
from training.errors import DataError, TrainingError
from training.fit import Job
from training.objectives import ClassificationLoss, LanguageModelLoss
from training.plan import Plan, plan_job
from training.pretrain_plan import RandomWindows, bytes_per_token, estimated_bytes, pretrain_plan
from training.pretrain_recipe import PretrainSettings
from training.recipe import OptimSettings, RunSection

LLAMA = tiny_config("llama", vocab_size=64, bos_token_id=0, eos_token_ids=(0,), context_length=32)
RECIPE: dict[str, Any] = {
    "name": "tiny",
    "data": {"vocab_size": 300, "validation_fraction": 0.1},
    "model": {
        "preset": "homegrown-4m",
        "changes": {
            "n_layer": 2,
            "d_model": 64,
            "n_head": 2,
            "n_kv_head": 2,
            "head_dim": 32,
            "d_ff": 96,
            "context_length": 32,
        },
    },
    "optim": {"batch_tokens": 256, "warmup_steps": 2},
    "run": {"steps": 30, "micro_batch": 4, "compile": False, "threads": 1},
}


def job(*, run: dict[str, Any] | None = None, optim: dict[str, Any] | None = None, epoch: int = 96) -> Job:
    model = random_model(LLAMA).requires_grad_(True)
    assert isinstance(model, GPT)
    options = {"epochs": 3, "compile": False, "micro_batch": 4, "threads": 1, "bf16": False, **(run or {})}
    return Job(
        objective=LanguageModelLoss(model, bf16=False),
        source=RandomWindows(LLAMA, epoch, masked=False),
        optim=OptimSettings(**(optim or {})),
        run=RunSection(**options),
        batch_rows=16,
        fingerprint={},
        evaluate=dict,
        tokens_per_sample=32,
    )


def planned(tmp_path: Path, **changes: Any) -> Plan:
    return plan_job(job(**changes), tmp_path / "run", name="a name", data="made up")


def test_the_figures_follow_from_each_other(tmp_path: Path) -> None:
    made = job()
    count = count_parameters(made.objective.model)
    per_token = training_flops(made.objective.model, 32)
    plan = plan_job(made, tmp_path / "not" / "there", name="a name", data="made up")
    assert (plan.updates, plan.tokens, plan.epochs) == (18, 18 * 512, 3.0)
    assert plan.parameters == count
    assert plan.flops == per_token * 18 * 512
    assert plan.seconds == pytest.approx(18 * plan.speed.seconds_per_update)
    assert plan.state_bytes == 4 * count.total + 8 * count.total
    assert plan.disk == 4 * plan.state_bytes  # the two newest, the best, one being written
    assert plan.disk_free > 0
    assert list(tmp_path.iterdir()) == []


def test_the_table_says_it_all(tmp_path: Path) -> None:
    table = planned(tmp_path).table(width=100)
    for part in (
        "a name", "nothing was started or written", "llama language model: 2 layers x 32", "made up", "512 tokens: 16 rows in 4",
        "18 updates", "9.22 k tokens, 3.00 passes", "adamw", "wsd: 100 updates of warm-up", "float32", "FLOP a token",
        "FLOP in all", "tokens/s", "measured", "MiB", "free",
    ):  # fmt: skip
        assert part in " ".join(table.split()), part
    assert all(len(line) <= 100 for line in table.splitlines() if not line.startswith("WARNING"))
    assert "WARNING" in table  # 18 updates end within the warm-up


def test_the_run_ends_by_what_comes_first(tmp_path: Path) -> None:
    by_steps = planned(tmp_path, run={"steps": 5, "minutes": 60})
    assert (by_steps.updates, by_steps.steps) == (5, 5)
    by_clock = replace(by_steps, run=RunSection(minutes=2, steps=10**9), steps=10**9)
    by_clock = replace(by_clock, speed=replace(by_clock.speed, seconds_per_update=0.5))
    assert by_clock.updates == 240
    table = " ".join(by_clock.table().split())
    assert "240 updates at most" in table
    assert "2 minutes by the clock" in table
    assert by_clock.seconds == 120


def test_what_is_likely_to_go_wrong_is_said(tmp_path: Path) -> None:
    plan = planned(tmp_path, optim={"warmup_steps": 2}, run={"epochs": 12})
    assert [w for w in plan.warnings if "read" not in w] == []
    assert "the data is read 12 times" in plan.warnings[0]
    tight = replace(plan, memory_free=1000, disk_free=1000, optim=OptimSettings(warmup_steps=10**6))
    said = " ".join(tight.warnings)
    for part in ("memory", "disk", "warm-up of 1000000"):
        assert part in said
    assert tight.table().count("WARNING") == 4


def test_a_batch_too_slow_to_time_whole_is_timed_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_WHOLE_SECONDS", 0.0)
    plan = planned(tmp_path)
    assert "one update of a micro-batch of 4 rows, times 4" in plan.speed.how
    assert plan.speed.tokens_per_update == 512


def test_real_updates_are_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, rows = job(), []
    before = [p.detach().clone() for p in made.objective.model.parameters()]
    step = trial.train_step
    monkeypatch.setattr(
        trial, "train_step", lambda state, batch, *a, **k: rows.append(len(batch)) or step(state, batch, *a, **k)
    )
    plan_job(made, tmp_path, name="", data="")
    assert rows == [4, 4, 16, 16, 16]
    assert any(not torch.equal(x, y) for x, y in zip(before, made.objective.model.parameters(), strict=True))


@pytest.mark.parametrize("error", [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"),
])  # fmt: skip
def test_too_little_memory_says_what_to_lower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: RuntimeError
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(trial, "train_step", full)
    with pytest.raises(TrainingError, match=r"of 4 rows .* lower run\.micro_batch, or set run\.checkpointing"):
        planned(tmp_path)
    error = RuntimeError("something else")
    with pytest.raises(RuntimeError, match="something else"):
        planned(tmp_path)


def test_low_rank_pairs_cost_less(tmp_path: Path) -> None:
    whole, made = planned(tmp_path), job()
    add_lora(made.objective.model, LoraConfig(rank=2))
    plan = plan_job(made, tmp_path, name="", data="")
    assert plan.parameters.trainable < plan.parameters.total / 10
    assert plan.flops_per_token < whole.flops_per_token
    assert plan.state_bytes < whole.state_bytes / 5
    assert f"{plan.parameters.trainable:,} trained" in plan.table()


class Labelled:
    """Rows of 5 to 12 tokens, padded to 12."""

    samples_per_epoch = 40

    def batch(self, cursor: int, rows: int) -> LabelBatch:
        lengths = torch.arange(cursor, cursor + rows) % 8 + 5
        return LabelBatch(torch.ones(rows, 12, dtype=torch.long), lengths, lengths % 2, torch.ones(rows))


def test_a_classifiers_job_is_planned_too(tmp_path: Path) -> None:
    model = random_model(replace(LLAMA, labels=("ham", "spam"))).requires_grad_(True)
    assert isinstance(model, SequenceClassifier)
    made = replace(job(), objective=ClassificationLoss(model, bf16=False), source=Labelled(), batch_rows=8)  # type: ignore[arg-type]
    plan = plan_job(replace(made, tokens_per_sample=None), tmp_path, name="", data="")
    assert "classifier" in plan.table()
    assert plan.updates == 15
    assert plan.speed.tokens_per_update == 68  # 5 + ... + 12: padding is no token
    assert plan.flops_per_token == training_flops(model, 8)  # of the mean length, 8.5


def test_several_processes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from training import plan
    from training.distributed import World

    class Two:
        def __enter__(self) -> World:
            return World(0, 2, torch.device("cpu"))

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(plan, "join", lambda device: Two())
    with pytest.raises(ConfigError, match="without torchrun"):
        planned(tmp_path)


def corpus(directory: Path, documents: int = 200) -> Path:
    rng = random.Random(0)
    words = [
        "the",
        "a",
        "boy",
        "girl",
        "fox",
        "king",
        "saw",
        "ate",
        "lost",
        "sold",
        "red",
        "big",
        "hat",
        "and",
        "then",
        "was",
    ]
    texts = [" ".join(rng.choice(words) for _ in range(120)) for _ in range(documents)]
    (directory / "corpus.txt").write_text("\n<|endoftext|>\n".join(texts))
    return directory / "corpus.txt"


def settings(corpus: Path | str, **sections: dict[str, Any]) -> PretrainSettings:
    content = json.loads(json.dumps(RECIPE))
    content["data"]["corpus"] = [str(corpus)]
    for section, fields in sections.items():
        content[section].update(fields)
    return PretrainSettings.model_validate(content)


def snapshot(directory: Path) -> dict[str, tuple[int, int]]:
    return {str(p.relative_to(directory)): (p.stat().st_size, p.stat().st_mtime_ns) for p in directory.rglob("*")}


def test_pretraining_is_planned_before_there_is_a_tokenizer(tmp_path: Path) -> None:
    file = corpus(tmp_path)
    before = snapshot(tmp_path)
    plan = pretrain_plan(settings(file), tmp_path / "run")
    assert snapshot(tmp_path) == before
    assert plan.config.vocab_size == 320  # 300, in multiples of 64
    assert (plan.updates, plan.batch_rows) == (30, 8)
    size = file.stat().st_size
    assert plan.samples_per_epoch == pytest.approx(0.9 * size / bytes_per_token("", None, 300) / 32, rel=0.05)
    assert "estimated" in plan.data


def test_with_a_tokenizer_or_shards_the_data_is_known_better(tmp_path: Path) -> None:
    from training.data.prepare import prepare_data

    file, run = corpus(tmp_path), tmp_path / "run"
    wanted = settings(file)
    manifest = prepare_data(wanted, run / "data")
    before = snapshot(tmp_path)
    plan = pretrain_plan(wanted, run)
    assert snapshot(tmp_path) == before
    tokens = manifest.splits["train"].tokens
    assert f"{tokens:,} tokens" in plan.data
    assert plan.samples_per_epoch == Windows(torch.zeros(tokens, dtype=torch.long).numpy(), 32, 0).samples_per_epoch
    # The same tokenizer by its file, and no shards: from a sample.
    named = settings(file, data={"tokenizer": str(run / "data" / "tokenizer.json")})
    estimate = pretrain_plan(named, tmp_path / "elsewhere").samples_per_epoch
    assert estimate == pytest.approx(plan.samples_per_epoch, rel=0.1)


def test_going_on_from_a_model_takes_its_shape_and_tokenizer(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base", "gpt2")
    content = {**RECIPE, "data": {"corpus": [str(corpus(tmp_path))]}, "model": {"start": str(base)}}
    plan = pretrain_plan(PretrainSettings.model_validate(content), tmp_path / "run")
    assert (plan.config.architecture, plan.config.vocab_size) == ("gpt2", 50257)
    assert "the tokenizer on a sample" in plan.data


def test_a_compressed_corpus_is_estimated_by_how_its_text_compresses(tmp_path: Path) -> None:
    plain = corpus(tmp_path)
    text = plain.read_text()
    packed = tmp_path / "packed.txt.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert estimated_bytes([plain], text[:20_000]) == plain.stat().st_size
    assert estimated_bytes([packed], text[:20_000]) == pytest.approx(plain.stat().st_size, rel=0.15)


def test_bytes_a_token() -> None:
    assert bytes_per_token("", None, 4096) == pytest.approx(3.41)
    assert bytes_per_token("", None, 300) < 3 < bytes_per_token("", None, 20_000) < 4.4
    text = "The old woman opened the door and looked at the boy."
    tokenizer = Tokenizer.gpt2()
    assert bytes_per_token(text, tokenizer, 0) == len(text) / len(tokenizer.encode(text))


def test_a_streamed_corpus_needs_another_end(tmp_path: Path) -> None:
    """Its size isn't known, and reading it is what a dry run must not do."""
    plan = pretrain_plan(settings("hf:owner/name"), tmp_path / "run")
    assert (plan.samples_per_epoch, plan.epochs, plan.updates) == (None, None, 30)
    assert "isn't known" in plan.data
    assert "passes" not in plan.table()
    endless = settings("hf:owner/name")
    endless = endless.model_copy(update={"run": endless.run.model_copy(update={"steps": None, "epochs": 1.0})})
    with pytest.raises(ConfigError, match="give minutes or steps"):
        pretrain_plan(endless, tmp_path / "run")


def test_a_corpus_that_cannot_be_read_is_said_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        pretrain_plan(settings(tmp_path / "missing.txt"), tmp_path / "run")


def test_random_windows_are_a_function_of_the_cursor() -> None:
    source = RandomWindows(LLAMA, 10, masked=True)
    a, b = source.batch(7, 3), source.batch(7, 3)
    assert torch.equal(a.tokens, b.tokens)
    assert a.documents is not None
    assert a.tokens.shape == a.targets.shape == (3, 32)
    assert torch.equal(a.tokens[:, 1:], a.targets[:, :-1])
    assert os.environ.get("WORLD_SIZE", "1") == "1"
