"""What loading an engine does to its process."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from app.engine.build import build_core
from app.engine.messages import EngineSpec
from model.native import library


@pytest.fixture
def _three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.skipif(not library.available(), reason="the native kernels weren't built")
@pytest.mark.usefixtures("_three_threads")
def test_pytorch_keeps_to_one_thread_beside_the_kernels(tiny_llama_dir: Path) -> None:
    core, loaded = build_core(
        EngineSpec(model=str(tiny_llama_dir), backend="native", device="cpu", threads=2, max_slots=1)
    )
    assert loaded.threads == 2
    assert torch.get_num_threads() == 1
    core.close()


@pytest.mark.usefixtures("_three_threads")
def test_pytorch_has_the_engines_threads_where_it_computes(tiny_llama_dir: Path) -> None:
    core, _ = build_core(EngineSpec(model=str(tiny_llama_dir), backend="torch", device="cpu", threads=2, max_slots=1))
    assert torch.get_num_threads() == 2
    core.close()
