// The product's inner loop in the compiler's own vectors: any processor; with AVX2, its byte products.
// Same walk as linear_avx512.h, four vectors of 8 outputs and up to three rows at a time.
#pragma once

#include "linear_tile.h"

#if !defined(HG_AVX512)

namespace hg {

constexpr int kTileRows = 3;
constexpr int64_t kMaxInt4Rows = 0;  // int4 panels are always unpacked first
constexpr int kVectors = 4;      // kPanel / 8

using Float8 = float __attribute__((vector_size(32)));
using Int8 = int32_t __attribute__((vector_size(32)));
using UInt8 = uint32_t __attribute__((vector_size(32)));
using Short16 = int16_t __attribute__((vector_size(32)));

template <class Vector>
HG_INLINE Vector load_as(const uint8_t* p) {
    Vector v;
    std::memcpy(&v, p, sizeof(v));
    return v;
}

HG_INLINE Float8 multiply_add(Float8 acc, Float8 a, Float8 b) {
#if defined(HG_AVX2)
    return (Float8)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)acc);
#else
    return acc + a * b;
#endif
}

// Each Op: what becomes of 8 outputs' step (Weights), of a row's step (Input), and their product added to acc.
struct FloatOp {
    using Acc = Float8;
    using Weights = Float8;
    using Input = Float8;
    static HG_INLINE Weights weights(const uint8_t* p) { return load_as<Float8>(p); }
    static HG_INLINE Input input(const uint8_t* p) { return load_as<float>(p) - Float8{}; }
    static HG_INLINE void dot(Acc& acc, const Weights& w, const Input& x) { acc = multiply_add(acc, w, x); }
};

struct Bf16Op {
    using Acc = Float8;
    struct Pair {
        Float8 first, second;
    };
    using Weights = Pair;
    using Input = Pair;
    static HG_INLINE Pair split(UInt8 both) { return {(Float8)(both << 16), (Float8)(both & 0xffff0000u)}; }
    static HG_INLINE Weights weights(const uint8_t* p) { return split(load_as<UInt8>(p)); }
    static HG_INLINE Input input(const uint8_t* p) { return split(load_as<uint32_t>(p) | UInt8{}); }
    static HG_INLINE void dot(Acc& acc, const Weights& w, const Input& x) {
        acc = multiply_add(multiply_add(acc, w.first, x.first), w.second, x.second);
    }
};

#if defined(HG_AVX2)
struct IntegerOp {
    using Acc = Int8;
    struct Weights {
        __m256i value, magnitude;
    };
    using Input = __m256i;
    static constexpr bool kOffset = false;  // works on the signed weights
    static HG_INLINE Weights weights(const uint8_t* p) {
        const __m256i value = _mm256_xor_si256(load_as<__m256i>(p), _mm256_set1_epi8(static_cast<char>(0x80)));
        return {value, _mm256_abs_epi8(value)};
    }
    static HG_INLINE Input input(const uint8_t* p) { return _mm256_set1_epi32(load_as<int32_t>(p)); }
    static HG_INLINE void dot(Acc& acc, const Weights& w, const Input& x) {
        // |w| * (x with w's sign): two products are at most 2 * 127 * 127, which 16 bits hold.
        const __m256i pairs = _mm256_maddubs_epi16(w.magnitude, _mm256_sign_epi8(x, w.value));
        acc += (Int8)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    }
};
#else
struct IntegerOp {
    using Acc = Int8;
    struct Pair {
        Short16 even, odd;  // bytes 0 and 2, 1 and 3 of each output, as 16 bits
    };
    using Weights = Pair;
    using Input = Pair;
    static constexpr bool kOffset = true;
    static HG_INLINE Weights weights(const uint8_t* p) {
        const UInt8 all = load_as<UInt8>(p);
        return {(Short16)(all & 0x00ff00ffu), (Short16)((all >> 8) & 0x00ff00ffu)};
    }
    static HG_INLINE Input input(const uint8_t* p) {
        const Short16 all = (Short16)(load_as<uint32_t>(p) | UInt8{});
        return {(Short16)(all << 8) >> 8, all >> 8};
    }
    static HG_INLINE void dot(Acc& acc, const Weights& w, const Input& x) {
        // A product is at most 255 * 127: 16 bits hold it; the four of an output are added in 32.
        const Int8 even = (Int8)(w.even * x.even), odd = (Int8)(w.odd * x.odd);
        acc += (((even << 16) >> 16) + (even >> 16)) + (((odd << 16) >> 16) + (odd >> 16));
    }
};
#endif

template <class Op, int R>
HG_INLINE void tile_sum(typename Op::Acc (&acc)[R][kVectors], const uint8_t* panel, int64_t steps, const uint8_t* inputs,
                        int64_t stride) {
    for (int64_t step = 0; step < steps; ++step) {
        const uint8_t* at = panel + step * kStepBytes;
        HG_PREFETCH_L1(at + 2048);
        HG_PREFETCH_L1(at + 2048 + 64);
        typename Op::Input x[R];
#pragma GCC unroll 3
        for (int r = 0; r < R; ++r) x[r] = Op::input(inputs + r * stride + step * 4);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
            const typename Op::Weights w = Op::weights(at + v * 32);
#pragma GCC unroll 3
            for (int r = 0; r < R; ++r) Op::dot(acc[r][v], w, x[r]);
        }
    }
}

