// Preparing inputs: a copy, a rounding to bfloat16, or 8 bits with outliers kept apart.
#include "linear_layout.h"

namespace hg {

size_t input_bytes(Format format, int64_t n_in) {
    int64_t bytes = 0;
    switch (format) {
        case Format::f32: bytes = n_in * 4; break;
        case Format::bf16: bytes = (n_in + 1) / 2 * 4; break;
        default: bytes = sizeof(RowHeader) + row_data_bytes(n_in) + row_max_high(n_in) * sizeof(High);
    }
    // An odd number of cache lines: rows a multiple of 4 KiB apart would crowd the same few sets of the L1 cache.
    return static_cast<size_t>(64 * ((bytes + 63) / 64 | 1));
}

namespace {

void prepare_bf16(const float* x, int64_t n_in, uint8_t* out) {
    uint16_t* values = reinterpret_cast<uint16_t*>(out);
    int64_t i = 0;
#if defined(HG_AVX512)
    for (; i + 16 <= n_in; i += 16) {
        const __m256bh rounded = _mm512_cvtneps_pbh(_mm512_loadu_ps(x + i));
        std::memcpy(values + i, &rounded, 32);
    }
#endif
    for (; i < n_in; ++i) values[i] = bf16_of_float(x[i]);
    if (n_in % 2) values[n_in] = 0;
}

constexpr float kMinSpread = 1e-16f;

// 16 running values, then one: the same order for every row of a length.
constexpr int kLanes = 16;

struct Spread {
    float largest, root_mean_square;
};

HG_INLINE float larger(float a, float b) { return a > b ? a : b; }  // b where either is NaN

Spread measure(const float* x, int64_t n_in) {
    float largest[kLanes] = {}, squares[kLanes] = {};
    int64_t i = 0;
#if defined(HG_AVX512)  // the loops below, which GCC doesn't turn into vectors
    __m512 most = _mm512_setzero_ps(), sums = _mm512_setzero_ps();
    for (; i + kLanes <= n_in; i += kLanes) {
        const __m512 v = _mm512_abs_ps(_mm512_loadu_ps(x + i));
        most = _mm512_max_ps(v, most);
        sums = _mm512_add_ps(sums, _mm512_mul_ps(v, v));
    }
    _mm512_storeu_ps(largest, most);
    _mm512_storeu_ps(squares, sums);
#endif
    for (; i + kLanes <= n_in; i += kLanes) {
        for (int j = 0; j < kLanes; ++j) squares[j] += x[i + j] * x[i + j];
        for (int j = 0; j < kLanes; ++j) largest[j] = larger(std::fabs(x[i + j]), largest[j]);
    }
    for (int j = 0; i < n_in; ++i, ++j) {
        squares[j] += x[i] * x[i];
        largest[j] = larger(std::fabs(x[i]), largest[j]);
    }
    for (int half = kLanes / 2; half > 0; half /= 2) {
        for (int j = 0; j < half; ++j) {
            largest[j] = larger(largest[j + half], largest[j]);
            squares[j] += squares[j + half];
        }
    }
    return {largest[0], std::sqrt(squares[0] / static_cast<float>(n_in))};
}

// To the nearest integer, ties to even; |x| < 2^22.
HG_INLINE int32_t nearest(float x) { return static_cast<int32_t>((x + 12582912.0f) - 12582912.0f); }

// Bytes x / scale, and their sum; inputs beyond `limit` give 0 here and are left to add_high_parts.
int32_t quantize(const float* x, int64_t n_in, float inverse, float limit, int8_t* out, bool* any_high) {
    int32_t sum = 0;
    int64_t i = 0;
#if defined(HG_AVX512)
    __m512i sums = _mm512_setzero_si512();
    __mmask16 high = 0;
    for (; i < n_in; i += 16) {
        const __mmask16 mask = static_cast<__mmask16>(n_in - i >= 16 ? 0xffff : (1 << (n_in - i)) - 1);
        const __m512 v = _mm512_maskz_loadu_ps(mask, x + i);
        const __mmask16 far = _mm512_cmp_ps_mask(_mm512_abs_ps(v), _mm512_set1_ps(limit), _CMP_GT_OQ);
        high |= far;
        const __m512i q = _mm512_maskz_cvtps_epi32(static_cast<__mmask16>(~far), _mm512_mul_ps(v, _mm512_set1_ps(inverse)));
        sums = _mm512_add_epi32(sums, q);
        const __m128i bytes = _mm512_cvtsepi32_epi8(q);
        if (mask == 0xffff) _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), bytes);
        else _mm_mask_storeu_epi8(out + i, mask, bytes);  // slow on some processors
    }
    sum = _mm512_reduce_add_epi32(sums);
    *any_high = high != 0;
#else
    bool high = false;
    for (; i < n_in; ++i) {
        const bool far = std::fabs(x[i]) > limit;
        high |= far;
        const int32_t q = nearest(far ? 0.0f : x[i] * inverse);
        sum += q;
        out[i] = static_cast<int8_t>(q);
    }
    *any_high = high;
#endif
    return sum;
}

