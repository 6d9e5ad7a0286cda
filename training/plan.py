"""What a run would do, before it starts (`--dry-run`): its parameters, data, arithmetic, time, memory and disk. Nothing is
written; the speed is measured on a few real updates of the model in memory.
"""

import math
import shutil
import textwrap
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from model.config import ModelConfig
from model.errors import ConfigError
from training.costs import (
    MemoryEstimate,
    ParameterCount,
    count_parameters,
    optimizer_bytes,
    training_flops,
    training_memory,
)
from training.data.batch import Batch
from training.devices import Peak, describe_device, memory_free, peak_flops
from training.distributed import join
from training.fit import Job, max_steps, set_threads
from training.recipe import OptimSettings, RunSection
from training.trial import Speed, measure_speed

_MANY_EPOCHS = 10  # up to four cost little, ten still help (Muennighoff et al., 2023)


@dataclass(frozen=True)
class Plan:
    """A run that has not begun. `samples_per_epoch` None: not known before the data is read; `data`: what is read, in words;
    `state_bytes`: of one saved state; `steps`: the updates that the recipe asks for, None when the clock alone ends it."""

    name: str
    config: ModelConfig
    parameters: ParameterCount
    data: str
    samples_per_epoch: int | None
    batch_rows: int
    steps: int | None
    flops_per_token: float
    speed: Speed
    peak: Peak
    device: str
    memory: MemoryEstimate
    memory_free: int
    state_bytes: int
    disk_free: int
    optim: OptimSettings
    run: RunSection

    @property
    def updates(self) -> int:
        """By count or by the clock, whichever ends the run first; by the clock, evaluations' time not taken off."""
        ends = [math.ceil(self.run.minutes * 60 / self.speed.seconds_per_update)] if self.run.minutes else []
        return min([*ends, *([self.steps] if self.steps else [])])

    @property
    def seconds(self) -> float:
        """Of all updates."""
        return self.updates * self.speed.seconds_per_update

    @property
    def tokens(self) -> float:
        """Of all updates."""
        return self.updates * self.speed.tokens_per_update

    @property
    def flops(self) -> float:
        """Of all updates."""
        return self.tokens * self.flops_per_token

    @property
    def epochs(self) -> float | None:
        """Passes over the training data."""
        return self.updates * self.batch_rows / self.samples_per_epoch if self.samples_per_epoch else None

    @property
    def disk(self) -> int:
        """Bytes of the saved states: the newest, the best, and one being written."""
        return (self.run.keep + 2) * self.state_bytes

    @property
    def warnings(self) -> list[str]:
        """What is likely to go wrong."""
        found = []
        if self.memory.total > self.memory_free:
            found.append(
                "memory: the estimate is above what is free; a smaller micro_batch or checkpointing needs less"
            )
        if self.disk > self.disk_free:
            found.append("disk: the saved states need more than is free; keep fewer, or name another directory")
        if self.updates <= self.optim.warmup_steps:
            found.append(f"the run ends within its warm-up of {self.optim.warmup_steps} updates")
        if self.epochs is not None and self.epochs > _MANY_EPOCHS:
            found.append(
                f"the data is read {self.epochs:.0f} times; more of it, or a smaller model, would serve better"
            )
        return found

    def table(self, width: int = 110) -> str:
        """For a person, in lines of at most about `width` characters."""
        lines = [f"{self.name}: what the run would do (nothing was started or written)", ""]
        for name, text in [*_what(self), *_costs(self)]:
            lines += textwrap.wrap(text, width, initial_indent=f"{name:<13}", subsequent_indent=" " * 13)
        return "\n".join([*lines, *(f"WARNING      {warning}" for warning in self.warnings)])


def plan_job(job: Job, directory: Path, *, name: str, data: str, sized: bool = True) -> Plan:
    """The plan of a task's job that would run in `directory`. The job's model is used up: it has made some updates after.

    `data`: what is read, in words; `sized` False when the source's samples_per_epoch is not the data's. ConfigError as fit.
    """
    with join(job.run.device) as world:
        if world.size > 1:
            raise ConfigError("a dry run plans for one process; start it without torchrun")
        steps = max_steps(job) if sized else job.run.steps
        if steps is None and job.run.minutes is None:
            raise ConfigError(
                "how much data there is isn't known before it is read; give minutes or steps to plan with"
            )
        set_threads(job.run)
        model, optim, run = job.objective.model, job.optim, job.run
        parameters = count_parameters(model)
        micro = job.source.batch(0, min(run.micro_batch, job.batch_rows))
        memory = training_memory(
            model,
            tokens=_computed_tokens(micro),
            bf16=job.objective.bf16,
            checkpointing=run.checkpointing,
            optimizer=optim.optimizer,
        )
        free = memory_free(world.device)
        speed = measure_speed(job, world)
        return Plan(
            name=name,
            config=model.config,
            parameters=parameters,
            data=data,
            samples_per_epoch=job.source.samples_per_epoch if sized else None,
            batch_rows=job.batch_rows,
            steps=steps,
            flops_per_token=training_flops(
                model, job.tokens_per_sample or round(speed.tokens_per_update / job.batch_rows)
            ),
            speed=speed,
            peak=peak_flops(world.device),
            device=describe_device(world.device),
            memory=memory,
            memory_free=free,
            state_bytes=4 * parameters.trainable + optimizer_bytes(model, optim.optimizer),
            disk_free=shutil.disk_usage(_there(directory)).free,
            optim=optim,
            run=run,
        )


