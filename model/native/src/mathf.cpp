#include "mathf.h"

#include "simd.h"

namespace hg {

namespace {

#if defined(HG_AVX512)
// out[i] = vector(x[i]) over whole and partial vectors alike: lanes don't know of one another.
template <typename F>
HG_INLINE void map(const float* x, int64_t n, float* out, F vector) {
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 lanes = n - i >= 16 ? __mmask16(0xffff) : static_cast<__mmask16>((1u << (n - i)) - 1u);
        _mm512_mask_storeu_ps(out + i, lanes, vector(_mm512_maskz_loadu_ps(lanes, x + i), i, lanes));
    }
}
#endif

}  // namespace

#if defined(HG_AVX512)

void exp_array(const float* x, int64_t n, float* out) {
    map(x, n, out, [](__m512 v, int64_t, __mmask16) { return exp_512(v); });
}

void silu_array(const float* x, int64_t n, float* out) {
    map(x, n, out, [](__m512 v, int64_t, __mmask16) { return silu_512(v); });
}

void silu_mul_array(const float* gate, const float* up, int64_t n, float* out) {
    map(gate, n, out, [up](__m512 v, int64_t i, __mmask16 lanes) {
        return _mm512_mul_ps(silu_512(v), _mm512_maskz_loadu_ps(lanes, up + i));
    });
}

void gelu_array(const float* x, int64_t n, float* out) {
    map(x, n, out, [](__m512 v, int64_t, __mmask16) { return gelu_512(v); });
}

#else

void exp_array(const float* x, int64_t n, float* out) {
    for (int64_t i = 0; i < n; ++i) out[i] = exp_f32(x[i]);
}

void silu_array(const float* x, int64_t n, float* out) {
    for (int64_t i = 0; i < n; ++i) out[i] = silu_f32(x[i]);
}

void silu_mul_array(const float* gate, const float* up, int64_t n, float* out) {
    for (int64_t i = 0; i < n; ++i) out[i] = silu_f32(gate[i]) * up[i];
}

void gelu_array(const float* x, int64_t n, float* out) {
    for (int64_t i = 0; i < n; ++i) out[i] = gelu_f32(x[i]);
}

#endif

}  // namespace hg
