"""The inspector's own process, `python -m app.engine.inspecting MODEL LOG_LEVEL LOG_FORMAT`: a question on stdin, its answer on
stdout, one after the other, until stdin ends. See app/engine/inspector.py."""

import contextlib
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from app.engine.inspector import LENGTH, Inspected, InspectFailed, InspectJob
from app.logs import configure_logging
from model.errors import HomegrownError

if TYPE_CHECKING:
    from model.gpt import GPT
    from model.inspection import Inspection

_NICE = 10  # a tenth of what an engine that wants the same core gets
_ROOM = 1.3  # what a model takes in memory while it is loaded, as a multiple of its weights
_MEMORY, _OWN_RISK = Path("/proc/meminfo"), Path("/proc/self/oom_score_adj")

logger = logging.getLogger(__name__)


def main() -> int:
    """Answer until nobody asks any more; the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the server decides when to end, and stdin tells
    directory, log_level, log_format = sys.argv[1:]
    configure_logging(log_level, log_format)
    questions, answers = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints must not come between answers
    _step_back()
    desk = _Desk(Path(directory))
    try:
        while (job := _read(questions)) is not None:
            body = msgspec.msgpack.encode(desk.answer(job))
            answers.write(LENGTH.pack(len(body)) + body)
            answers.flush()
    except BrokenPipeError:
        pass  # the server has gone
    return 0


def _step_back() -> None:
    """Others' work comes first; and when memory runs out this is the process to end."""
    with contextlib.suppress(OSError):  # forbidden here
        os.nice(_NICE)
    with contextlib.suppress(OSError):  # no such file on this system
        _OWN_RISK.write_text("1000")


def _read(questions: BinaryIO) -> InspectJob | None:
    head = questions.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    return msgspec.msgpack.decode(questions.read(LENGTH.unpack(head)[0]), type=InspectJob)


class _Desk:
    """Holds the model that was asked about last: the base, or with one adapter merged into it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._model: GPT | None = None
        self._made_of: tuple[str, int] | None = None  # the adapter in it, and when that was written

    def answer(self, job: InspectJob) -> Inspected | InspectFailed:
        """Never raises: the next question may be a better one."""
        # Only here: importing torch takes longer than all else.
        from model.inspection import inspect_text

        try:
            model = self._load(job.adapter)
            seen = inspect_text(model, job.prompt, job.layers)
            return Inspected(model.config.n_layer, model.config.n_head, _attention(seen), _lens(seen))
        except _NoRoom as error:
            return InspectFailed(str(error), memory=True)
        except HomegrownError as error:
            return InspectFailed(str(error))
        except Exception as error:
            logger.error("the inspector failed", exc_info=True)
            return InspectFailed(f"unexpected error ({type(error).__name__})")

    def _load(self, adapter: str | None) -> "GPT":
        """The model with that adapter, if any."""
        import torch

        from model.adapters import ADAPTER_WEIGHTS, load_adapter
        from model.checkpoint import load_model
        from model.gpt import GPT
        from model.lora import merge_lora

        made_of = None
        if adapter is not None:
            weights = Path(adapter) / ADAPTER_WEIGHTS
            made_of = (adapter, weights.stat().st_mtime_ns if weights.is_file() else 0)
        if self._model is None or made_of != self._made_of:
            self._model = None  # two of them may be too many
            torch.set_num_threads(1)
            _check_memory(self._directory)
            model = load_model(self._directory)
            assert isinstance(model, GPT), "the client asks for language models only"
            if adapter is not None:
                load_adapter(model, adapter)
                merge_lora(model)
            self._model, self._made_of = model, made_of
        return self._model


class _NoRoom(Exception):
    """Too little memory for this model."""


def _check_memory(directory: Path) -> None:
    """Raise _NoRoom when loading the model would push others out of memory."""
    from model.architectures import read_config
    from model.checkpoint import empty_model

    needed = _ROOM * 4 * sum(parameter.numel() for parameter in empty_model(read_config(directory)).parameters())
    try:
        lines = dict(line.split(":", 1) for line in _MEMORY.read_text("ascii").splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):  # a system that doesn't tell
        return
    if needed > free:
        raise _NoRoom(
            f"Looking inside this model takes {needed / 1e9:.1f} GB of memory beside the engine, and {free / 1e9:.1f} GB are free."
        )


def _attention(seen: "Inspection") -> bytes:
    """JSON. (As double, where the nearest number to a decimal of 4 digits is written with those; a layer at a time, since lists
    of numbers are large.)"""
    layers = (msgspec.json.encode(((weights.double() * 1e4).round() / 1e4).tolist()) for weights in seen.attention)
    return b"[" + b",".join(layers) + b"]"


def _lens(seen: "Inspection") -> list[list[list[tuple[int, float]]]]:
    ids, probabilities = seen.top_ids.tolist(), seen.top_probabilities.tolist()
    return [
        [[(token, round(p, 6)) for token, p in zip(*best, strict=True)] for best in zip(*layer, strict=True)]
        for layer in zip(ids, probabilities, strict=True)
    ]


if __name__ == "__main__":
    # Not sys.exit: as for the engine, there is nothing to save.
    code = main()
    sys.stderr.flush()
    os._exit(code)
