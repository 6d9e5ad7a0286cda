"""Peaks that are known, and one that is measured."""

import pytest
import torch

from training import devices
from training.devices import describe_device, known_peak, memory_free, memory_in_use, peak_flops


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989.5),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA H100 NVL", 835.5),
        ("NVIDIA H200", 989.5),
        ("NVIDIA H200 NVL", 835.5),
        ("NVIDIA H20", 148.0),
        ("NVIDIA GH200 480GB", 989.5),
        ("NVIDIA B200", 2250.0),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA A100-PCIE-40GB", 312.0),
        ("NVIDIA A10", 125.0),
        ("NVIDIA A10G", 70.0),
        ("NVIDIA L4", 121.0),
        ("NVIDIA L40", 181.0),
        ("NVIDIA L40S", 362.0),
        ("Tesla T4", 65.0),
        ("Tesla V100-SXM2-16GB", 125.0),
        ("Tesla V100-PCIE-32GB", 112.0),
        ("NVIDIA GeForce RTX 3090", 71.0),
        ("NVIDIA GeForce RTX 3090 Ti", 80.0),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA GeForce RTX 5090", 209.5),
        ("NVIDIA RTX 6000 Ada Generation", 364.2),
        ("AMD Instinct MI300X", 1307.4),
    ],
)
def test_a_devices_name_finds_its_own_line(name: str, tflops: float) -> None:
    assert known_peak(name) == pytest.approx(tflops * 1e12)


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        "NVIDIA GeForce GTX 1080",
        "",
        "Tesla K80",
    ],
)
def test_what_is_slower_or_unknown_has_no_line(name: str) -> None:
    assert known_peak(name) is None


def test_a_processor_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The figure is one that a product reaches: no faster than it is possible, and not far below a product timed here."""
    calls = []
    rate = devices._matmul_rate
    monkeypatch.setattr(devices, "_matmul_rate", lambda *arguments: calls.append(arguments) or rate(*arguments))
    monkeypatch.setattr(devices, "_MEASURE_SECONDS", 0.02)
    devices._measured.cache_clear()
    first = peak_flops("cpu")
    assert first == peak_flops(torch.device("cpu"))
    assert len(calls) == 2  # bfloat16 and float32
    assert 1e8 < first.flops < 1e15
    assert "measured" in first.source
    assert "thread" in first.source
    devices._measured.cache_clear()


def test_an_unknown_gpu_is_measured_and_a_known_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_matmul_rate", lambda device, dtype: 2e12 if dtype == torch.bfloat16 else 1e12)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    assert peak_flops("cuda").flops == pytest.approx(989.5e12)
    assert "data sheet" in peak_flops("cuda").source
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some Other GPU")
    devices._measured.cache_clear()
    assert peak_flops("cuda:0").flops == 2e12
    devices._measured.cache_clear()


def test_memory_grows_with_what_is_held() -> None:
    before = memory_in_use("cpu")
    block = torch.ones(64 << 20, dtype=torch.uint8)
    assert memory_in_use("cpu") - before > 48 << 20
    assert 0 < memory_free("cpu") < 1 << 50
    assert block.sum() > 0


def test_a_device_is_named_for_people() -> None:
    assert describe_device("cpu").endswith(f"{torch.get_num_threads()} thread{'s' * (torch.get_num_threads() != 1)}")
