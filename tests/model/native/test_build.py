"""The kernels' build, and which library is loaded."""

import ctypes
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import setuptools

from model.errors import ConfigError
from model.native import library

ROOT = Path(__file__).resolve().parents[3]
COMPILER = next((name for name in (os.environ.get("CXX", ""), "c++", "g++", "clang++") if shutil.which(name)), None)
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler here")


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """What is loaded is remembered by instruction set: not from one test to the next."""
    library._load.cache_clear()
    library._open.cache_clear()
    yield
    library._load.cache_clear()
    library._open.cache_clear()


def build(target: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_ext", "--build-lib", str(target)],
        cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=280,
    )  # fmt: skip


@needs_compiler
def test_builds_a_library_for_every_instruction_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = build(tmp_path)  # compiles only what the installation hasn't
    assert result.returncode == 0, result.stderr
    directory = tmp_path / "model" / "native"
    shutil.copytree(ROOT / "model" / "native" / "src", directory / "src")  # they are compared with the libraries
    monkeypatch.setattr(library, "_DIRECTORY", directory)
    found = library.instruction_sets()
    assert found[-1] == "generic"
    for isa in found:
        monkeypatch.setenv(library.OVERRIDE, isa)
        assert library.load().hg_isa().decode() == isa
    monkeypatch.delenv(library.OVERRIDE)
    assert library.load().hg_isa().decode() == found[0]  # the best one


def test_without_a_compiler_installation_succeeds_with_one_line(tmp_path: Path) -> None:
    result = build(tmp_path, CXX="no-such-compiler")
    assert result.returncode == 0
    assert len(result.stderr.strip().splitlines()) == 1
    assert "there is no C++ compiler (no-such-compiler)" in result.stderr
    assert "PyTorch" in result.stderr
    assert not list(tmp_path.rglob("*.so"))


def test_without_libraries_there_are_no_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(library.OVERRIDE, raising=False)
    monkeypatch.setattr(library, "_DIRECTORY", tmp_path)
    assert not library.available()
    with pytest.raises(ConfigError, match="weren't built"):
        library.load()


@needs_compiler
def test_a_library_of_another_version_is_left_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = tmp_path / "old.cpp"
    source.write_text('extern "C" int hg_abi() { return 999; }')
    subprocess.run(
        [str(COMPILER), "-shared", "-fPIC", str(source), "-o", str(tmp_path / "_native_generic.so")], check=True
    )
    (tmp_path / "_native_avx2.so").write_bytes(b"no library at all")
    monkeypatch.setattr(library, "_DIRECTORY", tmp_path)
    monkeypatch.delenv(library.OVERRIDE, raising=False)
    with caplog.at_level(logging.WARNING):
        assert not library.available()
        assert library._open("avx2") is None
    assert [record.getMessage().partition(" ")[0] for record in caplog.records] == [
        "_native_generic.so",
        "_native_avx2.so",
    ]
    assert "of version 999" in caplog.messages[0]
    assert "make" in caplog.messages[0]


needs_library = pytest.mark.skipif(
    not (library._DIRECTORY / "_native_generic.so").is_file(), reason="the native kernels weren't built here"
)


@needs_library
def test_the_libraries_here_are_of_the_sources_here() -> None:
    present = library.sources_digest(library._DIRECTORY / "src")
    for path in library._DIRECTORY.glob("_native_*.so"):
        kernels = ctypes.CDLL(str(path))
        kernels.hg_sources.restype = ctypes.c_char_p
        assert kernels.hg_sources().decode() == present, f"{path.name}: {library.BUILD_AGAIN}"


