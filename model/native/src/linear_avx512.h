// The product's inner loop with AVX-512: a tile of up to kTileRows rows x 32 outputs lives in registers while the inputs
// pass. Per step two vectors of weights are loaded and 4 bytes of each row broadcast: 24 multiply-adds to 14 loads.
#pragma once

#include "linear_tile.h"

#if defined(HG_AVX512)

namespace hg {

constexpr int kTileRows = 12;
constexpr int64_t kMaxInt4Rows = kTileRows;  // a single tile unpacks int4 in registers: cheaper than memory

// The rows of a tile. Three rows share a pointer, so that twelve need four registers and not twelve.
template <int R>
struct RowPointers {
    const uint8_t* base[(R + 2) / 3];
    int64_t stride;
    RowPointers(const uint8_t* first, int64_t stride_) : stride(stride_) {
        for (int i = 0; i < (R + 2) / 3; ++i) base[i] = first + 3 * i * stride;
    }
    HG_INLINE __m512i broadcast(int r, int64_t at) const {
        int32_t value;
        std::memcpy(&value, base[r / 3] + (r % 3) * stride + at, 4);
        return _mm512_set1_epi32(value);
    }
};

struct FloatOp {
    using Acc = __m512;
    static HG_INLINE Acc dot(Acc acc, __m512i w, __m512i x) {
        return _mm512_fmadd_ps(_mm512_castsi512_ps(w), _mm512_castsi512_ps(x), acc);
    }
};

struct Bf16Op {
    using Acc = __m512;
    static HG_INLINE Acc dot(Acc acc, __m512i w, __m512i x) {
        return _mm512_dpbf16_ps(acc, (__m512bh)w, (__m512bh)x);
    }
};

struct Int8Op {
    using Acc = __m512i;
    static HG_INLINE Acc dot(Acc acc, __m512i w, __m512i x) { return _mm512_dpbusd_epi32(acc, w, x); }
};

// Weights as they are: the panel's steps one behind the other.
struct PlainPanel {
    const uint8_t* steps;
    HG_INLINE void group(int64_t) {}
    HG_INLINE void load(int64_t step, __m512i& w0, __m512i& w1) const {
        w0 = _mm512_load_si512(steps + step * kStepBytes);
        w1 = _mm512_load_si512(steps + step * kStepBytes + 64);
    }
};

// int4, unpacked on the fly to what an int8 panel would hold.
struct Int4Panel {
    const uint8_t* groups;
    const uint8_t* pairs = nullptr;  // the group's codes
    __m512i factor[2], offset[2];

    explicit Int4Panel(const uint8_t* panel) : groups(panel + int4_group(0)) {}

    HG_INLINE void group(int64_t g) {
        const uint8_t* at = groups + g * kGroupBytes;
        pairs = at + kGroupHead;
        for (int v = 0; v < 2; ++v) {
            const __m512i f = _mm512_cvtepu8_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(at + 16 * v)));
            const __m512i o = _mm512_cvtepu8_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(at + kPanel + 16 * v)));
            factor[v] = _mm512_or_si512(f, _mm512_slli_epi32(f, 16));  // for both halves of an output's 32 bits
            const __m512i twice = _mm512_or_si512(o, _mm512_slli_epi32(o, 8));
            offset[v] = _mm512_or_si512(twice, _mm512_slli_epi32(twice, 16));
        }
    }

    HG_INLINE __m512i unpack(__m512i codes, int v, int64_t step) const {
        const __m512i low = _mm512_set1_epi16(0x00f0), high = _mm512_set1_epi16(static_cast<int16_t>(0xf000));
        // A first input's code in the top 4 bits: the product's upper half is code * factor / 16. A second input's code at
        // bit 4: the same falls into the upper byte of the lower half, where it belongs.
        const bool odd = (step & 1) != 0;
        const __m512i first = odd ? _mm512_and_si512(codes, high) : _mm512_slli_epi16(codes, 12);
        const __m512i second = _mm512_and_si512(odd ? _mm512_srli_epi16(codes, 4) : codes, low);
        const __m512i byte0 = _mm512_mulhi_epu16(first, factor[v]), byte1 = _mm512_mullo_epi16(second, factor[v]);
        // byte0 | (byte1 & 0xff00)
        const __m512i bytes = _mm512_ternarylogic_epi32(byte0, byte1, _mm512_set1_epi16(static_cast<int16_t>(0xff00)), 0xf8);
        return _mm512_add_epi8(bytes, offset[v]);
    }

    // Of the group entered last.
    HG_INLINE void load(int64_t step, __m512i& w0, __m512i& w1) const {
        const uint8_t* at = pairs + (step % kGroupSteps >> 1) * kPairBytes;
        w0 = unpack(_mm512_load_si512(at), 0, step);
        w1 = unpack(_mm512_load_si512(at + 64), 1, step);
    }
};

