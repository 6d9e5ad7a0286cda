"""What a device can do and what a model asks of it: FLOPs, peaks, memory."""

import torch


def memory_in_use(device: torch.device | str) -> int:
    """Bytes: what a GPU's tensors have taken at most so far; on the CPU the process's resident memory now."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import psutil

    return psutil.Process().memory_info().rss
