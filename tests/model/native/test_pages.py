"""Pages of files leave memory; no other memory is touched."""

import mmap
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from model.native import pages


def file_megabytes() -> float:
    found = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssFile:")]
    return int(found[0].split()[1]) / 1024


def test_memory_that_is_no_files_keeps_what_it_holds() -> None:
    for table in (torch.arange(1 << 20), torch.arange(1 << 20).reshape(1 << 10, -1).T, torch.zeros(0), torch.ones(3)):
        want = table.clone()
        pages.release_file_pages(table)
        assert torch.equal(table, want)


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="this system doesn't tell what is in memory")
@pytest.mark.parametrize("transposed", [False, True])
def test_a_files_pages_leave_memory_and_come_again(tmp_path: Path, transposed: bool) -> None:
    want = torch.arange(10 << 20, dtype=torch.int32).reshape(-1, 1 << 10)  # 40 MB
    save_file({"first": torch.ones(5), "table": want}, tmp_path / "file")
    with safe_open(tmp_path / "file", framework="pt") as file:
        table = file.get_tensor("table")
        assert torch.equal(table, want)
        before = file_megabytes()
        pages.release_file_pages(table.T if transposed else table)
        assert file_megabytes() < before - 35
        assert torch.equal(table, want)


def test_nothing_is_released_where_the_system_does_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_MAPS", tmp_path / "none")
    assert not pages._of_a_file(mmap.PAGESIZE, 2 * mmap.PAGESIZE)
