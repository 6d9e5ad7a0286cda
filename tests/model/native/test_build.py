"""The kernels' build, and which library is loaded."""

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

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
    monkeypatch.setattr(library, "_DIRECTORY", tmp_path / "model" / "native")
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
