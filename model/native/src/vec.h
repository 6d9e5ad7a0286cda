// Sixteen floats at once, the same for every instruction set: kernels written over Vec exist once, in one structure.
// Only AVX-512 and AVX2 fuse multiply and add, so results differ between builds, never within one.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>

#include "simd.h"

namespace hg {

constexpr int kLanes = 16;
constexpr float kHalfMax = 65504.0f;

#if defined(HG_AVX512)

struct Vec {
    __m512 v;
};

HG_INLINE Vec vec_zero() { return {_mm512_setzero_ps()}; }
HG_INLINE Vec vec_set(float x) { return {_mm512_set1_ps(x)}; }
HG_INLINE Vec vec_load(const float* p) { return {_mm512_loadu_ps(p)}; }
HG_INLINE Vec vec_load(const uint16_t* p) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
HG_INLINE void vec_store(float* p, Vec a) { _mm512_storeu_ps(p, a.v); }
HG_INLINE void vec_store(uint16_t* p, Vec a) {  // IEEE half
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT));
}
HG_INLINE Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
HG_INLINE Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
HG_INLINE Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
HG_INLINE Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
HG_INLINE Vec vec_fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }  // a * b + c
// Of two operands with a NaN among them, the second.
HG_INLINE Vec vec_max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
HG_INLINE Vec vec_min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
// The first n lanes of a, 0 <= n <= 16, and `other` in those behind.
HG_INLINE Vec vec_first(Vec a, int64_t n, Vec other) {
    return {_mm512_mask_mov_ps(other.v, static_cast<__mmask16>((1u << n) - 1u), a.v)};
}
HG_INLINE Vec vec_load_first(const float* p, int64_t n) {  // zeros behind
    return {_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1u), p)};
}
HG_INLINE void vec_store_first(float* p, Vec a, int64_t n) {
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1u), a.v);
}


#else

#if defined(HG_AVX2)

struct Vec {
    __m256 lo, hi;
};

