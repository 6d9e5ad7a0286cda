// Causal attention of a segment's new queries over its slot of the cache.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cache.h"

namespace hg {

// Bytes of scratch memory that one thread needs for attention_run, 64-byte aligned.
size_t attention_scratch(const Cache&);

// One unit of work: queries [q_begin, q_end) of one segment, for one key/value head and its group of query heads.
//
// `start` is the absolute position of the segment's query 0; query i sees positions 0..start + i, which must have been
// appended. Query head g of the group for query i is at q + i * q_stride + g * head_dim, its result goes to
// out + i * out_stride + g * head_dim: q and out point at the group's first head in row 0 of the segment, strides are
// in floats, and a row holds the group's heads side by side. Scores are scaled by 1 / sqrt(head_dim). q and out may
// not overlap.
//
// A query's result depends on nothing but its own q and the positions it sees: bit for bit the same however queries
// are cut into calls. Positions that it doesn't see are never read into a sum, so they may hold NaN.
void attention_run(
    const Cache&, int layer, int slot, int kv_head, int group, int64_t start, int64_t q_begin, int64_t q_end,
    const float* q, int64_t q_stride, float* out, int64_t out_stride, uint8_t* scratch);

// Multiply-adds of such a unit, to cut work into even pieces.
int64_t attention_cost(const Cache&, int group, int64_t start, int64_t q_begin, int64_t q_end);

}  // namespace hg