// An input beyond the limit becomes high * scale_high + byte * scale: the byte takes what the coarse high part leaves.
void add_high_parts(const float* x, int64_t n_in, float limit, RowHeader* header, int8_t* bytes) {
    High* list = reinterpret_cast<High*>(reinterpret_cast<uint8_t*>(header) + header->high_at);
    int32_t sum = 0, sum_high = 0, n_high = 0;
    for (int64_t begin = 0; begin < n_in; begin += 4) {
#if defined(HG_AVX512)
        if (begin % 16 == 0 && begin + 16 <= n_in) {  // few are beyond: pass over the others 16 at a time
            const __m512 v = _mm512_abs_ps(_mm512_loadu_ps(x + begin));
            if (_mm512_cmp_ps_mask(v, _mm512_set1_ps(limit), _CMP_GT_OQ) == 0) {
                begin += 12;
                continue;
            }
        }
#endif
        int8_t high[4] = {};
        bool any = false;
        for (int64_t i = begin; i < n_in && i < begin + 4; ++i) {
            if (!(std::fabs(x[i]) > limit)) continue;
            const int32_t q = nearest(x[i] / header->scale_high);
            const int32_t rest = nearest((x[i] - static_cast<float>(q) * header->scale_high) / header->scale);
            bytes[i] = static_cast<int8_t>(rest);
            high[i - begin] = static_cast<int8_t>(q);
            sum += rest;
            sum_high += q;
            any = true;
        }
        if (!any) continue;
        list[n_high].step = static_cast<int32_t>(begin / 4);
        std::memcpy(&list[n_high++].values, high, 4);
    }
    header->n_high = n_high;
    header->offset += 128 * sum;
    header->offset_high = 128 * sum_high;
}

// A scale per row would be set by its largest input, and trained models have rows whose largest is a hundred times the
// rest. So the scale covers kHighSpread root mean squares; the few inputs beyond are split in two 8-bit parts.
void prepare_int8(const float* x, int64_t n_in, uint8_t* out) {
    RowHeader* header = reinterpret_cast<RowHeader*>(out);
    int8_t* bytes = reinterpret_cast<int8_t*>(out + sizeof(RowHeader));
    std::memset(header, 0, sizeof(RowHeader));
    header->high_at = static_cast<int32_t>(sizeof(RowHeader) + row_data_bytes(n_in));
    for (int64_t i = n_in; i < row_data_bytes(n_in); ++i) bytes[i] = 0;
    const Spread spread = measure(x, n_in);
    if (!(spread.root_mean_square < INFINITY)) {  // NaN, infinity, or squares too large: the row's results are NaN
        std::memset(bytes, 0, static_cast<size_t>(n_in));
        header->scale = NAN;
        return;
    }
    // Where squares leave the range of normal floats their mean says nothing, and row_max_high would not hold.
    const float far = spread.largest > kMinSpread ? static_cast<float>(kHighSpread) * spread.root_mean_square : INFINITY;
    const float limit = far < spread.largest ? far : spread.largest;
    header->scale = limit / 127.0f;
    header->scale_high = spread.largest / 127.0f;
    // A row so small that its scale has no inverse counts as zero.
    const float inverse = limit > 1e-35f ? 127.0f / limit : 0.0f;
    bool any_high = false;
    header->offset = 128 * quantize(x, n_in, inverse, limit, bytes, &any_high);
    if (any_high) add_high_parts(x, n_in, limit, header, bytes);
}

}  // namespace

void input_prepare(Format format, const float* x, int64_t n_in, uint8_t* out) {
    switch (format) {
        case Format::f32: std::memcpy(out, x, static_cast<size_t>(n_in) * 4); break;
        case Format::bf16: prepare_bf16(x, n_in, out); break;
        default: prepare_int8(x, n_in, out);
    }
}

}  // namespace hg
