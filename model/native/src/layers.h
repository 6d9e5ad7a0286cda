// What lies between the matrix products, row by row: norms, rotary positions, sums. Each row by itself and in one fixed
// order, so a row's result does not depend on its company.
#pragma once

#include <cstdint>

namespace hg {

// out = (x - mean) / sqrt(variance + eps) * gain + bias (LayerNorm; bias not null), or x / sqrt(mean of squares + eps)
// * gain (RMSNorm; bias null). All [n].
void norm_row(const float* x, int64_t n, const float* gain, const float* bias, float eps, float* out);

// Turns each pair (i, i + n/2) of one head x [n] by its angle, in place: cos and sin [n/2] of the token's position.
void rope_row(float* x, int64_t n, const float* cos, const float* sin);

// Sum of a[i] * b[i], in the fixed order that all sums here have: kLanes running sums, then those pairwise.
float dot(const float* a, const float* b, int64_t n);

// y += scale * x.
void add_scaled(float* y, const float* x, float scale, int64_t n);

}  // namespace hg
