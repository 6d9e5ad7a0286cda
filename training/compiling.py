"""torch.compile where it works, and a quiet fallback where it doesn't."""

import logging
import os
import shlex
import shutil
import subprocess

import torch
from torch import nn


def can_compile(device: torch.device) -> bool:
    """Whether torch.compile has what it needs for a device: Triton on a GPU, a C++ compiler that runs on the CPU."""
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        return has_triton()
    asked = os.environ.get("CXX")  # which PyTorch asks too
    commands = [shlex.split(asked)] if asked else [["g++"], ["clang++"], ["c++"]]
    return any(shutil.which(command[0]) and _runs([*command, "--version"]) for command in commands)


def compile_in_place(module: nn.Module, device: torch.device) -> bool:
    """Compile a module's forward, where that is possible, and say whether. What turns out not to compile when it is called runs as
    it is, without a word."""
    if not can_compile(device):
        return False
    torch._dynamo.config.suppress_errors = True
    logging.getLogger("torch._dynamo").setLevel(logging.CRITICAL)
    module.compile()
    return True


def _runs(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0
    except OSError:
        return False
