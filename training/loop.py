"""The one training loop: train_step(state, batch) -> metrics, and the run around it.

Every task and every number of processes takes this path; they differ in data and objective.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from training.data.batch import Batch, Source
from training.distributed import World, gradient_sync
from training.errors import TrainingError
from training.optim import Schedule, set_learning_rates, trainable
from training.state import Counters, TrainState

ALONE = World(0, 1, torch.device("cpu"))


@dataclass(frozen=True)
class StepSettings:
    """How one update is made. `micro_batch`: rows computed at a time, for memory; it does not change the result. `seed`: of
    random draws (dropout), which are a function of it, the step and the process alone."""

    micro_batch: int
    clip: float
    seed: int = 0


@dataclass(frozen=True)
class RunSettings:
    """How often a run does what; `sample_every` 0: never."""

    batch_rows: int
    eval_every: int
    save_every: int
    sample_every: int = 0


@dataclass(frozen=True)
class Metrics:
    """What one update saw, over all processes: mean loss (nats) over the batch's weight, gradient norm before clipping,
    learning-rate factor, the weight (valid tokens, class weights, pairs), tokens computed with."""

    loss: float
    grad_norm: float
    lr_factor: float
    weight: float
    tokens: int


class Recording(Protocol):
    """What the loop tells of its progress; training.progress.Recorder is one."""

    def update(self, metrics: Metrics, counters: Counters, progress: float, seconds: float) -> None:
        """After each update, which took `seconds`."""
        ...

    def validation(self, values: dict[str, float], counters: Counters) -> None:
        """After each evaluation."""
        ...

    def sample(self, text: str, counters: Counters) -> None:
        """A text sample of the model as it is."""
        ...


@dataclass(frozen=True)
class Hooks:
    """What a run does on the way. `evaluate` gives at least "validation_loss" (nats); `save` keeps the state; `samples` are
    texts of the model. All processes call all of them."""

    evaluate: Callable[[], dict[str, float]]
    save: Callable[[], None]
    samples: Callable[[], list[str]] | None = None


def train_step(
    state: TrainState,
    batch: Batch,
    module: nn.Module,
    settings: StepSettings,
    lr_factor: float = 1.0,
    world: World = ALONE,
) -> Metrics:
    """One update from one batch, this process's share of it, cut into micro-batches.

    `module` is the objective (training.objectives), plain, compiled or wrapped: a micro-batch's tensors -> the sum of its losses.
    The gradient is of the sum over all micro-batches and processes divided by the sum of their weights, so the cut changes
    nothing. A batch whose weight is 0 updates nothing. TrainingError, before any weight changes, when loss or gradient is not
    finite.
    """
    weight, n_tokens, rows = world.sum(batch.weight, batch.n_tokens, len(batch))
    counters = state.counters
    if weight == 0:  # it still counts as a step: a run over such data must end
        counters.step += 1
        counters.samples += int(rows)
        return Metrics(0.0, 0.0, lr_factor, 0.0, int(n_tokens))
    torch.manual_seed((settings.seed * 1_000_003 + counters.step) * world.size + world.rank)
    module.train()
    total = _backward(batch, module, settings.micro_batch, world, weight)
    norm = torch.nn.utils.clip_grad_norm_(trainable(state.model), settings.clip)
    grad_norm = float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
    (loss,) = world.sum(float(total))
    if not (math.isfinite(loss) and math.isfinite(grad_norm)):
        for optimizer in state.optimizers:
            optimizer.zero_grad(set_to_none=True)
        raise TrainingError(
            f"step {counters.step}: loss {loss}, gradient norm {grad_norm}; the weights were not changed. Resume from the "
            "last saved state with a lower learning rate, or look at the data of this step"
        )
    set_learning_rates(state.optimizers, lr_factor)
    for optimizer in state.optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    counters.step += 1
    counters.samples += int(rows)
    counters.tokens += int(n_tokens)
    return Metrics(loss, grad_norm, lr_factor, weight, int(n_tokens))


def _backward(batch: Batch, module: nn.Module, micro_batch: int, world: World, weight: float) -> Tensor:
    """Add the batch's gradients up; this process's share of the mean loss, on the device."""
    total = torch.zeros((), dtype=torch.float64, device=world.device)
    for start in range(0, len(batch), micro_batch):
        micro = batch.rows(start, start + micro_batch).to(world.device)
        with gradient_sync(module, start + micro_batch >= len(batch)):
            loss = module(**micro.tensors()) / weight
            (loss * world.size).backward()  # gradients of several processes are averaged, not added
        total += loss.detach()
    return total


def run(
    state: TrainState,
    source: Source,
    module: nn.Module,
    schedule: Schedule,
    step_settings: StepSettings,
    settings: RunSettings,
    hooks: Hooks,
    recorder: Recording,
    world: World = ALONE,
) -> None:
    """Update until the schedule's end; evaluate, sample and save on the way, and evaluate and save at the end.

    The state with the lowest validation loss is always among the saved ones. Time spent on evaluation counts as the run's: a
    run of N minutes ends after N minutes.
    """
    counters = state.counters
    last = time.monotonic()
    evaluated_at = saved_at = -1
    while (progress := schedule.progress(counters.step, counters.seconds)) < 1.0:
        factor = schedule.factor(counters.step, counters.seconds)
        begun = time.monotonic()
        batch = source.batch(*world.share(counters.samples, settings.batch_rows))
        metrics = train_step(state, batch, module, step_settings, factor, world)
        recorder.update(metrics, counters, progress, time.monotonic() - begun)
        last = _pass_time(counters, last, world)
        if settings.sample_every and hooks.samples and counters.step % settings.sample_every == 0:
            for text in hooks.samples():
                recorder.sample(text, counters)
        improved = False
        if counters.step % settings.eval_every == 0:
            improved = _evaluate(counters, hooks, recorder, world)
            evaluated_at = counters.step
        last = _pass_time(counters, last, world)
        if improved or counters.step % settings.save_every == 0:
            hooks.save()
            saved_at = counters.step
    improved = False
    if evaluated_at != counters.step or counters.best_step < 0:
        improved = _evaluate(counters, hooks, recorder, world)
    if improved or saved_at != counters.step:
        hooks.save()


def _evaluate(counters: Counters, hooks: Hooks, recorder: Recording, world: World) -> bool:
    """Measure, and note whether it is the best so far; as the main process sees it, so that all do the same next."""
    values = hooks.evaluate()
    (loss,) = world.sum(values["validation_loss"] if world.is_main else 0.0)
    recorder.validation(values, counters)
    if counters.best_step >= 0 and not loss < counters.best_loss:
        return False
    counters.best_step, counters.best_loss = counters.step, loss
    return True


def _pass_time(counters: Counters, last: float, world: World) -> float:
    """Count the time since `last` as the main process saw it, so that all agree when the run ends; the time now."""
    now = time.monotonic()
    (passed,) = world.sum(now - last if world.is_main else 0.0)
    counters.seconds += passed
    return now
