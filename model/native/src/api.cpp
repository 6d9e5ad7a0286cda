#include "api.h"

#include <cstdio>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace {

thread_local char last_error[256] = "";  // not a string: to keep a reason must not need memory

hg::Handle& open(hg::Handle* handle) {
    if (handle == nullptr) throw hg::BadArgument("the handle is null: there is no such model, or no more");
    return *handle;
}

#if defined(__x86_64__)
// Asked of the processor itself: compilers' __builtin_cpu_supports doesn't know it everywhere.
bool has_f16c() {
    unsigned int a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}
#endif

}  // namespace

int32_t hg::failed(int32_t code, const char* reason) noexcept {
    std::snprintf(last_error, sizeof(last_error), "%s", reason);
    return code;
}

int32_t hg_abi() { return hg::kAbi; }

const char* hg_sources() { return HG_SOURCES; }

const char* hg_isa() { return HG_ISA; }

const char* hg_best_isa() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16");
    if (avx2 && avx512) return "avx512";
    if (avx2) return "avx2";
#endif
    return "generic";
}

const char* hg_error() { return last_error; }

int32_t hg_check_shape(const hg::Shape* shape) {
    return hg::guarded([&] { hg::check_shape(*shape); });
}

int32_t hg_create(const hg::Shape* shape, int32_t threads, hg::Handle** created) {
    return hg::guarded([&] {
        if (threads < 1 || threads > 1024) throw hg::BadArgument("threads must be from 1 to 1024");
        *created = new hg::Handle(*shape, threads);
    });
}

void hg_destroy(hg::Handle* handle) { delete handle; }

int32_t hg_pack(hg::Handle* handle, int32_t matrix, int32_t layer, const hg::Piece* pieces, int32_t n_pieces,
                int64_t row_begin, int64_t row_end) {
    return hg::guarded(
        [&] { open(handle).model.pack(static_cast<hg::Matrix>(matrix), layer, pieces, n_pieces, row_begin, row_end); });
}

int64_t hg_pack_rows() { return hg::kPanel; }

int32_t hg_set_vector(hg::Handle* handle, int32_t vector, int32_t layer, const float* values, int64_t n) {
    return hg::guarded([&] { open(handle).model.set_vector(static_cast<hg::Vector>(vector), layer, values, n); });
}

int32_t hg_check_complete(hg::Handle* handle) {
    return hg::guarded([&] { open(handle).model.check_complete(); });
}

int32_t hg_forward(hg::Handle* handle, const hg::Segment* segments, int64_t n_segments, const int32_t* tokens,
                   int64_t n_tokens, float* hidden) {
    return hg::guarded([&] { open(handle).forward.hidden_states(segments, n_segments, tokens, n_tokens, hidden); });
}

int32_t hg_logits(hg::Handle* handle, const float* hidden, int64_t n_rows, float* logits) {
    return hg::guarded([&] {
        if (open(handle).model.shape.head == 0) throw hg::BadArgument("a classifier's trunk has no head");
        if (n_rows < 0) throw hg::BadArgument("less than no rows");
        open(handle).forward.logits(hidden, n_rows, logits);
    });
}

int32_t hg_copy_slot(hg::Handle* handle, int32_t source, int32_t target, int64_t length) {
    return hg::guarded([&] { open(handle).model.copy_slot(source, target, length); });
}

int32_t hg_add_pair(hg::Handle* handle, int32_t adapter, int32_t matrix, int32_t layer, int64_t offset, int64_t n_out,
                    int64_t n_in, int64_t rank, float scaling, const float* a, const float* b) {
    return hg::guarded([&] {
        const hg::Pair shape{offset, n_out, n_in, rank, scaling, {}, {}};
        open(handle).model.add_pair(adapter, static_cast<hg::Matrix>(matrix), layer, shape, a, b);
    });
}

int32_t hg_remove_adapter(hg::Handle* handle, int32_t adapter) {
    return hg::guarded([&] {
        if (open(handle).model.adapters.erase(adapter) == 0) throw hg::BadArgument("there is no such adapter");
    });
}
