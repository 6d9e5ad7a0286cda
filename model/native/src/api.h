// The C interface that Python calls through ctypes: plain structs and arrays. model/native/library.py declares the same.
//
// Functions that can fail give 0, or a code below with the reason in hg_error. None throws, none ends the process; a null
// handle is a wrong argument. A handle is for one thread at a time.
#pragma once

#include <cstdint>
#include <exception>
#include <new>

#include "forward.h"

#define HG_API extern "C" __attribute__((visibility("default")))

namespace hg {

// Raise it with every change of a function's arguments or a struct here: Python refuses a library of another number.
constexpr int32_t kAbi = 2;

constexpr int32_t kBadArgument = 1, kNoMemory = 2, kFailed = 3;

// Keeps the reason for hg_error; gives `code`.
int32_t failed(int32_t code, const char* reason) noexcept;

// Runs `action` and turns what it throws into a code and a reason.
template <typename Action>
int32_t guarded(Action action) noexcept {
    try {
        action();
        return 0;
    } catch (const BadArgument& error) {
        return failed(kBadArgument, error.what());
    } catch (const std::bad_alloc&) {
        return failed(kNoMemory, "not enough memory");
    } catch (const std::exception& error) {
        return failed(kFailed, error.what());
    } catch (...) {
        return failed(kFailed, "unknown failure");
    }
}

struct Handle {
    Handle(const Shape& shape, int threads) : model(shape, threads), forward(model) {}
    Model model;
    Forward forward;
};

}  // namespace hg

HG_API int32_t hg_abi();
HG_API const char* hg_sources();   // digest of the sources and flags that this library was compiled from: setup.py
HG_API const char* hg_isa();       // that this library was compiled for
HG_API const char* hg_best_isa();  // of avx512, avx2 and generic the best that this processor has
HG_API const char* hg_error();     // why the last call of this thread failed

// kBadArgument when the kernels can't compute a model of this shape, whatever the memory and the threads.
HG_API int32_t hg_check_shape(const hg::Shape* shape);

// A model without weights: set every matrix and vector, then check.
HG_API int32_t hg_create(const hg::Shape* shape, int32_t threads, hg::Handle** created);
HG_API void hg_destroy(hg::Handle* handle);

// Packs rows [row_begin, row_end) of a matrix, of which the pieces are all; in order, from row 0 to the last. A range ends at
// a multiple of hg_pack_rows, or at the last row.
HG_API int32_t hg_pack(hg::Handle* handle, int32_t matrix, int32_t layer, const hg::Piece* pieces, int32_t n_pieces,
                       int64_t row_begin, int64_t row_end);
HG_API int64_t hg_pack_rows();
HG_API int32_t hg_set_vector(hg::Handle* handle, int32_t vector, int32_t layer, const float* values, int64_t n);
HG_API int32_t hg_check_complete(hg::Handle* handle);

HG_API int32_t hg_forward(hg::Handle* handle, const hg::Segment* segments, int64_t n_segments, const int32_t* tokens,
                          int64_t n_tokens, float* hidden);
HG_API int32_t hg_logits(hg::Handle* handle, const float* hidden, int64_t n_rows, float* logits);
HG_API int32_t hg_copy_slot(hg::Handle* handle, int32_t source, int32_t target, int64_t length);

// a [rank, n_in], b [n_out, rank]: onto columns [offset, offset + n_out) of a block's product.
HG_API int32_t hg_add_pair(hg::Handle* handle, int32_t adapter, int32_t matrix, int32_t layer, int64_t offset, int64_t n_out,
                           int64_t n_in, int64_t rank, float scaling, const float* a, const float* b);
HG_API int32_t hg_remove_adapter(hg::Handle* handle, int32_t adapter);
