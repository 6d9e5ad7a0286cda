#include "cache.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include "vec.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace hg {

namespace {

// A vector of values may be read as a whole where the head has fewer dimensions, so the last one needs room behind it.
constexpr size_t kSlack = 64;

constexpr int32_t kMaxContext = INT32_MAX / kCacheBlock * kCacheBlock;

int32_t round_context(int32_t context) { return (context + (kCacheBlock - 1)) / kCacheBlock * kCacheBlock; }

// Whether every size is one, and no count of elements or bytes passes what can be counted.
bool countable(const Cache& cache, int32_t context) {
    if (context < 1 || context > kMaxContext) return false;
    int64_t bytes = 4;
    for (const int32_t size : {cache.n_layer, cache.n_slots, cache.n_kv_head, cache.head_dim, round_context(context)}) {
        if (size < 1 || bytes > (INT64_MAX / 4) / size) return false;
        bytes *= size;
    }
    return true;
}

size_t array_bytes(const Cache& cache) {  // of the keys alone, or the values
    return cache.head_offset(cache.n_layer, 0, 0) * cache.element() + kSlack;
}

// The system's own untouched zero pages: nothing is taken from memory until it is written.
uint8_t* reserve(size_t bytes) {
#if defined(__linux__)
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? nullptr : static_cast<uint8_t*>(memory);
#else
    // Aligned by hand: calloc leaves large blocks untouched, aligned_alloc does not zero.
    auto* memory = static_cast<uint8_t*>(std::calloc(1, bytes + 64));
    if (memory == nullptr) return nullptr;
    auto* aligned = memory + 64 - reinterpret_cast<uintptr_t>(memory) % 64;
    aligned[-1] = static_cast<uint8_t>(aligned - memory);
    return aligned;
#endif
}

void release(uint8_t* memory, size_t bytes) {
    if (memory == nullptr) return;
#if defined(__linux__)
    munmap(memory, bytes);
#else
    (void)bytes;
    std::free(memory - memory[-1]);
#endif
}

// Half saturates: an infinite key would make NaN of every later answer. NaN is the second operand, which survives.
Vec saturated(Vec x) { return vec_min(vec_set(kHalfMax), vec_max(vec_set(-kHalfMax), x)); }

uint16_t saturated_half(float x) {
    return half_of_float(x > kHalfMax ? kHalfMax : (x < -kHalfMax ? -kHalfMax : x));
}

// One key into its block: consecutive dimensions lie 16 elements apart.
void scatter_key(float* block, const float* k, int64_t head_dim) {
    for (int64_t d = 0; d < head_dim; ++d) block[d * kCacheBlock] = k[d];
}

void scatter_key(uint16_t* block, const float* k, int64_t head_dim) {
    alignas(64) uint16_t halves[kLanes];
    for (int64_t d = 0; d < head_dim; d += kLanes) {
        const int64_t n = head_dim - d < kLanes ? head_dim - d : kLanes;
        vec_store(halves, saturated(vec_load_first(k + d, n)));
        for (int64_t i = 0; i < n; ++i) block[(d + i) * kCacheBlock] = halves[i];
    }
}

void store_value(float* value, const float* v, int64_t head_dim) {
    std::memcpy(value, v, size_t(head_dim) * sizeof(float));
}

void store_value(uint16_t* value, const float* v, int64_t head_dim) {
    int64_t d = 0;
    for (; d + kLanes <= head_dim; d += kLanes) vec_store(value + d, saturated(vec_load(v + d)));
    for (; d < head_dim; ++d) value[d] = saturated_half(v[d]);
}

template <typename T>
void append(Cache& cache, size_t head, int64_t position, const float* k, const float* v) {
    const int64_t in_block = position % kCacheBlock, begin = position - in_block;
    scatter_key(reinterpret_cast<T*>(cache.keys) + head + begin * cache.head_dim + in_block, k, cache.head_dim);
    store_value(reinterpret_cast<T*>(cache.values) + head + position * cache.head_dim, v, cache.head_dim);
}

}  // namespace

bool cache_create(Cache& cache, int32_t n_layer, int32_t n_slots, int32_t n_kv_head, int32_t head_dim, int32_t context,
                  bool half) {
    cache = Cache{n_layer, n_slots, n_kv_head, head_dim, 0, half, nullptr, nullptr};
    if (!countable(cache, context)) return false;
    cache.context = round_context(context);
    cache.keys = reserve(array_bytes(cache));
    cache.values = reserve(array_bytes(cache));
    if (cache.keys != nullptr && cache.values != nullptr) return true;
    cache_destroy(cache);
    return false;
}

void cache_destroy(Cache& cache) {
    release(cache.keys, array_bytes(cache));
    release(cache.values, array_bytes(cache));
    cache.keys = cache.values = nullptr;
}

void cache_append_head(Cache& cache, int layer, int slot, int kv_head, int64_t position, const float* k,
                       const float* v) {
    const size_t head = cache.head_offset(layer, slot, kv_head);
    if (cache.half) {
        append<uint16_t>(cache, head, position, k, v);
    } else {
        append<float>(cache, head, position, k, v);
    }
}

void cache_append(Cache& cache, int layer, int slot, int64_t position, const float* k, const float* v) {
    for (int head = 0; head < cache.n_kv_head; ++head) {
        cache_append_head(cache, layer, slot, head, position, k + int64_t(head) * cache.head_dim,
                          v + int64_t(head) * cache.head_dim);
    }
}

void cache_copy_layer(Cache& cache, int layer, int source, int target, int64_t length) {
    if (source == target || length <= 0) return;
    // Whole blocks of keys: the positions behind `length` come along and stay stale.
    const size_t row = size_t(cache.head_dim) * cache.element();
    const size_t key_bytes = size_t((length + kCacheBlock - 1) / kCacheBlock * kCacheBlock) * row;
    const size_t value_bytes = size_t(length) * row;
    for (int head = 0; head < cache.n_kv_head; ++head) {
        const size_t from = cache.head_offset(layer, source, head) * cache.element();
        const size_t to = cache.head_offset(layer, target, head) * cache.element();
        std::memcpy(cache.keys + to, cache.keys + from, key_bytes);
        std::memcpy(cache.values + to, cache.values + from, value_bytes);
    }
}

void cache_copy(Cache& cache, int source, int target, int64_t length) {
    for (int layer = 0; layer < cache.n_layer; ++layer) cache_copy_layer(cache, layer, source, target, length);
}

}  // namespace hg
