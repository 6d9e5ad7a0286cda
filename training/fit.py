"""A task's run, from its parts to its last saved state: what pretraining, classification, instruction and preference tuning
share around the loop.

A run's directory holds `states/`, `log.jsonl` and `tensorboard/`; the task adds its data and its result.
"""

import copy
import ctypes
import math
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from model.errors import ConfigError
from model.files import sweep
from model.processors import available_cpus
from training import state as states
from training.compiling import compile_in_place
from training.costs import training_flops
from training.data.batch import Source
from training.devices import peak_flops
from training.distributed import World, each_alike, gather, join, wrap
from training.errors import TrainingError
from training.loop import Hooks, RunSettings, StepSettings, run
from training.objectives import Objective
from training.optim import Schedule, make_optimizers, trainable
from training.progress import Recorder, RunPlan
from training.recipe import OptimSettings, RunSection


@dataclass(frozen=True)
class Job:
    """What a task hands over. `objective` holds the model, in float32 with requires_grad as wanted; it is moved to the device.
    `batch_rows`: samples an update, over all processes. `fingerprint`: what a resumption must share, as JSON. `evaluate` measures
    objective.model as it is, and gives at least "validation_loss" in nats; `samples` are texts of it. `tokens_per_sample`: about
    how long a row is, for the model's FLOPs; `rows_per_sample`: 2 where a sample is a pair."""

    objective: Objective
    source: Source
    optim: OptimSettings
    run: RunSection
    batch_rows: int
    fingerprint: dict[str, Any]
    evaluate: Callable[[], dict[str, float]]
    samples: Callable[[], list[str]] | None = None
    tokens_per_sample: int | None = None
    rows_per_sample: int = 1


@dataclass(frozen=True)
class Outcome:
    """Where a run ended, and where its validation loss was lowest. `world`: the processes that ran it; the first writes the
    result."""

    counters: states.Counters
    world: World


def fit(job: Job, directory: Path, *, resume: bool) -> Outcome:
    """Train in `directory`, from its newest saved state with `resume`.

    ConfigError when the directory holds states and `resume` isn't set, or the batch can't be shared evenly; TrainingError as
    train_step and state.restore.
    """
    newest = check_directory(directory, resume=resume)
    with join(job.run.device) as world:
        if job.batch_rows % world.size:
            raise ConfigError(
                f"a batch of {job.batch_rows} rows can't be shared evenly by {world.size} processes; change the batch's size"
            )
        each_alike(job.fingerprint, world)
        if world.is_main:
            sweep(directory)
        set_threads(job.run)
        _trunk(job.objective).checkpointing = job.run.checkpointing
        # FSDP takes a model apart; the job keeps its own, whole, to measure and to export.
        parted = world.size > 1 and job.run.parallel == "fsdp"
        objective = (copy.deepcopy(job.objective) if parted else job.objective).to(world.device)
        compiled = job.run.compile and compile_in_place(objective, world.device)
        module = wrap(objective, world, job.run.parallel)
        state = states.TrainState(objective.model, optimizers(objective, job.optim))
        if newest:
            states.restore(state, newest, fingerprint=job.fingerprint)
            if not (directory / "states" / states.state_name(state.counters.best_step)).is_dir():
                state.counters.best_step, state.counters.best_loss = -1, math.inf  # deleted by hand: measured anew
        with _recorder(job, directory, world, state.counters.step) as recorder:
            if job.run.compile and not compiled:
                recorder.note("not compiled, so slower: there is no working C++ compiler (or Triton, for a GPU)")
            try:
                _run(job, directory, state, module, recorder, world)
            except KeyboardInterrupt:
                recorder.note(f"stopped at step {state.counters.step}; {_way_on(directory)}")
                raise
        if parted:
            gather(objective.model, job.objective.model)
        return Outcome(state.counters, world)


