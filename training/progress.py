"""What a run says while it trains: a live line, `log.jsonl`, TensorBoard, text samples.

`log.jsonl` is the truth: one JSON object a line, written through at once, so that a run killed at any moment leaves at most its
last line half. Each line carries `step` and `tokens_seen`, and is one of

- an update: `loss` (nats, mean over the step's weight; null when nothing in it counted), `grad_norm`, `lr_factor`, `tokens`,
  `tokens_per_second`, `mfu` (share of the device's peak, where that is known), `memory_mb`, `seconds`;
- a validation: `validation_loss`, whatever else the task measures, `seconds`;
- a sample: `sample`, a text.
"""

import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tqdm import tqdm

from model.files import write_whole
from training.devices import memory_in_use
from training.errors import TrainingError

if TYPE_CHECKING:
    from training.loop import Metrics
    from training.state import Counters

LOG = "log.jsonl"
TENSORBOARD = "tensorboard"
_LIVE_SECONDS, _PLAIN_SECONDS = (
    0.2,
    30.0,
)  # between two looks of the live line; between lines where there is no terminal
_FLUSH_SECONDS = 10  # TensorBoard's files; its own default of 120 s would lose two minutes to a kill


@dataclass(frozen=True)
class RunPlan:
    """What progress is measured against. `flops_per_token`: of one trained token, forward and backward; `peak_flops`: FLOP/s of
    all the run's devices together; both None when not known, and then there is no MFU. `total_tokens`: None for a run by the
    clock. `device`: whose memory is shown."""

    flops_per_token: float | None = None
    peak_flops: float | None = None
    total_tokens: int | None = None
    device: str = "cpu"

    def mfu(self, tokens_per_second: float) -> float | None:
        """Model FLOPs utilisation (Chowdhery et al., 2022, appendix B), 0 to 1: the model's own arithmetic per second as a
        share of the peak."""
        if self.flops_per_token is None or not self.peak_flops:
            return None
        return self.flops_per_token * tokens_per_second / self.peak_flops


