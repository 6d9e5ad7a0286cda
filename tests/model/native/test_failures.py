"""What fails inside the kernels fails the call that asked, and nothing more: small programs over the pool and the library."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from model.native import library

SOURCES = Path(library.__file__).parent / "src"
COMPILER = next((name for name in (os.environ.get("CXX", ""), "c++", "g++", "clang++") if shutil.which(name)), None)
pytestmark = pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler here")

# Regions of which some chunks throw: every chunk runs, the caller gets one of the exceptions, and the next region is whole.
POOL = """
#include <atomic>
#include <cstdio>
#include <stdexcept>
#include <string>

#include "pool.h"

int main() {
    for (int threads : {1, 2, 5}) {
        hg::Pool pool(threads);
        for (int region = 0; region < 2000; ++region) {
            const int64_t n = 1 + region % 40;
            std::atomic<int64_t> ran{0}, sum{0};
            const bool failing = region % 3 != 0;
            std::string caught;
            try {
                pool.run(n, [&](int64_t chunk, int) {
                    ran.fetch_add(1);
                    if (failing && chunk % 2 == 0) throw std::runtime_error("region " + std::to_string(region));
                    sum.fetch_add(chunk);
                });
            } catch (const std::runtime_error& error) {
                caught = error.what();
            }
            const std::string wanted = failing ? "region " + std::to_string(region) : "";
            if (ran != n || caught != wanted) {
                std::printf("%d threads, region %d: %d of %d chunks, caught '%s'\\n", threads, region, int(ran), int(n),
                            caught.c_str());
                return 1;
            }
        }
    }
    std::puts("well");
}
"""

# Memory for large blocks runs out once `armed`: while the threads pack weights, then while a row's token is drawn.
MEMORY = """
#include <cstdio>
#include <cstdlib>
#include <new>
#include <vector>

#include "api.h"
#include "rows.h"

static bool armed = false;
void* operator new(size_t n) {
    void* got = armed && n > 50000 ? nullptr : std::malloc(n > 0 ? n : 1);
    if (got == nullptr) throw std::bad_alloc();
    return got;
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }

extern "C" int32_t hg_rows_draw(const float*, int64_t, int64_t, int64_t, const hg::RowDraw*, int32_t*);

int main() {
    hg::Shape s{};
    s.vocab_size = 4000, s.d_model = 768, s.d_ff = 64;
    s.n_layer = s.n_head = s.n_kv_head = s.n_slots = s.tied = s.head = s.half_cache = 1;
    s.head_dim = 16, s.context = 8, s.norm_eps = 1e-5f;
    s.format = s.head_format = hg::Format::int8;
    for (int threads : {1, 2, 3}) {
        hg::Handle* handle = nullptr;
        if (hg_create(&s, threads, &handle) != 0) return 1;
        std::vector<float> weights(4000 * 768, 0.1f);
        const hg::Piece piece{weights.data(), 0, 4000, 768, 1};
        for (bool now : {true, false, true}) {
            armed = now;
            const int32_t code = hg_pack(handle, 5, 0, &piece, 1, 0, 4000);
            armed = false;
            std::printf("%d ", code);
        }
        hg_destroy(handle);
    }
    std::vector<float> row(100000);
    for (size_t i = 0; i < row.size(); ++i) row[i] = static_cast<float>(i % 1000) * 1e-4f;
    const hg::RowDraw draw{1.0, 0.9, 0.0, 0, 0.3};
    int32_t token = 0;
    for (bool now : {true, false}) {
        armed = now;
        const int32_t code = hg_rows_draw(row.data(), 1, 100000, 100000, &draw, &token);
        armed = false;
        std::printf("%d ", code);
    }
    std::puts(hg_error());
}
"""


def run(directory: Path, program: str, *more: str) -> str:
    source, binary = directory / "program.cpp", directory / "program"
    source.write_text(program)
    subprocess.run(
        [str(COMPILER), "-std=c++17", "-O1", "-pthread", f"-I{SOURCES}", str(source), *more, "-o", str(binary)],
        check=True,
    )
    done = subprocess.run([str(binary)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def test_a_chunk_that_throws_is_done_and_the_caller_is_told(tmp_path: Path) -> None:
    assert run(tmp_path, POOL, str(SOURCES / "pool.cpp")) == "well"


@pytest.mark.skipif("generic" not in library.instruction_sets(), reason="the native kernels weren't built here")
def test_memory_that_runs_out_in_a_thread_fails_the_call_alone(tmp_path: Path) -> None:
    built = Path(library.__file__).parent / "_native_generic.so"
    printed = run(tmp_path, MEMORY, str(built), f"-Wl,-rpath,{built.parent}")
    assert printed == "2 0 2 2 0 2 2 0 2 2 0 not enough memory"