def _run(
    job: Job, directory: Path, state: states.TrainState, module: torch.nn.Module, recorder: Recorder, world: World
) -> None:
    options = job.run

    def measured(measure: Callable[[], Any]) -> Callable[[], Any]:
        def call() -> Any:
            if state.model is job.objective.model:
                return measure()
            gather(state.model, job.objective.model)
            job.objective.to(world.device)
            try:
                return measure()
            finally:
                job.objective.to("cpu")

        return call

    def save() -> None:
        states.save(
            state, directory / "states", fingerprint=job.fingerprint, keep=options.keep, write=world.is_main
        )  # fmt: skip
        world.barrier()

    run(
        state,
        job.source,
        module,
        schedule(job),
        StepSettings(options.micro_batch, job.optim.clip, options.seed),
        RunSettings(job.batch_rows, options.eval_every, options.save_every, options.sample_every),
        Hooks(measured(job.evaluate), save, measured(job.samples) if job.samples else None),
        recorder,
        world,
    )


def check_directory(directory: Path, *, resume: bool) -> Path | None:
    """The newest saved state of the run in `directory`, if there is one. ConfigError when there is and `resume` isn't set."""
    saved = states.saved_states(directory / "states")
    if saved and not resume:
        raise ConfigError(f"{directory}: holds a run already; add --resume to go on with it, or name another directory")
    return saved[-1] if saved else None


def _way_on(directory: Path) -> str:
    """How an interrupted run can go on."""
    if states.saved_states(directory / "states"):
        return "--resume goes on from the newest saved state"
    return "no state was saved yet, so the same command begins anew"


def load_best(job: Job, directory: Path, counters: states.Counters) -> None:
    """Give the job's model the weights of the state with the lowest validation loss. TrainingError when it isn't there."""
    path = directory / "states" / states.state_name(counters.best_step)
    if not path.is_dir():
        raise TrainingError(f"{path}: the run's best state is missing")
    states.load_weights(job.objective.model, path)


def optimizers(objective: Objective, optim: OptimSettings) -> list[torch.optim.Optimizer]:
    """The optimisers over the parameters that the objective's model has now. ConfigError when none is to be trained."""
    if not trainable(objective.model):
        raise ConfigError("no parameter of the model is to be trained")
    return make_optimizers(
        objective.model,
        optim.optimizer,
        lr=optim.lr,
        matrix_lr=optim.matrix_lr,
        weight_decay=optim.weight_decay,
        beta2=optim.beta2,
    )


def max_steps(job: Job) -> int | None:
    """The updates after which the run ends; None when only the clock ends it."""
    ends = [] if job.run.steps is None else [job.run.steps]
    if job.run.epochs is not None:
        ends.append(math.ceil(job.run.epochs * job.source.samples_per_epoch / job.batch_rows))
    return min(ends, default=None)


def schedule(job: Job) -> Schedule:
    """The job's learning-rate schedule."""
    seconds = job.run.minutes * 60 if job.run.minutes else None
    optim = job.optim
    return Schedule(optim.warmup_steps, optim.cooldown, optim.floor, max_steps(job), seconds, optim.schedule)


def set_threads(options: RunSection) -> None:
    """Give this process its share of the processors, and let it keep the memory that one step after the other needs."""
    sharing = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(options.threads or max(1, available_cpus() // sharing))
    keep_freed_memory()


def keep_freed_memory() -> None:
    """On Linux with glibc: take large blocks from the heap and never give it back, so that a step's tensors lie where the last
    one's did. By default each is mapped and unmapped anew, and the kernel clears its pages: an eighth of a step on a CPU."""
    if not sys.platform.startswith("linux"):
        return
    m_trim_threshold, m_mmap_max = -1, -4  # of malloc.h
    with suppress(OSError, AttributeError):  # another C library
        library = ctypes.CDLL(None)
        library.mallopt(m_mmap_max, 0)
        library.mallopt(m_trim_threshold, 2**31 - 1)


def _recorder(job: Job, directory: Path, world: World, step: int) -> Recorder:
    if not world.is_main:
        return Recorder.silent()
    steps, per_sample = max_steps(job), job.tokens_per_sample
    plan = RunPlan(
        flops_per_token=training_flops(job.objective.model, per_sample) if per_sample else None,
        peak_flops=peak_flops(world.device).flops * world.size,
        total_tokens=steps * job.batch_rows * job.rows_per_sample * per_sample if steps and per_sample else None,
        device=str(world.device),
    )
    return Recorder(
        directory, plan=plan, tensorboard=job.run.tensorboard, log_every=job.run.log_every, resumed_at=step
    )  # fmt: skip


def _trunk(objective: Objective) -> Any:
    return getattr(objective.model, "trunk", objective.model)
