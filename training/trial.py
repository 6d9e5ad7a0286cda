"""A few real updates of a job, to know its speed before it starts. In memory alone: nothing is written."""

import math
import statistics
import sys
import time
from dataclasses import dataclass

import torch
from tqdm import tqdm

from model.gpt import SequenceClassifier
from training.compiling import compile_in_place
from training.devices import memory_in_use
from training.distributed import World
from training.errors import TrainingError
from training.fit import Job, optimizers
from training.loop import StepSettings, train_step
from training.state import TrainState

_WHOLE_UPDATES, _WHOLE_SECONDS = 3, 10.0  # whole updates are timed where one takes less than this


@dataclass(frozen=True)
class Speed:
    """What was measured. `memory`: bytes in use after it; `compiled`: whether the step was; `how`, in words."""

    seconds_per_update: float
    tokens_per_update: float
    memory: int
    compiled: bool
    how: str

    @property
    def tokens_per_second(self) -> float:
        """Tokens computed with in a second."""
        return self.tokens_per_update / self.seconds_per_update


def measure_speed(job: Job, world: World) -> Speed:
    """Time real updates, which change the job's model: whole ones where they are quick, otherwise of one micro-batch.
    TrainingError when a micro-batch doesn't fit into the device's memory."""
    try:
        return _measure(job, world)
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and "can't allocate memory" not in str(error):
            raise  # on the CPU a lack of memory is a plain RuntimeError
        raise TrainingError(
            f"a micro-batch of {min(job.run.micro_batch, job.batch_rows)} rows doesn't fit into the memory of {world.device}: "
            "lower run.micro_batch, or set run.checkpointing"
        ) from None


def _measure(job: Job, world: World) -> Speed:
    rows = min(job.run.micro_batch, job.batch_rows)
    pieces = math.ceil(job.batch_rows / rows)
    job.objective.to(world.device)
    model = job.objective.model
    (model.trunk if isinstance(model, SequenceClassifier) else model).checkpointing = job.run.checkpointing
    compiled = job.run.compile and compile_in_place(job.objective, world.device)
    tqdm.write("compiling, then timing" if compiled else "timing", file=sys.stderr, end=" a few updates ...\n")
    state = TrainState(model, optimizers(job.objective, job.optim))
    settings = StepSettings(rows, job.optim.clip, job.run.seed)

    def update(n: int) -> tuple[float, int]:
        begin = time.perf_counter()
        metrics = train_step(state, job.source.batch(state.counters.samples, n), job.objective, settings, world=world)
        return time.perf_counter() - begin, metrics.tokens  # metrics are numbers, so the device has finished

    setup, _ = update(rows)
    small, tokens = update(rows)
    how = f"one update of a micro-batch of {rows} rows, times {pieces}"
    seconds, tokens = small * pieces, tokens * pieces
    if seconds < _WHOLE_SECONDS:
        timed = [update(job.batch_rows) for _ in range(_WHOLE_UPDATES)]
        seconds, tokens = statistics.median(s for s, _ in timed), statistics.fmean(t for _, t in timed)
        how = f"the median of {_WHOLE_UPDATES} updates"
    first = "compiling and the first update" if compiled else "the first update, left out,"
    return Speed(seconds, tokens, memory_in_use(world.device), compiled, f"measured: {how}; {first} took {setup:.1f} s")