def _what(plan: Plan) -> list[tuple[str, str]]:
    """What is trained, on what, how: the table's upper part."""
    config, count, optim, run = plan.config, plan.parameters, plan.optim, plan.run
    kind = "classifier" if config.labels else "language model"
    rate = (
        f"{optim.matrix_lr:g} for matrices, {optim.lr:g} for the rest" if optim.optimizer == "muon" else f"{optim.lr:g}"
    )
    fall = "half a cosine" if optim.schedule == "cosine" else f"flat, then down over the last {optim.cooldown:.0%}"
    precision = "bfloat16 products, float32 weights" if run.precision_bf16 else "float32"
    trained = count.trainable / count.total
    compiled = "compiled" if plan.speed.compiled else "not compiled"
    return [
        (
            "model",
            f"{config.architecture} {kind}: {config.n_layer} layers x {config.d_model}, {config.n_head} heads, "
            f"{config.n_kv_head} of keys and values, context {config.context_length}, vocabulary {config.vocab_size:,}",
        ),
        (
            "parameters",
            f"{count.total:,}, of them {count.embedding:,} in embeddings; "
            + ("all trained" if count.trainable == count.total else f"{count.trainable:,} trained ({trained:.2%})"),
        ),
        ("data", plan.data),
        (
            "optimiser",
            f"{optim.optimizer}, peak learning rate {rate}, weight decay {optim.weight_decay:g}, clip {optim.clip:g}",
        ),
        ("schedule", f"{optim.schedule}: {optim.warmup_steps} updates of warm-up, {fall}, to {optim.floor:.0%}"),
        ("device", f"{plan.device}; peak {si(plan.peak.flops, 'FLOP/s')} ({plan.peak.source})"),
        ("precision", ", ".join([precision, compiled, *(["checkpointing"] if run.checkpointing else [])])),
    ]


def _costs(plan: Plan) -> list[tuple[str, str]]:
    """How much of everything: the table's lower part."""
    speed, run, memory = plan.speed, plan.run, plan.memory
    pieces = math.ceil(plan.batch_rows / run.micro_batch)
    cut = f"in {pieces} micro-batches of at most {run.micro_batch}" if pieces > 1 else "at once"
    epochs = "" if plan.epochs is None else f", {plan.epochs:.2f} passes over the data"
    mfu = speed.tokens_per_second * plan.flops_per_token / plan.peak.flops
    return [
        ("update", f"{speed.tokens_per_update:,.0f} tokens: {plan.batch_rows} rows {cut}"),
        ("run", f"{plan.updates:,} updates{' at most' * _by_clock(plan)}, {si(plan.tokens, ' tokens')}{epochs}"),
        ("arithmetic", f"{si(plan.flops_per_token, 'FLOP')} a token, {plan.flops:.2g} FLOP in all"),
        ("speed", f"{speed.tokens_per_second:,.0f} tokens/s, {mfu:.0%} of the peak ({speed.how})"),
        ("time", _time(plan)),
        (
            "memory",
            f"about {_bytes(memory.total)}: weights {_bytes(memory.weights)}, gradients {_bytes(memory.gradients)}, optimiser "
            f"{_bytes(memory.optimizer)}, activations {_bytes(memory.activations)} (estimated, not compiled); "
            f"{_bytes(speed.memory)} in use by the process after the updates measured; {_bytes(plan.memory_free)} were free",
        ),
        (
            "disk",
            f"up to {_bytes(plan.disk)} for saved states of {_bytes(plan.state_bytes)}: the newest {run.keep}, the best, and one "
            f"being written; {_bytes(plan.disk_free)} are free",
        ),
    ]


def _by_clock(plan: Plan) -> bool:
    return plan.steps is None or plan.updates < plan.steps


def _time(plan: Plan) -> str:
    if _by_clock(plan):
        return f"{plan.run.minutes:g} minutes by the clock; evaluations and samples in it leave fewer updates"
    return f"{tqdm.format_interval(plan.seconds)} of updates; evaluations and samples come on top"


def _computed_tokens(batch: Batch) -> int:
    """Padding included: activations are held for it too."""
    return sum(t.numel() for name, t in batch.tensors().items() if t is not None and name.endswith("tokens"))


def _there(directory: Path) -> Path:
    """The directory, or the nearest above it that exists."""
    return next(path for path in (directory.absolute(), *directory.absolute().parents) if path.is_dir())


def si(value: float, unit: str) -> str:
    """With about three figures: 1234567, "FLOP" -> "1.23 MFLOP"."""
    text = tqdm.format_sizeof(value)
    return f"{text[:-1]} {text[-1]}{unit}" if text[-1].isalpha() else f"{text} {unit}".replace("  ", " ")


def _bytes(value: float) -> str:
    return f"{value / 2**30:.1f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"
