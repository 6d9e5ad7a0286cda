"""Several processes on one run (gloo on the CPU): the same data in the same order, the same losses, states that any number of
processes goes on from."""

import json
from pathlib import Path

import pytest
import torch
from runs import TINY, start_pretrain, wait, write_inputs
from safetensors.torch import load_file

from model.errors import ConfigError
from training import distributed
from training.distributed import World


def recipe(parallel: str, optimizer: str, steps: int) -> str:
    """Ends by a step count, but its learning rate is flat, so that runs of other lengths are a part of this one."""
    return (
        TINY.replace("steps = 120", f'steps = {steps}\nparallel = "{parallel}"\nbf16 = false')
        .replace("warmup_steps = 2", f'warmup_steps = 2\nfloor = 1.0\noptimizer = "{optimizer}"')
        .replace("eval_every = 10", "eval_every = 4")
    )


@pytest.fixture(
    scope="module",
    params=[("ddp", "muon"), *(pytest.param(("fsdp", name), marks=pytest.mark.slow) for name in ("adamw", "muon"))],
    ids="-".join,
)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, float]:
    """The same run by one process, and by one, then two, then one again; and how near they must come. Muon orthogonalises in
    bfloat16, whose rounding depends on how FSDP parts a matrix."""
    directory = tmp_path_factory.mktemp("inputs")
    alone, changing = directory / "alone", directory / "changing"
    for steps, processes in ((4, 1), (8, 2), (12, 1)):
        inputs = write_inputs(directory, recipe(*request.param, steps))
        wait(start_pretrain(inputs, changing, resume=steps > 4, processes=processes))
    wait(start_pretrain(inputs, alone))
    return alone, changing, 5e-3 if request.param == ("fsdp", "muon") else 1e-5


def rows(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_losses_do_not_depend_on_the_number_of_processes(both: tuple[Path, Path, float]) -> None:
    *runs, near = both
    for key in ("loss", "grad_norm", "validation_loss"):
        alone, changing = ([(row["step"], row[key]) for row in rows(run) if key in row] for run in runs)
        assert [step for step, _ in alone] == [step for step, _ in changing]
        assert [value for _, value in alone] == pytest.approx([value for _, value in changing], rel=near)
    assert [row["step"] for row in rows(runs[1]) if "loss" in row] == list(range(1, 13))


def test_weights_and_counters_neither(both: tuple[Path, Path, float]) -> None:
    *runs, near = both
    last = [run / "states" / "step-00000012" for run in runs]
    mine, theirs = (load_file(path / "weights.safetensors") for path in last)
    assert mine.keys() == theirs.keys()
    for name in mine:
        assert (mine[name] - theirs[name]).norm() <= (1e-3 if near == 1e-5 else 0.05) * theirs[name].norm()
    counters = [json.loads((path / "state.json").read_text())["counters"] for path in last]
    for key in ("step", "samples", "tokens", "best_step"):
        assert counters[0][key] == counters[1][key]


def test_a_batch_is_shared_in_order() -> None:
    worlds = [World(rank, 3, torch.device("cpu")) for rank in range(3)]
    assert [world.share(100, 12) for world in worlds] == [(100, 4), (104, 4), (108, 4)]


def test_a_missing_gpu_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"run\.device is cuda, but PyTorch sees no GPU"), distributed.join("cuda"):
        pass