HG_INLINE Vec vec_set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
HG_INLINE Vec vec_load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
HG_INLINE Vec vec_load(const uint16_t* p) {
    return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
            _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)))};
}
HG_INLINE void vec_store(float* p, Vec a) {
    _mm256_storeu_ps(p, a.lo);
    _mm256_storeu_ps(p + 8, a.hi);
}
HG_INLINE Vec operator+(Vec a, Vec b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
HG_INLINE Vec operator-(Vec a, Vec b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
HG_INLINE Vec operator*(Vec a, Vec b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
HG_INLINE Vec operator/(Vec a, Vec b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
HG_INLINE Vec vec_fma(Vec a, Vec b, Vec c) {
    return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
HG_INLINE Vec vec_max(Vec a, Vec b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
HG_INLINE Vec vec_min(Vec a, Vec b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }

#else

// Four vectors of the compiler's own, of the width that nearly every processor has: NEON, SSE, or plain registers.
typedef float Quad __attribute__((vector_size(16)));
typedef int32_t QuadBits __attribute__((vector_size(16)));
typedef uint16_t QuadHalves __attribute__((vector_size(8)));

struct Vec {
    Quad a, b, c, d;
};

template <typename F>
HG_INLINE Vec vec_map(Vec x, Vec y, F f) {
    return {f(x.a, y.a), f(x.b, y.b), f(x.c, y.c), f(x.d, y.d)};
}
HG_INLINE Quad quad_load(const float* p) {
    Quad q;
    std::memcpy(&q, p, sizeof(q));
    return q;
}
HG_INLINE Quad quad_load(const uint16_t* p) {
    // float_of_half without its branch.
    QuadHalves halves;
    std::memcpy(&halves, p, sizeof(halves));
    const QuadBits bits = __builtin_convertvector(halves, QuadBits), rest = bits & 0x7fff;
    const QuadBits magnitude = (QuadBits)((Quad)(rest << 13) * 0x1p112f) | ((rest >= 0x7c00) & 0x7f800000);
    return (Quad)(magnitude | (bits & 0x8000) << 16);
}
HG_INLINE Quad quad_pick(QuadBits mask, Quad x, Quad y) { return (Quad)(((QuadBits)x & mask) | ((QuadBits)y & ~mask)); }

HG_INLINE Vec vec_set(float x) {
    const Quad q = {x, x, x, x};
    return {q, q, q, q};
}
template <typename T>
HG_INLINE Vec vec_load(const T* p) {
    return {quad_load(p), quad_load(p + 4), quad_load(p + 8), quad_load(p + 12)};
}
HG_INLINE void vec_store(float* p, Vec x) { std::memcpy(p, &x, sizeof(x)); }
HG_INLINE Vec operator+(Vec x, Vec y) { return {x.a + y.a, x.b + y.b, x.c + y.c, x.d + y.d}; }
HG_INLINE Vec operator-(Vec x, Vec y) { return {x.a - y.a, x.b - y.b, x.c - y.c, x.d - y.d}; }
HG_INLINE Vec operator*(Vec x, Vec y) { return {x.a * y.a, x.b * y.b, x.c * y.c, x.d * y.d}; }
HG_INLINE Vec operator/(Vec x, Vec y) { return {x.a / y.a, x.b / y.b, x.c / y.c, x.d / y.d}; }
HG_INLINE Vec vec_fma(Vec x, Vec y, Vec z) { return x * y + z; }
HG_INLINE Vec vec_max(Vec x, Vec y) {
    return vec_map(x, y, [](Quad p, Quad q) { return quad_pick(p > q, p, q); });
}
HG_INLINE Vec vec_min(Vec x, Vec y) {
    return vec_map(x, y, [](Quad p, Quad q) { return quad_pick(p < q, p, q); });
}

#endif

HG_INLINE Vec vec_zero() { return vec_set(0.0f); }
HG_INLINE void vec_store(uint16_t* p, Vec a) {
    alignas(64) float lanes[kLanes];
    vec_store(lanes, a);
    for (int i = 0; i < kLanes; ++i) p[i] = half_of_float(lanes[i]);
}
HG_INLINE Vec vec_first(Vec a, int64_t n, Vec other) {
    alignas(64) float lanes[kLanes], others[kLanes];
    vec_store(lanes, a);
    vec_store(others, other);
    for (int64_t i = n; i < kLanes; ++i) lanes[i] = others[i];
    return vec_load(lanes);
}
HG_INLINE Vec vec_load_first(const float* p, int64_t n) {
    alignas(64) float lanes[kLanes] = {};
    for (int64_t i = 0; i < n; ++i) lanes[i] = p[i];
    return vec_load(lanes);
}
HG_INLINE void vec_store_first(float* p, Vec a, int64_t n) {
    alignas(64) float lanes[kLanes];
    vec_store(lanes, a);
    for (int64_t i = 0; i < n; ++i) p[i] = lanes[i];
}

#endif

// In a fixed order of lanes: halves, quarters and so on.
HG_INLINE float vec_sum(Vec a) {
    alignas(64) float lanes[kLanes];
    vec_store(lanes, a);
    for (int width = kLanes / 2; width > 0; width /= 2) {
        for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
    }
    return lanes[0];
}

// A maximum has no order; a NaN among the lanes may or may not be lost.
HG_INLINE float vec_max_lane(Vec a) {
#if defined(HG_AVX512)
    return _mm512_reduce_max_ps(a.v);
#else
    alignas(64) float lanes[kLanes];
    vec_store(lanes, a);
    for (int width = kLanes / 2; width > 0; width /= 2) {
        for (int i = 0; i < width; ++i) lanes[i] = lanes[i] > lanes[i + width] ? lanes[i] : lanes[i + width];
    }
    return lanes[0];
#endif
}

// 2^r = 1 + r q(r) for |r| <= 1/2, q of degree 5 by least squares at the Chebyshev points: 9e-9 off at most.
constexpr float kExp2P[7] = {1.54614475e-4f, 1.33908674e-3f, 9.61805667e-3f, 5.5503571e-2f,
                             2.40226509e-1f, 6.93147188e-1f, 1.0f};
constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23: adding it rounds to the nearest integer, kept in the low bits

// 2^x for x <= 0 (softmax weights), within an ulp, 1 at 0. What falls below 2^-126 is 0 or close to it; NaN stays NaN.
HG_INLINE Vec vec_exp2(Vec x) {
#if defined(HG_AVX512)
    const Vec n = {_mm512_roundscale_ps(x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
    const Vec r = x - n;
    Vec p = vec_set(kExp2P[0]);
    for (int i = 1; i < 7; ++i) p = vec_fma(p, r, vec_set(kExp2P[i]));
    const __mmask16 keep = _mm512_cmp_ps_mask(x.v, _mm512_set1_ps(-126.0f), _CMP_NLT_UQ);
    return {_mm512_maskz_scalef_ps(keep, p.v, n.v)};
#else
    // The second operand of max survives a NaN: it goes through the polynomial, and the whole power is then harmless.
    const Vec clamped = vec_max(vec_set(-127.0f), x);
    const Vec shifted = clamped + vec_set(kRounder);
    const Vec r = clamped - (shifted - vec_set(kRounder));
    Vec p = vec_set(kExp2P[0]);
    for (int i = 1; i < 7; ++i) p = vec_fma(p, r, vec_set(kExp2P[i]));
#if defined(HG_AVX2)
    const auto power = [](__m256 s) {  // at n = -127 the exponent's bits are 0, and so is the power
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_castps_si256(s), _mm256_set1_epi32(127)), 23));
    };
    return p * Vec{power(shifted.lo), power(shifted.hi)};
#else
    return vec_map(p, shifted, [](Quad value, Quad s) { return value * (Quad)(((QuadBits)s + 127) << 23); });
#endif
#endif
}

}  // namespace hg