template <class Op, int R, class Panel>
HG_INLINE void tile_step(typename Op::Acc (&acc)[R][2], const Panel& panel, int64_t step, const RowPointers<R>& rows,
                         Ahead& ahead) {
    if (ahead.once) {
        HG_PREFETCH_ONCE(ahead.at);
        HG_PREFETCH_ONCE(ahead.at + ahead.step / 2);
    } else {
        HG_PREFETCH_L2(ahead.at);
        HG_PREFETCH_L2(ahead.at + ahead.step / 2);
    }
    ahead.at += ahead.step;
    __m512i w0, w1;
    panel.load(step, w0, w1);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
        const __m512i x = rows.broadcast(r, step * 4);
        acc[r][0] = Op::dot(acc[r][0], w0, x);
        acc[r][1] = Op::dot(acc[r][1], w1, x);
    }
}

template <class Op, int R, class Panel>
HG_INLINE void tile_sum(typename Op::Acc (&acc)[R][2], Panel& panel, int64_t steps, RowPointers<R> rows, Ahead ahead) {
    int64_t step = 0;
    for (; step + kGroupSteps <= steps; step += kGroupSteps) {
        panel.group(step / kGroupSteps);
#pragma GCC unroll 8
        for (int i = 0; i < kGroupSteps; ++i) tile_step<Op, R>(acc, panel, step + i, rows, ahead);
    }
    if (step < steps) panel.group(step / kGroupSteps);
    for (; step < steps; ++step) tile_step<Op, R>(acc, panel, step, rows, ahead);
}

// Where a tile's result goes, and what is still to be done to it.
struct Target {
    float* y;  // row 0, column 0 of the tile
    int64_t stride;
    Epilogue epilogue;
    __mmask16 mask[2];
    __m512 bias[2], scale[2];

    // n: columns of this panel that exist. Bias and scales may be null.
    Target(float* y_, int64_t stride_, int64_t n, const float* bias_, const float* scale_, Epilogue epilogue_)
        : y(y_), stride(stride_), epilogue(epilogue_) {
        for (int v = 0; v < 2; ++v) {
            const int64_t here = n - 16 * v;
            mask[v] = static_cast<__mmask16>(here >= 16 ? 0xffff : here <= 0 ? 0 : (1 << here) - 1);
            bias[v] = bias_ ? _mm512_maskz_loadu_ps(mask[v], bias_ + 16 * v) : _mm512_setzero_ps();
            scale[v] = scale_ ? _mm512_load_ps(scale_ + 16 * v) : _mm512_set1_ps(1.0f);
        }
    }
};

// The lines the results will go to: on their way while the tile computes.
template <int R>
HG_INLINE void prefetch_target(const Target& target) {
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
        HG_PREFETCH_WRITE(target.y + r * target.stride);
        HG_PREFETCH_WRITE(target.y + r * target.stride + 16);
    }
}

HG_INLINE void tile_store(const Target& target, int r, __m512 v0, __m512 v1) {
    float* y = target.y + r * target.stride;
    v0 = _mm512_add_ps(v0, target.bias[0]);
    v1 = _mm512_add_ps(v1, target.bias[1]);
    if (target.epilogue == Epilogue::add) {
        v0 = _mm512_add_ps(_mm512_maskz_loadu_ps(target.mask[0], y), v0);
        v1 = _mm512_add_ps(_mm512_maskz_loadu_ps(target.mask[1], y + 16), v1);
    }
    _mm512_mask_storeu_ps(y, target.mask[0], v0);
    _mm512_mask_storeu_ps(y + 16, target.mask[1], v1);
}

