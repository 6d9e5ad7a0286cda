"""Finds and loads the compiled kernels: the library for the best instruction set that this processor has."""

import ctypes
import logging
import os
import platform
from functools import cache
from pathlib import Path

from model.errors import ConfigError

logger = logging.getLogger(__name__)

ABI = 1  # kAbi of src/api.h
INSTRUCTION_SETS = ("avx512", "avx2", "generic")  # best first
OVERRIDE = "HOMEGROWN_NATIVE"
_DIRECTORY = Path(__file__).resolve().parent

_I32, _I64, _F32, _P, _TEXT = ctypes.c_int32, ctypes.c_int64, ctypes.c_float, ctypes.c_void_p, ctypes.c_char_p
# Function -> result and arguments, as src/api.h declares them. Pointers are plain addresses.
_SIGNATURES: dict[str, tuple[type | None, tuple[type, ...]]] = {
    "hg_isa": (_TEXT, ()),
    "hg_best_isa": (_TEXT, ()),
}


def available() -> bool:
    """Whether there are kernels for this processor: built, of this version, and not switched off by HOMEGROWN_NATIVE."""
    return _load(os.environ.get(OVERRIDE, "")) is not None


def load() -> ctypes.CDLL:
    """The library, its functions declared. ConfigError when there is none; HOMEGROWN_NATIVE=avx512|avx2|generic|off overrides
    the choice."""
    library = _load(os.environ.get(OVERRIDE, ""))
    if library is None:
        raise ConfigError("the native kernels weren't built; install again where a C++ compiler is (make does it)")
    return library


def instruction_sets() -> list[str]:
    """Those that this processor has and that were built, best first: what tests go through."""
    return [isa for isa in _runnable() if _open(isa) is not None]


@cache
def _load(wanted: str) -> ctypes.CDLL | None:
    if wanted == "off":
        return None
    if wanted and wanted not in INSTRUCTION_SETS:
        raise ConfigError(f"{OVERRIDE} must be one of {', '.join(INSTRUCTION_SETS)}, off, not {wanted!r}")
    runnable = _runnable()
    if wanted and wanted not in runnable:
        raise ConfigError(
            f"{OVERRIDE}: this processor, or this installation, has no {wanted}; it has {', '.join(runnable)}"
        )
    return next((library for isa in ([wanted] if wanted else runnable) if (library := _open(isa)) is not None), None)


def _runnable() -> list[str]:
    """Instruction sets that this processor has: the portable library tells, which runs everywhere."""
    generic = _open("generic")
    if generic is None:
        return []
    best = generic.hg_best_isa().decode()
    return list(INSTRUCTION_SETS[INSTRUCTION_SETS.index(best) :])


@cache
def _open(isa: str) -> ctypes.CDLL | None:
    """One library, or None with a line in the log: not there, not loadable, or built from other sources than these."""
    path = _DIRECTORY / f"_native_{isa}.so"
    if not path.is_file():
        return None
    try:
        library = ctypes.CDLL(str(path))
        if (abi := int(library.hg_abi())) != ABI:
            logger.warning("%s is of version %d, not %d: left aside; build it again with make", path.name, abi, ABI)
            return None
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        logger.warning("%s can't be used on this %s: %s", path.name, platform.machine(), error)
        return None
    return library
