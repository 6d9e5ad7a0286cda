"""The one training loop: train_step(state, batch) -> metrics, and the run around it."""

import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, TextIO

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from model.files import write_whole
from model.gpt import GPT
from training.data.loader import IGNORE, Batch
from training.errors import TrainingError
from training.optim import Schedule, set_learning_rates, trainable
from training.state import TrainState

LossFunction = Callable[[Batch], Tensor]  # a micro-batch -> the sum of its tokens' losses, float32 scalar


class Source(Protocol):
    """Where batches come from: a pure function of the cursor."""

    def batch(self, cursor: int, rows: int) -> Batch:
        """Samples `cursor` to `cursor` + `rows` - 1."""
        ...


@dataclass(frozen=True)
class StepSettings:
    """How one update is made. `micro_batch`: rows computed at a time, for memory; it does not change the result."""

    micro_batch: int
    clip: float


@dataclass(frozen=True)
class RunSettings:
    """How often a run does what."""

    batch_rows: int
    log_every: int
    eval_every: int
    save_every: int


@dataclass(frozen=True)
class Metrics:
    """What one update saw: mean loss over its valid tokens (nats), gradient norm before clipping, learning-rate
    factor."""

    loss: float
    grad_norm: float
    lr_factor: float
    tokens: int


def language_model_loss(model: GPT, *, bf16: bool, compiled: bool) -> LossFunction:
    """The summed cross-entropy of next tokens; `bf16` computes the products in bfloat16, weights and loss in
    float32."""

    def loss_sum(tokens: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast(tokens.device.type, torch.bfloat16, enabled=bf16):
            logits = model(tokens)
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORE, reduction="sum")

    function = torch.compile(loss_sum) if compiled and can_compile() else loss_sum
    return lambda batch: function(batch.tokens, batch.targets)


def can_compile() -> bool:
    """Whether torch.compile has what it needs: a GPU's own code generator, or a C++ compiler."""
    return torch.cuda.is_available() or any(shutil.which(name) for name in ("g++", "clang++"))


def train_step(
    state: TrainState, batch: Batch, loss_function: LossFunction, settings: StepSettings, lr_factor: float
) -> Metrics:
    """One update from one batch, cut into micro-batches: the loss is the sum over valid tokens divided by their
    number, so the cut changes nothing. A batch without a valid token updates nothing.

    TrainingError, before any weight changes, when loss or gradient is not finite.
    """
    n_valid = int((batch.targets != IGNORE).sum())
    if n_valid == 0:  # it still counts as a step: a run over such data must end
        state.counters.step += 1
        state.counters.samples += len(batch.tokens)
        return Metrics(0.0, 0.0, lr_factor, 0)
    state.model.train()
    total = 0.0
    for micro in batch.micro_batches(settings.micro_batch):
        loss = loss_function(micro) / n_valid
        loss.backward()
        total += loss.item()
    norm = float(torch.nn.utils.clip_grad_norm_(trainable(state.model), settings.clip))
    if not (math.isfinite(total) and math.isfinite(norm)):
        for optimizer in state.optimizers:
            optimizer.zero_grad(set_to_none=True)
        raise TrainingError(
            f"step {state.counters.step}: loss {total}, gradient norm {norm}; the weights were not changed. Resume from the "
            "last saved state with a lower learning rate, or look at the data of this step"
        )
    set_learning_rates(state.optimizers, lr_factor)
    for optimizer in state.optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    state.counters.step += 1
    state.counters.samples += len(batch.tokens)
    state.counters.tokens += n_valid
    return Metrics(total, norm, lr_factor, n_valid)


def run(
    state: TrainState,
    source: Source,
    loss_function: LossFunction,
    schedule: Schedule,
    step_settings: StepSettings,
    settings: RunSettings,
    *,
    log: Path,
    evaluate: Callable[[], float],
    save: Callable[[], object],
) -> None:
    """Update until the schedule's end; evaluate, save and write `log` (JSON lines) on the way, and at the end.

    `evaluate` returns the validation loss in nats a token; `save` keeps the state.
    """
    counters = state.counters
    _forget_after(counters.step, log)
    last = time.monotonic()
    with log.open("a", encoding="utf-8") as file, tqdm(unit=" tok", unit_scale=True, disable=None) as bar:
        while (progress := schedule.progress(counters.step, counters.seconds)) < 1.0:
            factor = schedule.factor(counters.step, counters.seconds)
            batch = source.batch(counters.samples, settings.batch_rows)
            metrics = train_step(state, batch, loss_function, step_settings, factor)
            now = time.monotonic()
            rate = metrics.tokens / (now - last)
            bar.update(metrics.tokens)
            bar.set_postfix_str(f"step {counters.step} loss {metrics.loss:.3f} {progress:.0%} done")
            if counters.step % settings.log_every == 0:
                _write(file, counters.step, counters.tokens, {**asdict(metrics), "tokens_per_second": round(rate)})
            if counters.step % settings.eval_every == 0:
                loss = evaluate()
                _write(
                    file, counters.step, counters.tokens, {"validation_loss": loss, "seconds": round(counters.seconds)}
                )
                bar.write(f"step {counters.step}: {counters.tokens:,} tokens, validation loss {loss:.4f}")
            # Evaluation counts as time of the run: a run of N minutes ends after N minutes.
            now = time.monotonic()
            counters.seconds += now - last
            last = now
            if counters.step % settings.save_every == 0:
                save()
    save()


def _forget_after(step: int, log: Path) -> None:
    """Take out of the log what a killed run wrote after its last saved state (the last line perhaps half): it is done again."""
    if not log.is_file():
        return
    kept = []
    for line in log.read_text("utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except ValueError:
            break
    write_whole(log, lambda part: part.write_text("".join(kept), "utf-8"))


def _write(file: TextIO, step: int, tokens: int, values: dict[str, float]) -> None:
    file.write(json.dumps({"step": step, "tokens_seen": tokens, **values}) + "\n")
    file.flush()
