"""Builds the native kernels: every model/native/src/*.cpp once per instruction set, into model/native/_native_<isa>.so.

Everything else about the package is in pyproject.toml. The kernels are optional: without a C++ compiler the installation says so
in one line, and the engine computes with PyTorch. `python setup.py build_ext --inplace` builds them alone.
"""

import os
import platform
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
SOURCES = ROOT / "model" / "native" / "src"
OBJECTS = ROOT / "build" / "native"  # kept between builds: only what changed is compiled again

# -ffp-contract=off: a product and a sum are fused where the code says so and nowhere else, so a result depends on no whim of
# the compiler. The other two give up signalling (errno, traps) and no digit, and let loops be vectorised.
FLAGS = ["-std=c++17", "-O3", "-fPIC", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden",
         "-pthread"]  # fmt: skip
AVX2 = ["-mavx2", "-mfma", "-mf16c"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni", "-mavx512bf16",
          "-mprefer-vector-width=512"]  # fmt: skip


def instruction_sets() -> dict[str, list[str]]:
    """The builds this machine's kind of processor can use, with the flags of each."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return {"generic": [], "avx2": AVX2, "avx512": AVX512} if x86 else {"generic": []}


def compiler() -> list[str] | None:
    """The C++ compiler's command: $CXX, else c++, g++ or clang++ where there is one."""
    named = os.environ.get("CXX", "").split()
    if named:
        return named if shutil.which(named[0]) else None
    return next(([name] for name in ("c++", "g++", "clang++") if shutil.which(name)), None)


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
    return [source, *(Path(name) for name in names)]


class BuildKernels(build_ext):
    """Compiles with plain commands, two at a time and more: setuptools' own way compiles one file after the other."""

    def build_extensions(self) -> None:
        """Build every instruction set that can be; one warning line for all that can't."""
        sets, failed = instruction_sets(), {}
        OBJECTS.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(os.cpu_count()) as workers:
            jobs = {ext.name: self._compile(workers, ext.name.rpartition("_")[2], sets) for ext in self.extensions}
            for ext in self.extensions:
                try:
                    objects = [job.result() for job in jobs[ext.name]]
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

    def _compile(self, workers: ThreadPoolExecutor, isa: str, sets: dict[str, list[str]]) -> list:
        (OBJECTS / isa).mkdir(exist_ok=True)
        flags = [*FLAGS, *sets[isa], f'-DHG_ISA="{isa}"']
        return [workers.submit(self._object, source, isa, flags) for source in sorted(SOURCES.glob("*.cpp"))]

    def _object(self, source: Path, isa: str, flags: list[str]) -> Path:
        target = OBJECTS / isa / f"{source.stem}.o"
        if self.force or not newer(target, Path(__file__).resolve(), *included(target.with_suffix(".d"), source)):
            self._run([*flags, "-MMD", "-MF", str(target.with_suffix(".d")), "-c", str(source)], target)
        return target

    def _link(self, objects: list[Path], target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        self._run(["-shared", "-pthread", *map(str, objects)], target)

    def _run(self, arguments: list[str], target: Path) -> None:
        """Compile or link into `target`: whole or not at all, so that two builds at once don't meet half a file."""
        command = compiler()
        if command is None:
            raise OSError(
                f"there is no C++ compiler ({os.environ.get('CXX') or 'c++, g++, clang++'}); install one, such as g++"
            )
        part, begun = target.with_name(f"{target.name}.{os.getpid()}"), time.time()
        try:
            subprocess.run([*command, *arguments, "-o", str(part)], check=True, capture_output=True, text=True)
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
