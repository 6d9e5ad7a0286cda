"""Pages of files in memory: a tensor that is read from a file is, where it can be, the file's own pages."""

import ctypes
import mmap
from pathlib import Path

from torch import Tensor

_MAPS = Path("/proc/self/maps")


def release_file_pages(tensor: Tensor) -> None:
    """Let the file's pages that `tensor` consists of leave memory; when they are touched again, they are read again. Nothing
    happens where it consists of other memory, or the system doesn't tell.

    Only for a tensor that nobody has written to since it was read: what was written would be lost."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    begin = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (tensor.data_ptr() + (last + 1) * tensor.itemsize) // mmap.PAGESIZE * mmap.PAGESIZE
    if tensor.numel() == 0 or tensor.device.type != "cpu" or begin >= end or not _of_a_file(begin, end):
        return
    ctypes.CDLL(None).madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), mmap.MADV_DONTNEED)


def _of_a_file(begin: int, end: int) -> bool:
    """Whether all of [begin, end) is one mapping of a file. Anonymous memory would lose what it holds."""
    try:
        lines = _MAPS.read_text().splitlines()
    except OSError:
        return False
    for line in lines:
        addresses, _, _, _, inode, *path = line.split(maxsplit=5)
        first, last = (int(address, 16) for address in addresses.split("-"))
        if first <= begin < last:
            return end <= last and inode != "0" and bool(path)
    return False
