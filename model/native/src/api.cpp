#include "api.h"

#include <exception>
#include <new>
#include <string>

namespace {

thread_local std::string last_error;

// Runs `action` and turns what it throws into a code and a line.
template <typename Action>
int32_t guarded(Action action) {
    try {
        action();
        return 0;
    } catch (const hg::BadArgument& error) {
        last_error = error.what();
        return hg::kBadArgument;
    } catch (const std::bad_alloc&) {
        last_error = "not enough memory";
        return hg::kNoMemory;
    } catch (const std::exception& error) {
        last_error = error.what();
        return hg::kFailed;
    } catch (...) {
        last_error = "unknown failure";
        return hg::kFailed;
    }
}

}  // namespace

int32_t hg_abi() { return hg::kAbi; }

const char* hg_isa() { return HG_ISA; }

const char* hg_best_isa() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16");
    if (avx2 && avx512) return "avx512";
    if (avx2) return "avx2";
#endif
    return "generic";
}

const char* hg_error() { return last_error.c_str(); }

hg::Handle* hg_create(const hg::Shape* shape, int32_t threads) {
    hg::Handle* handle = nullptr;
    guarded([&] {
        if (threads < 1 || threads > 1024) throw hg::BadArgument("threads must be from 1 to 1024");
        handle = new hg::Handle(*shape, threads);
    });
    return handle;
}

void hg_destroy(hg::Handle* handle) { delete handle; }

int32_t hg_pack(hg::Handle* handle, int32_t matrix, int32_t layer, const hg::Piece* pieces, int32_t n_pieces) {
    return guarded([&] { handle->model.pack(static_cast<hg::Matrix>(matrix), layer, pieces, n_pieces); });
}

int32_t hg_set_vector(hg::Handle* handle, int32_t vector, int32_t layer, const float* values, int64_t n) {
    return guarded([&] { handle->model.set_vector(static_cast<hg::Vector>(vector), layer, values, n); });
}

int32_t hg_check_complete(hg::Handle* handle) {
    return guarded([&] { handle->model.check_complete(); });
}

int32_t hg_forward(hg::Handle* handle, const hg::Segment* segments, int64_t n_segments, const int32_t* tokens,
                   int64_t n_tokens, float* hidden) {
    return guarded([&] { handle->forward.hidden_states(segments, n_segments, tokens, n_tokens, hidden); });
}

int32_t hg_logits(hg::Handle* handle, const float* hidden, int64_t n_rows, float* logits) {
    return guarded([&] {
        if (handle->model.shape.head == 0) throw hg::BadArgument("a classifier's trunk has no head");
        if (n_rows < 0) throw hg::BadArgument("less than no rows");
        handle->forward.logits(hidden, n_rows, logits);
    });
}

int32_t hg_copy_slot(hg::Handle* handle, int32_t source, int32_t target, int64_t length) {
    return guarded([&] { handle->model.copy_slot(source, target, length); });
}

int32_t hg_add_pair(hg::Handle* handle, int32_t adapter, int32_t matrix, int32_t layer, int64_t offset, int64_t n_out,
                    int64_t n_in, int64_t rank, float scaling, const float* a, const float* b) {
    return guarded([&] {
        const hg::Pair shape{offset, n_out, n_in, rank, scaling, {}, {}};
        handle->model.add_pair(adapter, static_cast<hg::Matrix>(matrix), layer, shape, a, b);
    });
}

int32_t hg_remove_adapter(hg::Handle* handle, int32_t adapter) {
    return guarded([&] {
        if (handle->model.adapters.erase(adapter) == 0) throw hg::BadArgument("there is no such adapter");
    });
}
