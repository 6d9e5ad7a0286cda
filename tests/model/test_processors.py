"""Processors to compute with: what a container's quota leaves, for whoever computes."""

from pathlib import Path

import pytest
import torch

from model import processors
from training import fit
from training.recipe import RunSection


@pytest.fixture
def quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a container's limit, on a machine of eight processors."""
    monkeypatch.setattr(processors.os, "sched_getaffinity", lambda _: range(8), raising=False)
    monkeypatch.setattr(processors.os, "cpu_count", lambda: 8)
    monkeypatch.setattr(processors, "_CGROUP_CPU_MAX", tmp_path / "cpu.max")
    return tmp_path / "cpu.max"


@pytest.mark.parametrize(("limit", "cpus"), [
    ("250000 100000", 2), ("50000 100000", 1), ("max 100000", 8), ("9000000 100000", 8), (None, 8),
])  # fmt: skip
def test_a_quota_counts_in_whole_processors(quota: Path, limit: str | None, cpus: int) -> None:
    if limit is not None:
        quota.write_text(f"{limit}\n")
    assert processors.available_cpus() == cpus


def test_training_keeps_to_the_quota(quota: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quota.write_text("400000 100000\n")
    threads: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(fit, "keep_freed_memory", lambda: None)
    fit.set_threads(RunSection(steps=1))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")  # processes of torchrun share them
    fit.set_threads(RunSection(steps=1))
    fit.set_threads(RunSection(steps=1, threads=7))
    assert threads == [4, 2, 7]