@needs_library
@pytest.mark.parametrize(("changed", "line"), [("rows.h", "// more\n"), ("flags.toml", "# more\n"), ("new.h", "")])
def test_a_library_of_other_sources_is_left_aside_with_one_line(
    tmp_path: Path, changed: str, line: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(library._DIRECTORY, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(library, "_DIRECTORY", tmp_path)
    monkeypatch.delenv(library.OVERRIDE, raising=False)
    assert library.available()
    with (tmp_path / "src" / changed).open("a") as file:
        file.write(line)
    for remembered in (library._load, library._open):
        remembered.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert not library.available()
    assert len(caplog.records) == 1
    assert "compiled from other sources than lie beside it" in caplog.messages[0]
    assert "`make`" in caplog.messages[0]
    assert "pip install -e ." in caplog.messages[0]
    with pytest.raises(ConfigError, match="not from these sources; build them again"):
        library.load()
    shutil.rmtree(tmp_path / "src")  # nothing to compare with: an installation may hold the libraries alone
    for remembered in (library._load, library._open):
        remembered.cache_clear()
    assert library.available()


@needs_compiler
def test_a_library_that_lacks_a_function_is_left_aside_when_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    functions = "".join(f'extern "C" void {name}() {{}}\n' for name in library._SIGNATURES if name != "hg_rows_top")
    source = tmp_path / "part.cpp"
    source.write_text(f'extern "C" int hg_abi() {{ return {library.ABI}; }}\n{functions}')
    subprocess.run(
        [str(COMPILER), "-shared", "-fPIC", str(source), "-o", str(tmp_path / "_native_generic.so")], check=True
    )
    monkeypatch.setattr(library, "_DIRECTORY", tmp_path)
    monkeypatch.delenv(library.OVERRIDE, raising=False)
    with caplog.at_level(logging.WARNING):
        assert not library.available()
    assert len(caplog.records) == 1
    assert "hg_rows_top" in caplog.messages[0]
    assert "`make`" in caplog.messages[0]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """setup.py as a module, nothing built."""
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    spec = importlib.util.spec_from_file_location("homegrown_setup", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_setup_and_loader_agree_on_the_sources(script: ModuleType) -> None:
    assert script.sources_digest() == library.sources_digest(script.SOURCES)


@needs_compiler
def test_an_object_is_compiled_again_when_flags_compiler_or_source_change(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, wrapper = tmp_path / "tiny.cpp", tmp_path / "c++"
    source.write_text("int one() { return 1; }\n")
    command = script.BuildKernels(setuptools.Distribution())
    runs: list[list[str]] = []
    run = command._run

    def counted(arguments: list[str], target: Path) -> None:
        runs.append(arguments)
        run(arguments, target)

    def compile_with(*flags: str) -> int:
        before = len(runs)
        command._object(source, tmp_path, ["-fPIC", *flags])
        return len(runs) - before

    monkeypatch.setattr(command, "_run", counted)
    assert [compile_with(), compile_with()] == [1, 0]
    assert [compile_with("-O1"), compile_with("-O1"), compile_with()] == [1, 0, 1]
    wrapper.write_text(f'#!/bin/sh\nexec {shutil.which(str(COMPILER))} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("CXX", str(wrapper))
    assert [compile_with(), compile_with()] == [1, 0]
    source.write_text("int two() { return 2; }\n")
    assert compile_with() == 1


@pytest.mark.parametrize(
    ("cores", "limit", "wanted"),
    [(4, None, 4), (4, "max 100000", 4), (4, "250000 100000", 3), (4, "50000 100000", 1), (64, None, 8)],
)
def test_as_many_compilers_as_this_process_may_use_cores(
    script: ModuleType, cores: int, limit: str | None, wanted: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr(script, "CPU_LIMIT", tmp_path / "cpu.max")
    if limit is not None:
        (tmp_path / "cpu.max").write_text(f"{limit}\n")
    assert script.jobs() == wanted


def test_the_version_is_the_same_in_both_languages() -> None:
    header = (ROOT / "model" / "native" / "src" / "api.h").read_text()
    assert f"constexpr int32_t kAbi = {library.ABI};" in header


def test_the_override_chooses_or_says_why_it_can_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(library.OVERRIDE, "off")
    assert not library.available()
    monkeypatch.setenv(library.OVERRIDE, "sse9")
    with pytest.raises(ConfigError, match="HOMEGROWN_NATIVE must be one of avx512, avx2, generic, off, not 'sse9'"):
        library.available()
    monkeypatch.setattr(library, "_runnable", lambda: ["generic"])
    monkeypatch.setenv(library.OVERRIDE, "avx512")
    with pytest.raises(ConfigError, match="has no avx512; it has generic"):
        library.available()
