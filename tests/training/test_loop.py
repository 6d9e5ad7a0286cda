"""One update, and one saved state, exactly."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from tiny import random_model, tiny_config

from model import attention
from model.errors import CheckpointError
from model.gpt import GPT
from training import head
from training import state as states
from training.data.batch import IGNORE, LabelBatch, TokenBatch
from training.errors import TrainingError
from training.loop import Hooks, Metrics, RunSettings, StepSettings, run, train_step
from training.objectives import ClassificationLoss, LanguageModelLoss
from training.optim import Schedule, make_optimizers, set_learning_rates, trainable
from training.state import Counters, TrainState

CONFIG = tiny_config("llama", vocab_size=64, bos_token_id=0, eos_token_ids=(0,), context_length=32)


def fresh(optimizer: str = "muon") -> TrainState:
    model = random_model(CONFIG).requires_grad_(True)
    assert isinstance(model, GPT)
    name = "muon" if optimizer == "muon" else "adamw"
    return TrainState(model, make_optimizers(model, name, lr=1e-2, matrix_lr=0.02, weight_decay=0.1, beta2=0.95))


def batch(rows: int = 6, seed: int = 0) -> TokenBatch:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 64, (rows, 33), generator=generator)
    return TokenBatch(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())


def objective(state: TrainState) -> LanguageModelLoss:
    return LanguageModelLoss(state.model, bf16=False)  # type: ignore[arg-type]


def step(state: TrainState, made: TokenBatch, micro_batch: int = 6, clip: float = 1.0) -> float:
    return train_step(state, made, objective(state), StepSettings(micro_batch, clip)).loss


def weights(state: TrainState) -> list[torch.Tensor]:
    return [p.detach().clone() for p in state.model.parameters()]


@pytest.mark.parametrize("micro_batch", [1, 2, 4])
def test_micro_batches_equal_one_batch(micro_batch: int) -> None:
    """Also when the valid tokens are spread unevenly: the mean is over tokens, not over micro-batches."""
    made = batch()
    made.targets[0, 3:] = IGNORE
    made.targets[4] = IGNORE
    grads = []
    for size in (6, micro_batch):
        state = fresh("adamw")
        kept: list[torch.Tensor] = []
        state.optimizers[0].register_step_pre_hook(
            lambda *_, state=state, kept=kept: kept.extend(p.grad.clone() for p in trainable(state.model))
        )
        loss = step(state, made, size, clip=1e9)
        grads.append((loss, kept))
    (loss_a, a), (loss_b, b) = grads
    assert loss_a == pytest.approx(loss_b, rel=1e-6)
    for x, y in zip(a, b, strict=True):
        assert (x - y).norm() <= 1e-6 * x.norm()


def test_loss_is_the_mean_over_valid_tokens() -> None:
    state, made = fresh(), batch()
    made.targets[:, 10:] = IGNORE
    with torch.no_grad():
        table = state.model(made.tokens).log_softmax(-1)
    expected = -table[:, :10].gather(2, made.targets[:, :10, None]).mean()
    assert step(state, made) == pytest.approx(float(expected), rel=1e-5)
    assert train_step(state, made, objective(state), StepSettings(6, 1.0)).weight == 60


def test_a_batch_without_a_valid_token_changes_nothing() -> None:
    state, made = fresh(), batch()
    step(state, made)
    before = weights(state)
    made.targets.fill_(IGNORE)
    tokens = state.counters.tokens
    assert step(state, made) == 0.0
    assert all(torch.equal(x, y) for x, y in zip(before, weights(state), strict=True))
    # The run moves on nevertheless: one over such data alone must end.
    assert (state.counters.step, state.counters.samples, state.counters.tokens) == (2, 12, tokens)


def test_an_injected_nan_stops_before_the_update() -> None:
    state = fresh()
    step(state, batch())
    before = weights(state)

    class Poisoned(LanguageModelLoss):
        def forward(self, *args: Any, **named: Any) -> torch.Tensor:
            return super().forward(*args, **named) * float("nan")

    with pytest.raises(TrainingError, match="step 1: loss nan"):
        train_step(state, batch(), Poisoned(state.model, bf16=False), StepSettings(6, 1.0))  # type: ignore[arg-type]
    assert all(torch.equal(x, y) for x, y in zip(before, weights(state), strict=True))
    assert all(p.grad is None for p in state.model.parameters())
    step(state, batch(seed=1))  # and the run can go on


def test_one_adamw_step_equals_torchs_on_transformers_model(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    from model.checkpoint import save_model

    state, made = fresh("adamw"), batch()
    save_model(state.model, tmp_path)  # type: ignore[arg-type]
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    matrices = [p for n, p in theirs.named_parameters() if "_proj" in n]
    others = [p for n, p in theirs.named_parameters() if "_proj" not in n]
    optimizer = torch.optim.AdamW(
        [{"params": matrices}, {"params": others, "weight_decay": 0.0}], lr=1e-2, betas=(0.9, 0.95), weight_decay=0.1
    )
    logits = theirs(made.tokens).logits
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), made.targets.flatten()).backward()
    torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
    optimizer.step()
    step(state, made)
    save_model(state.model, tmp_path / "after")  # type: ignore[arg-type]
    before, after = (AutoModelForCausalLM.from_pretrained(path).state_dict() for path in (tmp_path, tmp_path / "after"))
    for name, expected in theirs.state_dict().items():
        moved = (expected - before[name]).norm()
        assert moved > 0
        assert (after[name] - expected).norm() < 1e-3 * moved, name


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_learns(optimizer: str) -> None:
    state, made = fresh(optimizer), batch()
    losses = [step(state, made) for _ in range(40)]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_restored_state_goes_on_bit_for_bit(optimizer: str, tmp_path: Path) -> None:
    straight = fresh(optimizer)
    for i in range(3):
        step(straight, batch(seed=i))
    states.save(straight, tmp_path, fingerprint={"a": 1}, keep=2)
    expected = [step(straight, batch(seed=i)) for i in range(3, 6)]
    resumed = fresh(optimizer)
    step(resumed, batch(seed=99))  # a different past, to be overwritten
    states.restore(resumed, states.saved_states(tmp_path)[-1], fingerprint={"a": 1})
    assert [step(resumed, batch(seed=i)) for i in range(3, 6)] == expected
    assert all(torch.equal(x, y) for x, y in zip(weights(straight), weights(resumed), strict=True))
    assert resumed.counters == straight.counters


def test_states_are_pruned_checked_and_matched(tmp_path: Path) -> None:
    state = fresh()
    for i in range(4):
        step(state, batch(seed=i))
        states.save(state, tmp_path, fingerprint={"model": "x"}, keep=2)
    saved = states.saved_states(tmp_path)
    assert [p.name for p in saved] == ["step-00000003", "step-00000004"]
    with pytest.raises(TrainingError, match="model was 'x', is 'y'"):
        states.restore(state, saved[-1], fingerprint={"model": "y"})
    path = saved[-1] / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"weights\.safetensors: damaged"):
        states.restore(state, saved[-1], fingerprint={"model": "x"})


def test_the_best_state_stays_beside_the_newest(tmp_path: Path) -> None:
    state = fresh()
    for i in range(5):
        step(state, batch(seed=i))
        if i == 1:
            state.counters.best_step, state.counters.best_loss = 2, 3.5
        states.save(state, tmp_path, fingerprint={}, keep=2)
    assert [p.name for p in states.saved_states(tmp_path)] == ["step-00000002", "step-00000004", "step-00000005"]
    resumed = fresh()
    states.restore(resumed, states.saved_states(tmp_path)[-1], fingerprint={})
    assert (resumed.counters.best_step, resumed.counters.best_loss) == (2, 3.5)


def test_a_full_disk_in_the_middle_of_a_save_leaves_the_states_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = fresh()
    step(state, batch())
    states.save(state, tmp_path, fingerprint={}, keep=2)
    step(state, batch(seed=1))
    whole = states.save_file

    def full(tensors: Any, path: Path) -> None:
        if path.name.startswith("optimizer"):
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        whole(tensors, path)

    monkeypatch.setattr(states, "save_file", full)
    with pytest.raises(TrainingError, match=r"step-00000002: .*No space left.*make room and resume"):
        states.save(state, tmp_path, fingerprint={}, keep=2)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]
    states.restore(fresh(), tmp_path / "step-00000001", fingerprint={})


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_only_what_is_trained_is_updated_and_saved(optimizer: str, tmp_path: Path) -> None:
    model = random_model(CONFIG)
    assert isinstance(model, GPT)
    model.blocks[-1].requires_grad_(True)
    name = "muon" if optimizer == "muon" else "adamw"
    state = TrainState(model, make_optimizers(model, name, lr=1e-2, matrix_lr=0.02, weight_decay=0.1, beta2=0.95))
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    step(state, batch())
    changed = {key for key, p in model.named_parameters() if not torch.equal(p, before[key])}
    assert changed == {key for key in before if key.startswith("blocks.1.")}
    states.save(state, tmp_path, fingerprint={}, keep=1)
    assert set(load_file(tmp_path / "step-00000001" / "weights.safetensors")) == changed


def test_dropout_is_a_function_of_seed_and_step() -> None:
    """So a resumed run draws what the unbroken one would have drawn, whatever was drawn in between."""

    def losses(noise: bool) -> list[float]:
        config = tiny_config("gpt2", vocab_size=64, bos_token_id=0, eos_token_ids=(0,), context_length=32, dropout=0.3)
        model = random_model(config).requires_grad_(True)
        state = TrainState(model, make_optimizers(model, "adamw", lr=0.01, matrix_lr=1, weight_decay=0, beta2=0.9))
        found = []
        for i in range(3):
            found.append(step(state, batch(seed=i)))
            if noise:
                torch.randn(7)
        return found

    assert losses(False) == losses(True)


def test_class_weights_divide_as_torchs_do() -> None:
    config = tiny_config(
        "gpt2", vocab_size=64, bos_token_id=0, eos_token_ids=(0,), context_length=32, labels=("a", "b")
    )
    model = random_model(config).requires_grad_(True)
    state = TrainState(model, make_optimizers(model, "adamw", lr=0.01, matrix_lr=1, weight_decay=0, beta2=0.9))
    tokens, lengths = batch().tokens, torch.tensor([32, 5, 9, 1, 20, 32])
    labels, weights = torch.tensor([0, 1, 0, 0, 1, 0]), torch.tensor([0.5, 2.0])
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(model(tokens, lengths), labels, weight=weights)
    made = LabelBatch(tokens, lengths, labels, weights[labels])
    metrics = train_step(state, made, ClassificationLoss(model, bf16=False), StepSettings(4, 1.0))  # type: ignore[arg-type]
    assert metrics.loss == pytest.approx(float(expected), rel=1e-5)
    assert (metrics.weight, metrics.tokens) == (6.0, 99)


def test_checkpointing_changes_no_gradient() -> None:
    grads = []
    for checkpointing in (False, True):
        state = fresh()
        state.model.checkpointing = checkpointing  # type: ignore[assignment]
        state.model.train()
        objective(state)(**batch().tensors()).backward()
        grads.append([p.grad.clone() for p in trainable(state.model)])  # type: ignore[union-attr]
    assert all(torch.equal(x, y) for x, y in zip(*grads, strict=True))


@given(
    vocab=st.integers(2, 70),
    rows=st.integers(1, 40),
    masked=st.floats(0, 1),
    chunk=st.integers(1, 900),
    seed=st.integers(0, 99),
)
def test_the_chunked_head_is_cross_entropy(vocab: int, rows: int, masked: float, chunk: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, 8, generator=generator, requires_grad=True)
    weight = torch.randn(vocab, 8, generator=generator, requires_grad=True)
    targets = torch.randint(0, vocab, (rows,), generator=generator)
    targets[torch.rand(rows, generator=generator) < masked] = IGNORE
    expected = torch.nn.functional.cross_entropy(hidden @ weight.t(), targets, reduction="sum")
    with patch.object(head, "_CHUNK_ELEMENTS", {"cpu": chunk}), patch.object(head, "_LEAST_ROWS", 1):
        found = head.summed_cross_entropy(hidden, weight, targets)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-5)
    for x, y in zip(
        torch.autograd.grad(found / 3, (hidden, weight)),
        torch.autograd.grad(expected / 3, (hidden, weight)),
        strict=True,
    ):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)


def test_the_head_divides_by_the_weight_exactly_in_bfloat16_too() -> None:
    """A weight such as 5,000 has no bfloat16 of its own: rounding it would scale the whole model's gradient."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(5000, 8, generator=generator).bfloat16().requires_grad_(True)
    weight = torch.randn(70, 8, generator=generator).requires_grad_(True)
    targets = torch.randint(0, 70, (5000,), generator=generator)
    (whole,) = torch.autograd.grad(head.summed_cross_entropy(hidden, weight, targets), hidden)
    (mean,) = torch.autograd.grad(head.summed_cross_entropy(hidden, weight, targets) / 5000, hidden)
    assert float(mean.double().norm() * 5000 / whole.double().norm()) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_in_tiles_is_attention(architecture: str, masked: bool) -> None:
    """What a compiled step computes on a CPU; here with tiles that don't divide the row."""
    config = tiny_config(architecture, vocab_size=64, bos_token_id=0, eos_token_ids=(0,), context_length=32)
    model, found = random_model(config).requires_grad_(True), []
    tokens = batch().tokens[:, :29]
    documents = (tokens < 9).cumsum(1) if masked else None
    for compiling in (False, True):
        with (
            patch.object(attention, "_TILE", 8),
            patch.object(torch.compiler, "is_compiling", lambda now=compiling: now),
        ):
            logits = model(tokens, documents=documents)
        grads = torch.autograd.grad(logits.square().mean(), list(model.parameters()))
        found.append([logits.detach(), *grads])
    for plain, tiled in zip(*found, strict=True):
        torch.testing.assert_close(plain, tiled, rtol=1e-4, atol=1e-5)


