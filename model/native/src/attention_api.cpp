// The cache, attention and elementwise functions alone, for tests and measurements; the forward pass calls them directly.
#include <memory>
#include <new>

#include "api.h"
#include "attention.h"
#include "mathf.h"

HG_API hg::Cache* hg_cache_create(int32_t n_layer, int32_t n_slots, int32_t n_kv_head, int32_t head_dim,
                                  int32_t context, int32_t half) {
    auto* cache = new (std::nothrow) hg::Cache{};
    if (cache != nullptr && hg::cache_create(*cache, n_layer, n_slots, n_kv_head, head_dim, context, half != 0)) {
        return cache;
    }
    delete cache;
    return nullptr;
}

HG_API void hg_cache_destroy(hg::Cache* cache) {
    if (cache == nullptr) return;
    hg::cache_destroy(*cache);
    delete cache;
}

// Keys and values of n tokens behind one another: k, v [n, n_kv_head * head_dim].
HG_API void hg_cache_append(hg::Cache* cache, int32_t layer, int32_t slot, int64_t position, int64_t n, const float* k,
                            const float* v) {
    const int64_t width = int64_t(cache->n_kv_head) * cache->head_dim;
    for (int64_t i = 0; i < n; ++i) hg::cache_append(*cache, layer, slot, position + i, k + i * width, v + i * width);
}

HG_API void hg_cache_copy(hg::Cache* cache, int32_t source, int32_t target, int64_t length) {
    hg::cache_copy(*cache, source, target, length);
}

HG_API uint8_t* hg_cache_keys(hg::Cache* cache) { return cache->keys; }
HG_API uint8_t* hg_cache_values(hg::Cache* cache) { return cache->values; }

// All key/value heads of queries [q_begin, q_end): q, out [segment, n_kv_head * group * head_dim].
HG_API int32_t hg_attention(const hg::Cache* cache, int32_t layer, int32_t slot, int32_t group, int64_t start,
                            int64_t q_begin, int64_t q_end, const float* q, float* out) {
    const size_t bytes = hg::attention_scratch(*cache);
    const std::unique_ptr<uint8_t[]> memory(new (std::nothrow) uint8_t[bytes + 64]);
    if (memory == nullptr) return -1;
    uint8_t* scratch = memory.get() + 64 - reinterpret_cast<uintptr_t>(memory.get()) % 64;
    const int64_t head = int64_t(group) * cache->head_dim, stride = head * cache->n_kv_head;
    for (int kv_head = 0; kv_head < cache->n_kv_head; ++kv_head) {
        hg::attention_run(*cache, layer, slot, kv_head, group, start, q_begin, q_end, q + kv_head * head, stride,
                          out + kv_head * head, stride, scratch);
    }
    return 0;
}

// 0 exp, 1 SiLU, 2 GELU; SiLU(x) * up where `up` is given.
HG_API void hg_elementwise(int32_t kind, const float* x, const float* up, int64_t n, float* out) {
    if (up != nullptr) return hg::silu_mul_array(x, up, n, out);
    if (kind == 0) return hg::exp_array(x, n, out);
    if (kind == 1) return hg::silu_array(x, n, out);
    hg::gelu_array(x, n, out);
}
