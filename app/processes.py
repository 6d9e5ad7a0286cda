"""What the system tells of processes, without a library. (Linux; elsewhere nothing is known.)"""

import os
from pathlib import Path

_PROC = Path("/proc")


def resident_bytes(pid: int | None) -> int | None:
    """Memory that a process holds now, shared pages included; None when there is no such process, or the system doesn't tell."""
    if pid is None:
        return None
    try:
        fields = (_PROC / str(pid) / "statm").read_text("ascii").split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None
