"""Builds the native kernels: every model/native/src/*.cpp once per instruction set, into model/native/_native_<isa>.so.

Everything else about the package is in pyproject.toml. The kernels are optional: without a C++ compiler the installation says so
in one line, and the engine computes with PyTorch. `python setup.py build_ext --inplace` builds them alone.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
SOURCES = ROOT / "model" / "native" / "src"
OBJECTS = ROOT / "build" / "native"  # kept between builds: only what changed is compiled again
CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")  # a container's: microseconds of processor time in a period, and the period
FLAGS = tomllib.loads((SOURCES / "flags.toml").read_text())
MAX_JOBS = 8  # a compiler takes some 300 MB


def instruction_sets() -> dict[str, list[str]]:
    """The builds this machine's kind of processor can use, with the flags of each."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return {isa: flags for isa, flags in FLAGS["instruction_sets"].items() if x86 or isa == "generic"}


def sources_digest() -> str:
    """What the libraries say they were compiled from. model/native/library.py computes the same, to tell a stale one."""
    digest = hashlib.sha256()
    for path in sorted(SOURCES.iterdir()):
        if path.suffix in (".cpp", ".h", ".toml"):
            content = path.read_bytes()
            digest.update(f"{path.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def jobs() -> int:
    """How many compilers run at once: one for each processor that this process may use, within bounds."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = map(int, CPU_LIMIT.read_text().split())
        cores = min(cores, -(-quota // period))
    except (OSError, ValueError):  # no such file, or "max": no limit
        pass
    return max(1, min(cores, MAX_JOBS))


def compiler() -> list[str] | None:
    """The C++ compiler's command: $CXX, else c++, g++ or clang++ where there is one."""
    named = os.environ.get("CXX", "").split()
    if named:
        return named if shutil.which(named[0]) else None
    return next(([name] for name in ("c++", "g++", "clang++") if shutil.which(name)), None)


@cache
def version(*command: str) -> str:
    """What the compiler says it is."""
    return subprocess.run([*command, "--version"], check=True, capture_output=True, text=True).stdout


def newer(target: Path, *inputs: Path) -> bool:
    """Whether `target` is there, every input too, and none changed after it."""
    return target.is_file() and all(
        path.is_file() and path.stat().st_mtime <= target.stat().st_mtime for path in inputs
    )


def included(made: Path, source: Path) -> list[Path]:
    """The source and every header of ours that it includes, as the compiler wrote them down beside the object."""
    if not made.is_file():
        return [made]  # not there: so compile
    names = made.read_text().replace("\\\n", " ").partition(":")[2].split()
    return [source, *(ROOT / name for name in names)]


class BuildKernels(build_ext):
    """Compiles with plain commands, two at a time and more: setuptools' own way compiles one file after the other."""

    def build_extensions(self) -> None:
        """Build every instruction set that can be; one warning line for all that can't."""
        sets, failed, digest = instruction_sets(), {}, sources_digest()
        OBJECTS.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(jobs()) as workers:
            work = {
                ext.name: self._compile(workers, ext.name.rpartition("_")[2], sets, digest) for ext in self.extensions
            }
            for ext in self.extensions:
                try:
                    objects = [job.result() for job in work[ext.name]]
                    self._link(objects, Path(self.get_ext_fullpath(ext.name)))
                except (OSError, subprocess.CalledProcessError) as error:
                    failed[ext.name.rpartition("_")[2]] = str(getattr(error, "stderr", "") or error).strip()
        # What couldn't be built is not copied beside the sources either; what lies there already stays.
        self.extensions = [ext for ext in self.extensions if ext.name.rpartition("_")[2] not in failed]
        if failed:
            first = next(
                (line for text in failed.values() for line in text.splitlines() if "error" in line.lower()), ""
            )
            why = first or next(iter(failed.values())).splitlines()[0]
            print(f"warning: kernels not built for {', '.join(failed)}: {why}; the engine uses what there is, else PyTorch",
                  file=sys.stderr)  # fmt: skip

    def _compile(self, workers: ThreadPoolExecutor, isa: str, sets: dict[str, list[str]], digest: str) -> list:
        (OBJECTS / isa).mkdir(exist_ok=True)
        flags = [*FLAGS["common"], *sets[isa], f'-DHG_ISA="{isa}"']
        # The digest changes with every source: only the one that tells it is compiled anew for it.
        own = {"api": [f'-DHG_SOURCES="{digest}"']}
        return [
            workers.submit(self._object, source, OBJECTS / isa, [*flags, *own.get(source.stem, [])])
            for source in sorted(SOURCES.glob("*.cpp"))
        ]

    def _object(self, source: Path, directory: Path, flags: list[str]) -> Path:
        """The source compiled into `directory`: anew if it, a header, the flags or the compiler changed."""
        target = directory / f"{source.stem}.o"
        made, recipe = target.with_suffix(".d"), target.with_suffix(".recipe")
        command = self._compiler()
        wanted = "\n".join([*command, *flags, version(*command)])
        same = recipe.is_file() and recipe.read_text() == wanted
        if self.force or not same or not newer(target, *included(made, source)):
            recipe.unlink(missing_ok=True)
            self._run([*flags, "-MMD", "-MF", str(made), "-c", os.path.relpath(source, ROOT)], target)
            recipe.write_text(wanted)
        return target

    def _link(self, objects: list[Path], target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        self._run(["-shared", "-pthread", *map(str, objects)], target)

    def _compiler(self) -> list[str]:
        command = compiler()
        if command is None:
            raise OSError(
                f"there is no C++ compiler ({os.environ.get('CXX') or 'c++, g++, clang++'}); install one, such as g++"
            )
        return command

    def _run(self, arguments: list[str], target: Path) -> None:
        """Compile or link into `target`: whole or not at all, so that two builds at once don't meet half a file."""
        part, begun = target.with_name(f"{target.name}.{os.getpid()}"), time.time()
        try:
            subprocess.run(
                [*self._compiler(), *arguments, "-o", str(part)], check=True, capture_output=True, text=True, cwd=ROOT
            )
            os.utime(part, (begun, begun))  # a source changed while it was compiled is newer
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    def get_ext_filename(self, fullname: str) -> str:
        """model.native._native_avx2 -> model/native/_native_avx2.so: loaded through ctypes, so of no Python's version."""
        return str(Path(*fullname.split("."))) + ".so"


setup(
    cmdclass={"build_ext": BuildKernels},
    ext_modules=[
        Extension(
            f"model.native._native_{isa}", [str(path.relative_to(ROOT)) for path in sorted(SOURCES.glob("*.cpp"))]
        )
        for isa in instruction_sets()
    ],
)
