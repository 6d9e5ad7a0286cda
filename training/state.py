"""Everything a run needs to go on as if it had never stopped; saved whole or not at all; the last few are kept.

A saved state is a directory `step-00001200`: `state.json` (counters), `weights.safetensors`, `optimizer.safetensors`, and
`manifest.json` with the hash of each, checked when it is read. No pickle.
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
from training.errors import TrainingError

_FILES = ("state.json", "weights.safetensors", "optimizer.safetensors")


@dataclass
class Counters:
    """Where a run is. `samples` is the data cursor; `seconds` the time spent training, over all resumptions."""

    step: int = 0
    samples: int = 0
    tokens: int = 0
    seconds: float = 0.0


@dataclass
class TrainState:
    """A run in memory: the model in training, its optimisers, and where it is."""

    model: nn.Module
    optimizers: list[torch.optim.Optimizer]
    counters: Counters = field(default_factory=Counters)


def save(state: TrainState, directory: Path, *, fingerprint: dict[str, Any], keep: int) -> Path:
    """Write the state beside the others under `directory`, then drop all but the newest `keep`.

    `fingerprint` is what must be the same for a resumption (model shape, data, seed).
    """
    target = directory / f"step-{state.counters.step:08d}"
    with staged_directory(target, overwrite=True) as stage:
        write_json(stage / "state.json", {"counters": asdict(state.counters), "fingerprint": fingerprint})
        save_file(_weights(state.model), stage / "weights.safetensors")
        save_file(_optimizer_tensors(state), stage / "optimizer.safetensors")
        write_json(stage / "manifest.json", {name: file_sha256(stage / name) for name in _FILES})
    half_written = directory.glob(f".{target.name[:5]}*")  # by a run that was killed while saving
    for old in [*saved_states(directory)[:-keep], *half_written]:
        shutil.rmtree(old)
    return target


def saved_states(directory: Path) -> list[Path]:
    """The saved states under `directory`, oldest first."""
    return sorted(path for path in directory.glob("step-*") if path.is_dir())


def restore(state: TrainState, path: Path, *, fingerprint: dict[str, Any]) -> None:
    """Bring `state` to where the saved one at `path` is. CheckpointError when a file is damaged; TrainingError when the run
    it was saved by differs in what `fingerprint` holds."""
    for name, digest in read_json(path / "manifest.json").items():
        if not (path / name).is_file() or file_sha256(path / name) != digest:
            raise CheckpointError(
                f"{path / name}: damaged or missing; delete {path} to resume from the state before it"
            )
    saved = read_json(path / "state.json")
    differ = [key for key in fingerprint if saved["fingerprint"].get(key) != fingerprint[key]]
    if differ:
        changes = "; ".join(f"{key} was {saved['fingerprint'].get(key)!r}, is {fingerprint[key]!r}" for key in differ)
        raise TrainingError(f"{path} was saved by another run ({changes}); start anew in another directory")
    state.model.load_state_dict(load_file(path / "weights.safetensors"), strict=False)
    tensors = load_file(path / "optimizer.safetensors")
    torch.set_rng_state(tensors.pop("rng"))
    for i, optimizer in enumerate(state.optimizers):
        slots: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            which, parameter, key = name.split(".", 2)
            if int(which) == i:
                slots.setdefault(int(parameter), {})[key] = tensor
        optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
    state.counters = Counters(**saved["counters"])


def _weights(model: nn.Module) -> dict[str, Tensor]:
    """Each parameter once: named_parameters leaves out the second name of a tied one."""
    return {name: p.detach().contiguous() for name, p in model.named_parameters()}


def _optimizer_tensors(state: TrainState) -> dict[str, Tensor]:
    tensors = {"rng": torch.get_rng_state()}
    for i, optimizer in enumerate(state.optimizers):
        for parameter, slots in optimizer.state_dict()["state"].items():
            for key, value in slots.items():
                tensors[f"{i}.{parameter}.{key}"] = torch.as_tensor(value).contiguous()
    return tensors