// Where a tile's result goes, and what is still to be done to it.
struct Target {
    float* y;  // row 0, column 0 of the tile
    int64_t stride, n;
    Epilogue epilogue;
    float bias[kPanel], scale[kPanel];

    // n: columns of this panel that exist. Bias and scales may be null.
    Target(float* y_, int64_t stride_, int64_t n_, const float* bias_, const float* scale_, Epilogue epilogue_)
        : y(y_), stride(stride_), n(n_ < kPanel ? n_ : kPanel), epilogue(epilogue_) {
        for (int64_t j = 0; j < kPanel; ++j) {
            bias[j] = bias_ && j < n ? bias_[j] : 0.0f;
            scale[j] = scale_ ? scale_[j] : 1.0f;
        }
    }
};

inline void tile_store(const Target& target, int r, float (&v)[kPanel]) {
    float* y = target.y + r * target.stride;
    for (int64_t j = 0; j < kPanel; ++j) v[j] += target.bias[j];
    if (target.epilogue == Epilogue::add) {
        for (int64_t j = 0; j < target.n; ++j) v[j] = y[j] + v[j];
    }
    std::memcpy(y, v, static_cast<size_t>(target.n) * sizeof(float));
}

template <class Op, int R>
void tile_float(const Tile& tile, const Target& target) {
    Float8 acc[R][kVectors] = {};
    tile_sum<Op, R>(acc, tile.panel, tile.steps, tile.inputs, tile.stride);
    for (int r = 0; r < R; ++r) {
        float v[kPanel];
        std::memcpy(v, acc[r], sizeof(v));
        tile_store(target, r, v);
    }
}

// The sums over a row's high parts, added to what the bytes gave: v += scale_high * sum.
inline void add_high(const uint8_t* panel, const RowHeader& header, float (&v)[kPanel]) {
    const High* high = high_parts(header);
    int32_t sums[kPanel] = {};
    for (int i = 0; i < header.n_high; ++i) {
        const uint8_t* w = panel + high[i].step * kStepBytes;
        int8_t x[4];
        std::memcpy(x, &high[i].values, 4);
        for (int64_t j = 0; j < kPanel * 4; ++j) sums[j / 4] += (w[j] - 128) * x[j % 4];
    }
    for (int64_t j = 0; j < kPanel; ++j) v[j] += header.scale_high * static_cast<float>(sums[j]);
}

template <int R>
void tile_integer(const Tile& tile, const Target& target) {
    Int8 acc[R][kVectors] = {};
    tile_sum<IntegerOp, R>(acc, tile.panel, tile.steps, tile.inputs + sizeof(RowHeader), tile.stride);
    for (int r = 0; r < R; ++r) {
        const RowHeader& header = tile.header(r);
        int32_t sums[kPanel];
        float v[kPanel];
        std::memcpy(sums, acc[r], sizeof(sums));
        const int32_t offset = IntegerOp::kOffset ? header.offset : 0;
        for (int64_t j = 0; j < kPanel; ++j) v[j] = static_cast<float>(sums[j] - offset) * header.scale;
        if (header.n_high > 0) add_high(tile.panel, header, v);
        for (int64_t j = 0; j < kPanel; ++j) v[j] *= target.scale[j];
        tile_store(target, r, v);
    }
}

// An int4 panel's steps as an int8 panel's.
inline void int4_unpack(const uint8_t* packed, int64_t steps, uint8_t* out) {
    for (int64_t step = 0; step < steps; ++step) {
        const uint8_t *factors = packed + int4_group(step / kGroupSteps), *offsets = factors + kPanel;
        const uint8_t* pair = factors + kGroupHead + step % kGroupSteps / 2 * kPairBytes;
        const int first = kCodeShift[step % 2][0], second = kCodeShift[step % 2][1];
        for (int64_t half = 0; half < 2 * kPanel; ++half) {  // two inputs of one output
            uint16_t codes;
            std::memcpy(&codes, pair + 2 * half, 2);
            const int factor = factors[half / 2], offset = offsets[half / 2];
            out[step * kStepBytes + 2 * half] = static_cast<uint8_t>(((codes >> first & 15) * factor >> 4) + offset);
            out[step * kStepBytes + 2 * half + 1] = static_cast<uint8_t>(((codes >> second & 15) * factor >> 4) + offset);
        }
    }
}

template <int R>
void run_tile(Kernel kernel, const Tile& tile, const Target& target) {
    switch (kernel) {
        case Kernel::f32: return tile_float<FloatOp, R>(tile, target);
        case Kernel::bf16: return tile_float<Bf16Op, R>(tile, target);
        default: return tile_integer<R>(tile, target);
    }
}

}  // namespace hg

#endif
