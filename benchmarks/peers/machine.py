"""The machine during a measurement: how much of it others used, how fast its memory reads, how much of it a job holds."""

import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_TICK = os.sysconf("SC_CLK_TCK")
_SHORTEST = 0.1  # seconds; over less, ticks of 10 ms say nothing about others


@dataclass(frozen=True)
class Timing:
    """How long something took (seconds), and the processors that others kept busy meanwhile (1.0 is one whole core)."""

    seconds: float
    foreign: float


def timed(prepare: Callable[[], T], work: Callable[[T], object], *, limit: float, tries: int = 3) -> Timing:
    """Time `work` on what `prepare` made, anew for each try: `tries` at most while others use more than `limit` cores. The
    quietest one counts."""
    best: Timing | None = None
    for _ in range(tries):
        subject = prepare()
        watch = Watch()
        work(subject)
        timing = watch.read()
        if best is None or timing.foreign < best.foreign:
            best = timing
        if best.foreign <= limit:
            break
    assert best is not None
    return best


class Watch:
    """Begins to count now. Own use is that of this process's whole group (and of `groups`), so a worker must lead a group of
    its own; what a hypervisor takes away counts as foreign."""

    def __init__(self, *groups: int) -> None:
        self._groups = {os.getpgid(0), *groups}
        self._busy, self._own, self._begun = _busy_seconds(), self._own_seconds(), time.perf_counter()

    def _own_seconds(self) -> float:
        return sum(group_seconds(group) for group in self._groups)

    def read(self) -> Timing:
        """What has passed since."""
        seconds = time.perf_counter() - self._begun
        others = (_busy_seconds() - self._busy) - (self._own_seconds() - self._own)
        return Timing(seconds, max(0.0, others) / seconds if seconds >= _SHORTEST else 0.0)


def _busy_seconds() -> float:
    """Processor seconds of the whole machine since its start; 0 where the kernel doesn't tell."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    except OSError:
        return 0.0
    user, nice, system, _idle, _waiting, interrupts, soft, stolen = (int(field) for field in fields[:8])
    return (user + nice + system + interrupts + soft + stolen) / _TICK


def group_seconds(group: int) -> float:
    """Processor seconds of the processes of a group that live now."""
    total = 0
    for fields in _processes(group):
        total += int(fields[11]) + int(fields[12])
    return total / _TICK


def process_seconds(pid: int) -> float:
    """Processor seconds of one process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def process_memory(pid: int) -> float:
    """Resident memory of one process, in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def _processes(group: int) -> list[list[str]]:
    """The fields of /proc/PID/stat behind the name, for each process of a group; the last one is its id."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rsplit(")", 1)[1].split()
        except OSError:  # it has ended
            continue
        if int(fields[2]) == group:
            found.append([*fields, entry.parent.name])
    return found


def memory(group: int | None = None) -> dict[str, float]:
    """Resident memory of a group's processes, in MB: "now" and "peak" (the sum of each one's own)."""
    sums = {"VmRSS": 0, "VmHWM": 0}
    for fields in _processes(os.getpgid(0) if group is None else group):
        try:
            lines = Path(f"/proc/{fields[-1]}/status").read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            name, _, value = line.partition(":")
            if name in sums:
                sums[name] += int(value.split()[0])
    return {"now": sums["VmRSS"] / 1024, "peak": sums["VmHWM"] / 1024}


def resident_reserve(least: float) -> float | None:
    """MB in memory of this process's mappings of at least `least` MB for which the system set nothing aside (MAP_NORESERVE):
    so the kernels reserve their cache, of which only what was written takes memory. None where the kernel doesn't tell."""
    try:
        text = Path("/proc/self/smaps").read_text()
    except OSError:
        return None
    total, size, held = 0, 0, 0
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name == "Size":
            size = int(value.split()[0])
        elif name == "Rss":
            held = int(value.split()[0])
        elif name == "VmFlags" and "nr" in value.split() and size >= least * 1024:
            total += held
    return total / 1024


def read_bandwidth(threads: int, *, megabytes: int = 256, seconds: float = 0.5) -> float:
    """Bytes a second that so many threads read from memory together: the best of several passes over arrays that no
    cache holds. NumPy's maximum is vectorised and lets other threads run."""
    import numpy as np

    parts = [np.ones(megabytes << 18, dtype=np.int32) for _ in range(threads)]
    size = sum(part.nbytes for part in parts)
    best, end = float("inf"), time.perf_counter() + seconds
    with ThreadPoolExecutor(threads) as pool:
        while time.perf_counter() < end:
            begun = time.perf_counter()
            list(pool.map(np.max, parts))
            best = min(best, time.perf_counter() - begun)
    return size / best


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` (0 to 1) of the others don't exceed, interpolated; nan without values."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    at = share * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def median(values: Sequence[float]) -> float:
    """The median; nan without values."""
    return statistics.median(values) if values else float("nan")
