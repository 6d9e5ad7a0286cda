"""One update, and one saved state, exactly."""

from pathlib import Path

import pytest
import torch
from tiny import random_model, tiny_config

from model.errors import CheckpointError
from model.gpt import GPT
from training import state as states
from training.data.loader import IGNORE, Batch
from training.errors import TrainingError
from training.loop import StepSettings, language_model_loss, train_step
from training.optim import Schedule, make_optimizers, set_learning_rates, trainable
from training.state import TrainState

CONFIG = tiny_config("llama", vocab_size=64, bos_token_id=0, eos_token_ids=(0,), context_length=32)


def fresh(optimizer: str = "muon") -> TrainState:
    model = random_model(CONFIG).requires_grad_(True)
    assert isinstance(model, GPT)
    name = "muon" if optimizer == "muon" else "adamw"
    return TrainState(model, make_optimizers(model, name, lr=1e-2, matrix_lr=0.02, weight_decay=0.1, beta2=0.95))


def batch(rows: int = 6, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 64, (rows, 33), generator=generator)
    return Batch(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())


def step(state: TrainState, made: Batch, micro_batch: int = 6, clip: float = 1.0) -> float:
    loss = language_model_loss(state.model, bf16=False, compiled=False)  # type: ignore[arg-type]
    return train_step(state, made, loss, StepSettings(micro_batch, clip), 1.0).loss


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
    assert state.counters.tokens == 60


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
    poisoned = language_model_loss(state.model, bf16=False, compiled=False)  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match="step 1: loss nan"):
        train_step(state, batch(), lambda b: poisoned(b) * float("nan"), StepSettings(6, 1.0), 1.0)
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
    with torch.no_grad():
        assert (state.model(made.tokens) - theirs(made.tokens).logits).abs().max() < 1e-3
        assert (state.model(made.tokens) - logits).abs().max() > 0.05  # the step did move it


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
