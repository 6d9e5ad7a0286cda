// Small helpers shared by the kernels: which instructions this build has, 16-bit floats, exp and the activations.
// Every source file is compiled once per instruction set; nothing here may depend on anything but the compiler's flags.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__) && \
    defined(__AVX512VNNI__) && defined(__AVX512BF16__) && !defined(HG_PORTABLE)
#define HG_AVX512 1
#endif
#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__) && !defined(HG_PORTABLE)
#define HG_AVX2 1
#endif
#if defined(HG_AVX512) || defined(HG_AVX2)
#include <immintrin.h>
#endif

#if defined(__GNUC__)
#define HG_INLINE inline __attribute__((always_inline))
#define HG_PREFETCH_L1(p) __builtin_prefetch((p), 0, 3)
#define HG_PREFETCH_L2(p) __builtin_prefetch((p), 0, 2)
#define HG_PREFETCH_ONCE(p) __builtin_prefetch((p), 0, 0)  // and then not kept in the caches
#define HG_PREFETCH_WRITE(p) __builtin_prefetch((p), 1, 3)
#else
#define HG_INLINE inline
#define HG_PREFETCH_L1(p) ((void)(p))
#define HG_PREFETCH_L2(p) ((void)(p))
#define HG_PREFETCH_ONCE(p) ((void)(p))
#define HG_PREFETCH_WRITE(p) ((void)(p))
#endif

namespace hg {

HG_INLINE float float_of_bits(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

HG_INLINE uint32_t bits_of_float(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    return bits;
}

HG_INLINE float float_of_bf16(uint16_t value) { return float_of_bits(static_cast<uint32_t>(value) << 16); }

// Round to nearest, ties to even; a NaN stays a NaN.
HG_INLINE uint16_t bf16_of_float(float value) {
    const uint32_t bits = bits_of_float(value);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    return static_cast<uint16_t>(nan ? ((bits >> 16) | 0x40u) : rounded);
}

// IEEE half precision, by hand where the processor can't: subnormals, infinity and NaN kept.
HG_INLINE float float_of_half(uint16_t half) {
#if defined(HG_AVX2) || defined(HG_AVX512)
    return _cvtsh_ss(half);
#else
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
    const uint32_t rest = half & 0x7fffu;
    if (rest >= 0x7c00u) return float_of_bits(sign | 0x7f800000u | (rest & 0x3ffu) << 13);
    // 2^112 moves the exponent's bias from 15 to 127; a subnormal half becomes normal in the product.
    return float_of_bits(sign | bits_of_float(float_of_bits(rest << 13) * float_of_bits(0x77800000u)));
#endif
}

// Round to nearest, ties to even; beyond 65504 infinity.
HG_INLINE uint16_t half_of_float(float value) {
#if defined(HG_AVX2) || defined(HG_AVX512)
    return static_cast<uint16_t>(_cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT));
#else
    const uint32_t bits = bits_of_float(value);
    const uint32_t sign = (bits >> 16) & 0x8000u;
    const uint32_t rest = bits & 0x7fffffffu;
    if (rest > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
    if (rest >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);
    if (rest < 0x38800000u) {  // subnormal or zero: adding 0.5 leaves the rounded units of 2^-24 in the low bits
        return static_cast<uint16_t>(sign | (bits_of_float(float_of_bits(rest) + 0.5f) - 0x3f000000u));
    }
    return static_cast<uint16_t>(sign | ((rest + 0xfffu + ((rest >> 13) & 1u) - 0x38000000u) >> 13));
#endif
}

// exp(x) within about 1 unit in the last place or two for finite x: 2^n * p(r), |r| <= ln(2) / 2, p of degree 6
// (Cephes' reduction in two parts). Below -87.3 the result is 0, above 88.7 infinity; NaN gives NaN.
// All forms below follow the same steps, but only AVX-512 and AVX2 fuse multiply and add.
constexpr float kLog2E = 1.44269504088896341f;
constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
constexpr float kExpP[6] = {1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f,
                            4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};
constexpr float kExpMin = -87.3f, kExpMax = 88.72f;

HG_INLINE float exp_f32(float x) {
    // Written without branches so that a compiler can turn loops over it into vectors.
    const float clamped = x < kExpMin ? kExpMin : (x > kExpMax ? kExpMax : x);
    const float n = (clamped * kLog2E + 12582912.0f) - 12582912.0f;  // 1.5 * 2^23: rounds to the nearest integer
    const float r = (clamped - n * kLn2High) - n * kLn2Low;
    float p = kExpP[0];
    for (int i = 1; i < 6; ++i) p = p * r + kExpP[i];
    p = p * (r * r) + r + 1.0f;
    // n is -126..128: two steps, as 2^128 has no float of its own.
    const int32_t whole = static_cast<int32_t>(n == n ? n : 0.0f);
    const int32_t half = whole / 2;
    const float low = float_of_bits(static_cast<uint32_t>(half + 127) << 23);
    const float high = float_of_bits(static_cast<uint32_t>(whole - half + 127) << 23);
    const float value = p * low * high;
    return x < kExpMin ? 0.0f : (x > kExpMax ? INFINITY : value);
}

// The GELU of GPT-2, tanh form: x / (1 + exp(-2u)), u = sqrt(2 / pi) (x + 0.044715 x^3).
constexpr float kGelu1 = -1.5957691216057308f, kGelu3 = -0.07135481282958436f;

HG_INLINE float gelu_f32(float x) { return x / (1.0f + exp_f32(x * (kGelu1 + kGelu3 * x * x))); }
HG_INLINE float silu_f32(float x) { return x / (1.0f + exp_f32(-x)); }

#if defined(HG_AVX512)
HG_INLINE __m512 exp_512(__m512 x) {
    const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(kLog2E)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(kLn2High), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(kLn2Low), r);
    __m512 p = _mm512_set1_ps(kExpP[0]);
    for (int i = 1; i < 6; ++i) p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(kExpP[i]));
    p = _mm512_add_ps(_mm512_fmadd_ps(p, _mm512_mul_ps(r, r), r), _mm512_set1_ps(1.0f));
    // scalef saturates to infinity and, masked, gives the 0 we promise; NaN passes through both.
    const __mmask16 tiny = _mm512_cmp_ps_mask(x, _mm512_set1_ps(kExpMin), _CMP_LT_OQ);
    const __mmask16 huge = _mm512_cmp_ps_mask(x, _mm512_set1_ps(kExpMax), _CMP_GT_OQ);
    p = _mm512_maskz_scalef_ps(static_cast<__mmask16>(~tiny), p, n);
    return _mm512_mask_mov_ps(p, huge, _mm512_set1_ps(INFINITY));
}

HG_INLINE __m512 gelu_512(__m512 x) {
    const __m512 u = _mm512_mul_ps(x, _mm512_fmadd_ps(_mm512_mul_ps(x, x), _mm512_set1_ps(kGelu3), _mm512_set1_ps(kGelu1)));
    return _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1.0f), exp_512(u)));
}

HG_INLINE __m512 silu_512(__m512 x) {
    const __m512 minus = _mm512_sub_ps(_mm512_setzero_ps(), x);
    return _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1.0f), exp_512(minus)));
}
#endif

}  // namespace hg