class Recorder:
    """The run's diary. The first rank keeps one; the others use `Recorder.silent()`.

    What a killed run logged after step `resumed_at`, its last saved state, is taken out first: it is done again. With
    `resumed_at` 0 the log starts empty. `log_every`: steps between lines of the log. TrainingError when the log can't be
    written.
    """

    def __init__(
        self, directory: Path, *, plan: RunPlan, tensorboard: bool, log_every: int, resumed_at: int = 0
    ) -> None:
        self.plan, self.log_every = plan, log_every
        self.path = directory / LOG
        directory.mkdir(parents=True, exist_ok=True)
        forget_after(resumed_at, self.path)
        self._file = self.path.open("a", encoding="utf-8")
        self._bar = tqdm(
            total=1.0, file=sys.stderr, disable=None, dynamic_ncols=True,
            bar_format="{percentage:3.0f}%|{bar:12}| {desc}",
        )  # fmt: skip
        self._writer = _open_tensorboard(directory / TENSORBOARD, resumed_at, self.note) if tensorboard else None
        self._loss, self._tokens, self._seconds = _Smooth(), _Smooth(), _Smooth()
        self._since_log = [0, 0.0]  # tokens and seconds
        self._start: tuple[float, float] | None = None  # progress and seconds of the run when this process began
        self._last_shown = -math.inf

    @staticmethod
    def silent() -> "Recorder":
        """A recorder that does nothing."""
        return _Silent()

    def update(self, metrics: "Metrics", counters: "Counters", progress: float, seconds: float) -> None:
        """After each step: `progress` of the run, 0 to 1; `seconds` that this step took."""
        if metrics.weight:
            self._loss.add(metrics.loss)
        self._tokens.add(metrics.tokens)
        self._seconds.add(seconds)
        self._since_log[0] += metrics.tokens
        self._since_log[1] += seconds
        if counters.step % self.log_every == 0:
            self._log_update(metrics, counters)
        self._show(metrics, counters, progress)

    def validation(self, values: Mapping[str, float], counters: "Counters") -> None:
        """Measures on held-out data; among them `validation_loss`."""
        self._write(counters, {**values, "seconds": round(counters.seconds, 1)})
        for name, value in values.items():
            self._scalar(f"validation/{name.removeprefix('validation_')}", value, counters.step)
        listed = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in values.items())
        self.note(f"step {counters.step:,}: {counters.tokens:,} tokens, {listed}")

    def sample(self, text: str, counters: "Counters") -> None:
        """A text that the model wrote."""
        self._write(counters, {"sample": text})
        if self._writer is not None:  # indented, so that TensorBoard shows it as it is and not as Markdown
            self._writer.add_text("sample", "\n".join(f"    {line}" for line in text.splitlines()), counters.step)
        self.note(f"step {counters.step:,}, a sample: {text}")

    def note(self, line: str) -> None:
        """Print a line for the person watching; it is not logged."""
        tqdm.write(line, file=sys.stderr)

    def close(self) -> None:
        """Flush and close everything; may be called twice."""
        self._bar.close()
        writer, self._writer = self._writer, None
        # A full disk was reported when a line was written, and must not hide what the run ends with.
        with suppress(OSError):
            if writer is not None:
                writer.close()
        with suppress(OSError):
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _log_update(self, metrics: "Metrics", counters: "Counters") -> None:
        tokens, seconds = self._since_log
        self._since_log = [0, 0.0]
        rate = tokens / seconds if seconds > 0 else 0.0
        mfu = self.plan.mfu(rate)
        values: dict[str, Any] = {
            "loss": metrics.loss if metrics.weight else None,
            "grad_norm": metrics.grad_norm,
            "lr_factor": metrics.lr_factor,
            "tokens": metrics.tokens,
            "tokens_per_second": round(rate),
            **({} if mfu is None else {"mfu": round(mfu, 4)}),
            "memory_mb": round(memory_in_use(self.plan.device) / 2**20),
        }
        self._write(counters, {**values, "seconds": round(counters.seconds, 1)})
        for name, value in values.items():
            if name != "tokens" and value is not None:
                group = "train" if name in ("loss", "grad_norm", "lr_factor") else "speed"
                self._scalar(f"{group}/{name}", value, counters.step)

    def _show(self, metrics: "Metrics", counters: "Counters", progress: float) -> None:
        if self._start is None:
            self._start = progress, counters.seconds
        now = time.monotonic()
        if now - self._last_shown < (_PLAIN_SECONDS if self._bar.disable else _LIVE_SECONDS):
            return
        self._last_shown, progress = now, min(progress, 1.0)
        line = self._line(metrics, counters, progress)
        if self._bar.disable:
            self.note(f"{progress:4.0%}  {line}")
        else:
            self._bar.n = progress
            self._bar.set_description_str(line)

    def _line(self, metrics: "Metrics", counters: "Counters", progress: float) -> str:
        rate = self._tokens.value / self._seconds.value if self._seconds.value > 0 else 0.0
        mfu = self.plan.mfu(rate)
        total = self.plan.total_tokens
        of = f"/{tqdm.format_sizeof(total)}" if total else ""
        left = self._seconds_left(counters, progress)
        return " · ".join([
            f"step {counters.step:,}",
            f"{tqdm.format_sizeof(counters.tokens)}{of} tokens",
            f"loss {self._loss.value:.3f}",
            f"{tqdm.format_sizeof(rate)} tokens/s",
            *([] if mfu is None else [f"MFU {mfu:.0%}"]),
            f"lr x{metrics.lr_factor:.2f}",
            f"{memory_in_use(self.plan.device) / 2**30:.1f} GiB",
            *([] if left is None else [f"{tqdm.format_interval(round(left))} left"]),
        ])  # fmt: skip

    def _seconds_left(self, counters: "Counters", progress: float) -> float | None:
        """At the pace of this process; None until there is one. The end may be a time, so the pace is of progress."""
        assert self._start is not None
        done, seconds = progress - self._start[0], counters.seconds - self._start[1]
        if done <= 0 or seconds <= 0:
            return None
        return max(0.0, 1.0 - progress) * seconds / done

    def _scalar(self, name: str, value: float, step: int) -> None:
        if self._writer is not None:
            self._writer.add_scalar(name, value, step)

    def _write(self, counters: "Counters", values: Mapping[str, Any]) -> None:
        line = {"step": counters.step, "tokens_seen": counters.tokens}
        line |= {name: None if _not_finite(value) else value for name, value in values.items()}
        try:
            self._file.write(json.dumps(line, allow_nan=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise TrainingError(
                f"{self.path}: can't be written at step {counters.step} ({error.strerror or error}); the saved states are "
                "whole: make room and resume"
            ) from None


class _Silent(Recorder):
    """For the ranks that keep no diary."""

    def __init__(self) -> None:
        pass

    def update(self, metrics: "Metrics", counters: "Counters", progress: float, seconds: float) -> None:
        pass

    def validation(self, values: Mapping[str, float], counters: "Counters") -> None:
        pass

    def sample(self, text: str, counters: "Counters") -> None:
        pass

    def note(self, line: str) -> None:
        pass

    def close(self) -> None:
        pass


class _Smooth:
    """An exponential mean of what was added, unbiased from the first value on (Kingma and Ba, 2015, section 3)."""

    def __init__(self, decay: float = 0.95) -> None:
        self.decay, self._sum, self._weight = decay, 0.0, 0.0

    def add(self, value: float) -> None:
        self._sum = self.decay * self._sum + (1 - self.decay) * value
        self._weight = self.decay * self._weight + (1 - self.decay)

    @property
    def value(self) -> float:
        """Not a number before the first value."""
        return self._sum / self._weight if self._weight else math.nan


def forget_after(step: int, log: Path) -> None:
    """Take out of a log what comes after `step`, and everything from the first damaged line on; all of it when `step` is 0."""
    if not log.is_file():
        return
    kept = [line for line, row in _whole_lines(log) if row["step"] <= step] if step else []
    write_whole(log, lambda part: part.write_bytes(b"".join(line + b"\n" for line in kept)))


def read_log(log: Path) -> list[dict[str, Any]]:
    """The lines of a log, up to the first damaged one (a killed run's last may be half); empty when there is no log."""
    return [row for _, row in _whole_lines(log)] if log.is_file() else []


def _whole_lines(log: Path) -> list[tuple[bytes, dict[str, Any]]]:
    lines: list[tuple[bytes, dict[str, Any]]] = []
    for line in log.read_bytes().split(b"\n"):
        try:
            row = json.loads(line)
        except ValueError:  # half a line, or the nothing behind the last
            break
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            break
        lines.append((line, row))
    return lines


def _not_finite(value: object) -> bool:
    """JSON has no NaN and no infinity."""
    return isinstance(value, float) and not math.isfinite(value)


def _open_tensorboard(directory: Path, resumed_at: int, note: Callable[[str], None]) -> Any:
    """A writer of event files, or None, with a note, where the package isn't installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        note("no TensorBoard files: the package tensorboard isn't installed (pip install 'homegrown[train]')")
        return None
    # Events after the saved state stay in the files; TensorBoard hides them.
    purge_step = resumed_at + 1 if resumed_at else 0
    return SummaryWriter(str(directory), purge_step=purge_step, flush_secs=_FLUSH_SECONDS)
