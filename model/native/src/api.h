// The C interface that Python calls through ctypes: plain structs and arrays. model/native/library.py declares the same.
#pragma once

#include <cstdint>

#define HG_API extern "C" __attribute__((visibility("default")))

namespace hg {
// Raise it with every change of a function's arguments or a struct here: Python refuses a library of another number.
constexpr int32_t kAbi = 1;
}  // namespace hg

HG_API int32_t hg_abi();
HG_API const char* hg_isa();
// The best of avx512, avx2 and generic that the processor we run on has.
HG_API const char* hg_best_isa();
