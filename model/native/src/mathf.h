// Vectorised elementwise functions of float arrays. An element's result depends on its value alone, never on where in
// an array it lies. All are in place or out of place (`out` may be `x`).
#pragma once

#include <cstdint>

namespace hg {

// out = e^x, within 1 ulp; 0 below -87.3 (no subnormals), inf above 88.7, NaN stays NaN.
void exp_array(const float* x, int64_t n, float* out);

// out = x / (1 + e^-x).
void silu_array(const float* x, int64_t n, float* out);

// out = silu(gate) * up, the gated activation of SwiGLU.
void silu_mul_array(const float* gate, const float* up, int64_t n, float* out);

// out = GELU in its tanh form: x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))).
void gelu_array(const float* x, int64_t n, float* out);

}  // namespace hg
