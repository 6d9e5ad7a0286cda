"""Everything a run needs to go on as if it had never stopped; saved whole or not at all.

A saved state is a directory `step-00001200`: `state.json` (counters), `weights.safetensors` (the parameters in training),
`optimizer.safetensors`, and `manifest.json` with the hash of each, checked when it is read. No pickle. Nothing else needs saving:
batches are a function of the sample counter, the learning rate of step and seconds, and random draws (dropout) of seed and step.
"""

import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from model.errors import CheckpointError
from model.files import file_sha256, read_json, staged_directory, write_json
from training.distributed import parted_like, whole
from training.errors import TrainingError

_FILES = ("state.json", "weights.safetensors", "optimizer.safetensors")


@dataclass
class Counters:
    """Where a run is. `samples` is the data cursor, over all processes; `seconds` the time spent training, over all
    resumptions; `best_step` and `best_loss` the lowest validation loss and where it was."""

    step: int = 0
    samples: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best_step: int = -1
    best_loss: float = float("inf")


@dataclass
class TrainState:
    """A run in memory: the model in training, its optimisers, and where it is."""

    model: nn.Module
    optimizers: list[torch.optim.Optimizer]
    counters: Counters = field(default_factory=Counters)


def save(state: TrainState, directory: Path, *, fingerprint: dict[str, Any], keep: int, write: bool = True) -> None:
    """Write the state beside the others under `directory`, then drop all but the newest `keep` and the best.

    `fingerprint` is what must be the same for a resumption (model shape, data, seed). Every process takes part, in gathering
    what is parted; those with `write` False write nothing. TrainingError when the disk won't take it: the states before it are
    untouched.
    """
    weights, optimizer = _weights(state.model), _optimizer_tensors(state)
    if not write:
        return
    counters = state.counters
    target = directory / state_name(counters.step)
    content = asdict(counters) | {"best_loss": counters.best_loss if counters.best_step >= 0 else None}
    try:
        with staged_directory(target, overwrite=True) as stage:
            write_json(stage / "state.json", {"counters": content, "fingerprint": fingerprint})
            save_file(weights, stage / "weights.safetensors")
            save_file(optimizer, stage / "optimizer.safetensors")
            write_json(stage / "manifest.json", {name: file_sha256(stage / name) for name in _FILES})
    except Exception as error:  # the library that writes tensors has errors of its own for a full disk
        raise TrainingError(
            f"{target}: the state of step {counters.step} could not be saved ({error}); the saved states before it are whole: "
            "make room and resume"
        ) from error
    half_written = directory.glob(f".{target.name[:5]}*")  # by a run that was killed while saving
    old = [path for path in saved_states(directory)[:-keep] if path.name != state_name(counters.best_step)]
    for path in [*old, *half_written]:
        shutil.rmtree(path)


def state_name(step: int) -> str:
    """The name of the saved state of a step."""
    return f"step-{step:08d}"


def saved_states(directory: Path) -> list[Path]:
    """The saved states under `directory`, oldest first."""
    return sorted(path for path in directory.glob("step-*") if path.is_dir())


def restore(state: TrainState, path: Path, *, fingerprint: dict[str, Any]) -> None:
    """Bring `state` to where the saved one at `path` is. CheckpointError when a file is damaged; TrainingError when the run
    it was saved by differs in what `fingerprint` holds."""
    saved = _checked(path)
    differ = [key for key in fingerprint if saved["fingerprint"].get(key) != fingerprint[key]]
    if differ:
        changes = "; ".join(f"{key} was {saved['fingerprint'].get(key)!r}, is {fingerprint[key]!r}" for key in differ)
        raise TrainingError(f"{path} was saved by another run ({changes}); start anew in another directory")
    load_weights(state.model, path)
    tensors = load_file(path / "optimizer.safetensors")
    for i, optimizer in enumerate(state.optimizers):
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        slots: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            which, parameter, key = name.split(".", 2)
            if int(which) == i:
                slots.setdefault(int(parameter), {})[key] = parted_like(tensor, parameters[int(parameter)])
        optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
    counters = saved["counters"]
    counters["best_loss"] = float("inf") if counters.get("best_loss") is None else counters["best_loss"]
    state.counters = Counters(**counters)


def load_weights(model: nn.Module, path: Path) -> None:
    """Give `model` the trained parameters of the saved state at `path`."""
    named = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in load_file(path / "weights.safetensors").items():
            named[name].copy_(parted_like(tensor, named[name]))


def _checked(path: Path) -> dict[str, Any]:
    """The content of state.json, after every file was compared with its hash."""
    for name, digest in read_json(path / "manifest.json").items():
        if not (path / name).is_file() or file_sha256(path / name) != digest:
            raise CheckpointError(
                f"{path / name}: damaged or missing; delete {path} to resume from the state before it"
            )
    return read_json(path / "state.json")


def _weights(model: nn.Module) -> dict[str, Tensor]:
    """Each trained parameter once, whole: named_parameters leaves out the second name of a tied one."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return {name: whole(p.detach()).cpu().contiguous() for name, p in named}


def _optimizer_tensors(state: TrainState) -> dict[str, Tensor]:
    tensors = {}
    for i, optimizer in enumerate(state.optimizers):
        for parameter, slots in optimizer.state_dict()["state"].items():
            for key, value in slots.items():
                tensors[f"{i}.{parameter}.{key}"] = whole(torch.as_tensor(value)).cpu().contiguous()
    return tensors
