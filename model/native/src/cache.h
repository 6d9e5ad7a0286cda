// Keys and values of past positions in fixed slots, laid out for attention.h.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hg {

constexpr int kCacheBlock = 16;  // positions in a block of keys

// Keys: [layer][slot][kv_head][context / 16][head_dim][16], transposed inside a block of 16 positions, so that one
// vector holds the same dimension of 16 keys. Values: [layer][slot][kv_head][context][head_dim]. Elements are float,
// or IEEE half when `half`. A slot's content is valid up to the length its owner tracks; what lies behind is stale
// and may hold anything, NaN included.
struct Cache {
    int32_t n_layer, n_slots, n_kv_head, head_dim;
    int32_t context;  // positions of a slot, a multiple of kCacheBlock
    bool half;
    uint8_t *keys, *values;

    size_t element() const { return half ? 2 : 4; }
    // Elements before the first of this head, in keys and in values alike.
    size_t head_offset(int64_t layer, int64_t slot, int64_t kv_head) const {
        return size_t((layer * n_slots + slot) * n_kv_head + kv_head) * size_t(context) * size_t(head_dim);
    }
};

// Reserves zeroed memory for at least `context` positions a slot, which costs nothing until it is written. False when there is
// not enough, or a size is less than 1 or too large to count.
bool cache_create(
    Cache&, int32_t n_layer, int32_t n_slots, int32_t n_kv_head, int32_t head_dim, int32_t context, bool half);
void cache_destroy(Cache&);

// Stores one token's keys and values (rotary positions already applied): k, v [n_kv_head * head_dim]. Halves are
// rounded to nearest even; what exceeds their range becomes the largest finite one; NaN stays NaN.
void cache_append(Cache&, int layer, int slot, int64_t position, const float* k, const float* v);

// The same for one head alone: k, v [head_dim]. Different heads may be stored by different threads at once.
void cache_append_head(Cache&, int layer, int slot, int kv_head, int64_t position, const float* k, const float* v);

// Copies the first `length` positions of every layer from slot `source` to slot `target`.
void cache_copy(Cache&, int source, int target, int64_t length);

// The same for one layer: a unit of work for a thread.
void cache_copy_layer(Cache&, int layer, int source, int target, int64_t length);

}  // namespace hg