template <class Op, int R>
void tile_float(const Tile& tile, const Target& target) {
    PlainPanel panel{tile.panel};
    prefetch_target<R>(target);
    __m512 acc[R][2];
    for (int r = 0; r < R; ++r) acc[r][0] = acc[r][1] = _mm512_setzero_ps();
    tile_sum<Op, R>(acc, panel, tile.steps, RowPointers<R>(tile.inputs, tile.stride), tile.ahead);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) tile_store(target, r, acc[r][0], acc[r][1]);
}

// The sums over a row's high parts, added to what the bytes gave: v[i] += scale_high * sum.
template <class Panel>
void add_high(Panel& panel, const RowHeader& head, __m512 (&v)[2]) {
    const High* high = high_parts(head);
    __m512i sum0 = _mm512_set1_epi32(-head.offset_high), sum1 = sum0;
    for (int i = 0; i < head.n_high; ++i) {
        __m512i w0, w1;
        panel.group(high[i].step / kGroupSteps);
        panel.load(high[i].step, w0, w1);
        const __m512i x = _mm512_set1_epi32(static_cast<int32_t>(high[i].values));
        sum0 = _mm512_dpbusd_epi32(sum0, w0, x);
        sum1 = _mm512_dpbusd_epi32(sum1, w1, x);
    }
    const __m512 scale = _mm512_set1_ps(head.scale_high);
    v[0] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum0), scale, v[0]);
    v[1] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum1), scale, v[1]);
}

template <class Panel, int R>
void tile_integer(const Tile& tile, const Target& target, Panel panel) {
    prefetch_target<R>(target);
    __m512 values[R][2];
    {
        __m512i acc[R][2];
#pragma GCC unroll 12
        for (int r = 0; r < R; ++r) acc[r][0] = acc[r][1] = _mm512_set1_epi32(-tile.header(r).offset);
        tile_sum<Int8Op, R>(acc, panel, tile.steps, RowPointers<R>(tile.inputs + sizeof(RowHeader), tile.stride),
                            tile.ahead);
#pragma GCC unroll 12
        for (int r = 0; r < R; ++r) {
            const __m512 scale = _mm512_set1_ps(tile.header(r).scale);
            values[r][0] = _mm512_mul_ps(_mm512_cvtepi32_ps(acc[r][0]), scale);
            values[r][1] = _mm512_mul_ps(_mm512_cvtepi32_ps(acc[r][1]), scale);
        }
    }
#pragma GCC unroll 1
    for (int r = 0; r < R; ++r) {  // from memory, row by row: this code once, not R times
        if (tile.header(r).n_high > 0) add_high(panel, tile.header(r), values[r]);
        tile_store(target, r, _mm512_mul_ps(values[r][0], target.scale[0]), _mm512_mul_ps(values[r][1], target.scale[1]));
    }
}

template <int R>
void tile_int8(const Tile& tile, const Target& target) {
    tile_integer<PlainPanel, R>(tile, target, PlainPanel{tile.panel});
}

template <int R>
void tile_int4(const Tile& tile, const Target& target) {
    tile_integer<Int4Panel, R>(tile, target, Int4Panel(tile.panel));
}

// An int4 panel's steps as an int8 panel's.
inline void int4_unpack(const uint8_t* packed, int64_t steps, uint8_t* out) {
    Int4Panel panel(packed);
    for (int64_t step = 0; step < steps; ++step) {
        if (step % kGroupSteps == 0) panel.group(step / kGroupSteps);
        __m512i w0, w1;
        panel.load(step, w0, w1);
        _mm512_store_si512(out + step * kStepBytes, w0);
        _mm512_store_si512(out + step * kStepBytes + 64, w1);
    }
}

template <int R>
void run_tile(Kernel kernel, const Tile& tile, const Target& target) {
    switch (kernel) {
        case Kernel::f32: return tile_float<FloatOp, R>(tile, target);
        case Kernel::bf16: return tile_float<Bf16Op, R>(tile, target);
        case Kernel::int8: return tile_int8<R>(tile, target);
        case Kernel::int4: return tile_int4<R>(tile, target);
    }
}

}  // namespace hg

#endif
