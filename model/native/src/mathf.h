// Vectorised elementwise functions of float arrays. An element's result depends on its value alone, never on where in
// an array it lies. All are in place or out of place (`out` may be `x`).
#pragma once

#include <cstdint>
#include <cstring>

#include "simd.h"

namespace hg {

// out = e^x, within 1 ulp; 0 below -87.3 (no subnormals), inf above 88.7, NaN stays NaN.
void exp_array(const float* x, int64_t n, float* out);

// out = x / (1 + e^-x).
void silu_array(const float* x, int64_t n, float* out);

// out = silu(gate) * up, the gated activation of SwiGLU.
void silu_mul_array(const float* gate, const float* up, int64_t n, float* out);

// out = GELU in its tanh form: x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))).
void gelu_array(const float* x, int64_t n, float* out);

HG_INLINE double fma_f64(double a, double b, double c) {  // fused where that is one instruction
#if defined(HG_AVX512) || defined(HG_AVX2)
    return __builtin_fma(a, b, c);
#else
    return a * b + c;
#endif
}

// e^x in float64 for x <= 0, within 2 ulp, 1 at 0; 0 below -700, NaN stays NaN. Without branches: loops over it become
// vectors.
HG_INLINE double exp_f64(double x) {
    constexpr double kRounder64 = 6755399441055744.0;  // 1.5 * 2^52: adding it rounds to the nearest integer
    constexpr double kLog2E64 = 1.4426950408889634;
    constexpr double kLn2High64 = 0x1.62e42feep-1, kLn2Low64 = 0x1.a39ef35793c76p-33;
    const double shifted = fma_f64(x, kLog2E64, kRounder64);
    const double n = shifted - kRounder64;
    const double r = fma_f64(-n, kLn2Low64, fma_f64(-n, kLn2High64, x));
    double p = 1.0 / 6227020800;  // Taylor's 13 terms: |r| <= ln(2) / 2
    p = fma_f64(p, r, 1.0 / 479001600);
    p = fma_f64(p, r, 1.0 / 39916800);
    p = fma_f64(p, r, 1.0 / 3628800);
    p = fma_f64(p, r, 1.0 / 362880);
    p = fma_f64(p, r, 1.0 / 40320);
    p = fma_f64(p, r, 1.0 / 5040);
    p = fma_f64(p, r, 1.0 / 720);
    p = fma_f64(p, r, 1.0 / 120);
    p = fma_f64(p, r, 1.0 / 24);
    p = fma_f64(p, r, 1.0 / 6);
    p = fma_f64(p, r, 0.5);
    p = fma_f64(p, r * r, r) + 1.0;
    uint64_t bits;
    std::memcpy(&bits, &shifted, 8);
    bits = (bits + 1023) << 52;
    double power;
    std::memcpy(&power, &bits, 8);
    return x < -700.0 ? 0.0 : p * power;
}

}  // namespace hg
