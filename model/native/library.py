"""Finds and loads the compiled kernels: the library for the best instruction set that this processor has."""

import ctypes
import hashlib
import logging
import os
import platform
from functools import cache
from pathlib import Path

from model.errors import ConfigError

logger = logging.getLogger(__name__)

ABI = 2  # kAbi of src/api.h
INSTRUCTION_SETS = ("avx512", "avx2", "generic")  # best first
OVERRIDE = "HOMEGROWN_NATIVE"
BUILD_AGAIN = "build them again with `make`, or pip install -e . where a C++ compiler is"
BAD_ARGUMENT, NO_MEMORY = 1, 2  # of src/api.h
_DIRECTORY = Path(__file__).resolve().parent

_I32, _I64, _F32, _P, _TEXT = ctypes.c_int32, ctypes.c_int64, ctypes.c_float, ctypes.c_void_p, ctypes.c_char_p


class Shape(ctypes.Structure):
    """hg::Shape of src/model.h."""

    _fields_ = [
        *(
            (name, _I32)
            for name in ("architecture", "vocab_size", "n_layer", "n_head", "n_kv_head", "head_dim", "d_model")
        ),
        ("d_ff", _I32),
        ("norm_eps", _F32),
        *((name, _I32) for name in ("format", "head_format", "tied", "head", "n_slots", "context", "half_cache")),
    ]


class Piece(ctypes.Structure):
    """hg::Piece of src/model.h."""

    _fields_ = [("data", _P), ("dtype", _I32), ("rows", _I64), ("row_stride", _I64), ("column_stride", _I64)]


class SegmentRecord(ctypes.Structure):
    """hg::Segment of src/forward.h."""

    _fields_ = [("slot", _I32), ("adapter", _I32), ("start", _I64), ("n_tokens", _I64), ("n_outputs", _I64)]


# Function -> result and arguments, as src/api.h and src/rows_api.cpp declare them. Pointers are plain addresses.
_SIGNATURES: dict[str, tuple[type | None, tuple[type, ...]]] = {
    "hg_sources": (_TEXT, ()),
    "hg_isa": (_TEXT, ()),
    "hg_best_isa": (_TEXT, ()),
    "hg_error": (_TEXT, ()),
    "hg_check_shape": (_I32, (ctypes.POINTER(Shape),)),
    "hg_create": (_I32, (ctypes.POINTER(Shape), _I32, ctypes.POINTER(_P))),
    "hg_destroy": (None, (_P,)),
    "hg_pack": (_I32, (_P, _I32, _I32, ctypes.POINTER(Piece), _I32, _I64, _I64)),
    "hg_pack_rows": (_I64, ()),
    "hg_set_vector": (_I32, (_P, _I32, _I32, _P, _I64)),
    "hg_check_complete": (_I32, (_P,)),
    "hg_forward": (_I32, (_P, ctypes.POINTER(SegmentRecord), _I64, _P, _I64, _P)),
    "hg_logits": (_I32, (_P, _P, _I64, _P)),
    "hg_copy_slot": (_I32, (_P, _I32, _I32, _I64)),
    "hg_add_pair": (_I32, (_P, _I32, _I32, _I32, _I64, _I64, _I64, _I64, _F32, _P, _P)),
    "hg_remove_adapter": (_I32, (_P, _I32)),
    "hg_rows_scan": (_I32, (_P, _I64, _I64, _I64, _P, _P, _P, _P)),
    "hg_rows_draw": (_I32, (_P, _I64, _I64, _I64, _P, _P)),
    "hg_rows_top": (_I32, (_P, _I64, _I64, _I64, _I64, _P, _P)),
}


def check(library: ctypes.CDLL, code: int) -> None:
    """Raise what a function of the library reports: ValueError for a wrong argument, MemoryError, RuntimeError; 0 is none."""
    if code:
        kind = {BAD_ARGUMENT: ValueError, NO_MEMORY: MemoryError}.get(code, RuntimeError)
        raise kind(f"native kernels: {library.hg_error().decode(errors='replace')}")


def available() -> bool:
    """Whether there are kernels for this processor: built, from these sources, and not switched off by HOMEGROWN_NATIVE."""
    return _load(os.environ.get(OVERRIDE, "")) is not None


def load() -> ctypes.CDLL:
    """The library, its functions declared. ConfigError when there is none; HOMEGROWN_NATIVE=avx512|avx2|generic|off overrides
    the choice."""
    library = _load(os.environ.get(OVERRIDE, ""))
    if library is None:
        raise ConfigError(f"the native kernels weren't built, or not from these sources; {BUILD_AGAIN}")
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


def sources_digest(directory: Path) -> str | None:
    """What a library compiled from the sources in `directory` says of them (setup.py computes it too); None where there are
    none: an installation may hold the libraries alone."""
    paths = [path for path in directory.glob("*") if path.suffix in (".cpp", ".h", ".toml")]
    if not paths:
        return None
    digest = hashlib.sha256()
    for path in sorted(paths):
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


@cache
def _open(isa: str) -> ctypes.CDLL | None:
    """One library, its functions declared, or None with a line in the log: not loadable here, or compiled from other sources than
    lie beside it. None without a line: not there."""
    path = _DIRECTORY / f"_native_{isa}.so"
    if not path.is_file():
        return None
    try:
        library = ctypes.CDLL(str(path))
        why = _stale(library)
    except (OSError, AttributeError) as error:
        why = f"can't be used on this {platform.machine()} ({error})"
    if why is None:
        return library
    logger.warning("%s %s: the native kernels are left aside; %s", path.name, why, BUILD_AGAIN)
    return None


def _stale(library: ctypes.CDLL) -> str | None:
    """Why the library isn't of these sources, or None; declares its functions. AttributeError when it lacks one."""
    if (abi := int(library.hg_abi())) != ABI:
        return f"is of version {abi}, not {ABI}"
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    present = sources_digest(_DIRECTORY / "src")
    if present is not None and library.hg_sources().decode() != present:
        return "was compiled from other sources than lie beside it"
    return None
