"""What a device can do: its peak, and the memory that is in use."""

import platform
import re
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

# Peak of dense bfloat16 matrix products with float32 sums, TFLOP/s, from the makers' data sheets (where a sheet gives the
# figure "with sparsity", half of it). All words of a name must be in the device's name; the first line that fits is taken.
_TFLOPS: tuple[tuple[str, float], ...] = (
    # Blackwell: DGX B200 and GB200 NVL72 data sheets (2024); RTX Blackwell whitepaper (2025), appendix A
    ("GB200", 2500.0),
    ("B200", 2250.0),
    ("RTX PRO 6000 Blackwell", 503.8),
    ("RTX 5090", 209.5),
    ("RTX 5080", 112.6),
    # Hopper: H100, H200, GH200 data sheets (2023, 2024)
    ("GH200", 989.5),
    ("H200 NVL", 835.5),
    ("H200", 989.5),
    ("H100 NVL", 835.5),
    ("H100 PCIe", 756.0),
    ("H100", 989.5),  # SXM
    ("H800 PCIe", 756.0),
    ("H800", 989.5),
    ("H20", 148.0),
    # Ada: L4, L40, L40S, RTX 6000 Ada data sheets (2023); Ada whitepaper (2022), appendix A
    ("L40S", 362.0),
    ("L40", 181.0),
    ("L4", 121.0),
    ("RTX 6000 Ada", 364.2),
    ("RTX 4090", 165.2),
    ("RTX 4080 SUPER", 104.4),
    ("RTX 4080", 97.5),
    # Ampere: A100, A40, A30, A10 data sheets (2020, 2021); GA102 whitepaper (2020), appendix A
    ("A100", 312.0),
    ("A800", 312.0),
    ("A40", 149.7),
    ("A30", 165.0),
    ("A10", 125.0),
    ("A10G", 70.0),
    ("RTX A6000", 154.8),
    ("RTX 3090 Ti", 80.0),
    ("RTX 3090", 71.0),
    # Their tensor cores know float16 alone: T4 (2018) and V100 (2017, PCIe and SXM2) data sheets.
    ("T4", 65.0),
    ("V100 PCIE", 112.0),
    ("V100", 125.0),
    # CDNA: Instinct MI250X (a device is one of its two dies), MI300X, MI325X data sheets (2021 to 2024)
    ("MI325X", 1307.4),
    ("MI300X", 1307.4),
    ("MI250X", 191.5),
)
_LESS = {"LAPTOP", "D", "MAX", "MIG"}  # words of a chip that runs slower than its name's, or of a slice of it
_MEASURE_SECONDS = 0.3  # for each precision
_MEASURE_SIZE = {"cpu": 1024, "cuda": 8192}


@dataclass(frozen=True)
class Peak:
    """The most a device computes: `flops` a second, and where the figure is from."""

    flops: float
    source: str


def peak_flops(device: torch.device | str) -> Peak:
    """A device's peak in matrix products: of bfloat16 from the data sheet for a GPU that is known; otherwise measured, the
    faster of bfloat16 and float32, in less than a second, once for a process and number of threads."""
    device = torch.device(device)
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        if (known := known_peak(name)) is not None:
            return Peak(known, f"{name}: data sheet, dense bfloat16")
    return _measured(str(device), torch.get_num_threads())


def known_peak(name: str) -> float | None:
    """FLOP/s of a device by the name that torch.cuda.get_device_name gives, e.g. "NVIDIA H100 80GB HBM3"; None for one that
    isn't in the table."""
    words = set(re.findall("[A-Z0-9]+", name.upper()))
    if words & _LESS:
        return None
    return next((tflops * 1e12 for key, tflops in _TFLOPS if set(key.upper().split()) <= words), None)


@lru_cache
def _measured(device: str, threads: int) -> Peak:
    rates = {dtype: _matmul_rate(torch.device(device), dtype) for dtype in (torch.bfloat16, torch.float32)}
    fastest = max(rates, key=lambda dtype: rates[dtype])
    of = f" on {_threads(threads)}" if device == "cpu" else ""
    return Peak(rates[fastest], f"measured, {str(fastest).removeprefix('torch.')} matrix products{of}")


def _matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of the fastest of some square matrix products: other work on the machine only ever slows one down."""
    size = _MEASURE_SIZE.get(device.type, 2048)
    a = torch.rand(size, size, device=device).to(dtype)
    best, begin = float("inf"), time.perf_counter()
    with torch.inference_mode():
        for i in range(1000):
            start = time.perf_counter()
            _wait(device, a @ a)
            end = time.perf_counter()
            best = min(best, end - start) if i else best  # the first one sets things up
            if i and end - begin > _MEASURE_SECONDS:
                break
    return 2 * size**3 / best


def _wait(device: torch.device, result: torch.Tensor) -> None:
    if device.type != "cpu":
        result[0, 0].item()


def memory_in_use(device: torch.device | str) -> int:
    """Bytes: what a GPU's tensors have taken at most so far; on the CPU the process's resident memory now."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import psutil

    return psutil.Process().memory_info().rss


def memory_free(device: torch.device | str) -> int:
    """Bytes that could still be taken: of the GPU, or of the machine's memory."""
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return psutil.virtual_memory().available


def describe_device(device: torch.device | str) -> str:
    """For a person: the GPU's name, or the processor's and how many threads compute on it."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor()}, {_threads(torch.get_num_threads())}"


def _threads(number: int) -> str:
    return f"{number} thread{'s' * (number != 1)}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")  # Linux: platform.processor() is empty or says no more than x86_64
    if info.is_file():
        for line in info.read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "CPU"