class Diary:
    """What a run tells."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def update(self, metrics: Metrics, counters: Counters, progress: float, seconds: float) -> None:
        self.lines.append(f"update {counters.step}")

    def validation(self, values: dict[str, float], counters: Counters) -> None:
        self.lines.append(f"validation {counters.step}")

    def sample(self, text: str, counters: Counters) -> None:
        self.lines.append(f"sample {counters.step}")


def test_a_run_by_the_clock_cools_down_and_ends_measured_and_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that jumps: samples and evaluations take time too, and may be what ends the run."""
    state, diary, now = fresh(), Diary(), [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    class Slow(LanguageModelLoss):
        def forward(self, *args: Any, **named: Any) -> torch.Tensor:
            now[0] += 4
            return super().forward(*args, **named)

    class Endless:
        samples_per_epoch = 10

        def batch(self, cursor: int, rows: int) -> TokenBatch:
            return batch(rows, cursor)

    def samples() -> list[str]:
        now[0] += 5
        return ["text"]

    factors: list[float] = []
    step_settings = StepSettings(6, 1.0)
    schedule = Schedule(warmup=0, cooldown=0.5, floor=0.0, max_steps=None, max_seconds=30)
    monkeypatch.setattr(
        "training.loop.set_learning_rates",
        lambda optimizers, factor: (factors.append(factor), set_learning_rates(optimizers, factor)),
    )
    hooks = Hooks(
        lambda: {"validation_loss": 3.0}, lambda: states.save(state, tmp_path, fingerprint={}, keep=2), samples
    )
    run(
        state, Endless(), Slow(state.model, bf16=False), schedule, step_settings,  # type: ignore[arg-type]
        RunSettings(batch_rows=6, eval_every=100, save_every=100, sample_every=2), hooks, diary,
    )  # fmt: skip
    steps = state.counters.step
    assert state.counters.seconds >= 30
    assert diary.lines[-1] == f"validation {steps}"
    assert diary.lines.count(f"sample {steps}") == (steps % 2 == 0)
    assert (state.counters.best_step, state.counters.best_loss) == (steps, 3.0)
    assert [path.name for path in states.saved_states(tmp_path)] == [f"step-{steps:08d}"]
    assert factors[0] == 1.0
    assert factors == sorted(factors, reverse=True)
    assert factors[-1] < 0.6


def test_the_cosine_ends_at_its_floor() -> None:
    cosine = Schedule(warmup=10, cooldown=1.0, floor=0.1, max_steps=100, max_seconds=None, shape="cosine")
    assert cosine.factor(50, 0) == pytest.approx(0.55)
    assert cosine.factor(100, 0) == pytest.approx(0.1)
    assert cosine.factor(4, 0) < 0.5


def test_schedule() -> None:
    by_steps = Schedule(warmup=10, cooldown=0.5, floor=0.1, max_steps=100, max_seconds=None)
    assert by_steps.factor(0, 0) == pytest.approx(0.1)
    assert by_steps.factor(9, 0) == by_steps.factor(50, 0) == 1.0
    assert by_steps.factor(75, 0) == pytest.approx(0.55)
    assert by_steps.factor(100, 0) == pytest.approx(0.1)
    by_clock = Schedule(warmup=0, cooldown=0.4, floor=0.0, max_steps=None, max_seconds=60)
    assert by_clock.progress(10**9, 30) == 0.5
    assert by_clock.factor(5, 48) == pytest.approx(0.5)
    both = Schedule(warmup=0, cooldown=0.4, floor=0.0, max_steps=10, max_seconds=60)
    assert both.progress(9, 3) == 0.9


def test_rates_follow_each_groups_peak() -> None:
    state = fresh("muon")
    set_learning_rates(state.optimizers, 0.5)
    assert [g["lr"] for o in state.optimizers for g in o.param_groups] == [0.01, 0.005]
    owned = [id(p) for o in state.optimizers for g in o.param_groups for p in g["params"]]
    assert sorted(owned) == sorted(id(p) for p in trainable(state.model))  # every parameter once, the tied one too
