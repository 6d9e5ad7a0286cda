// How packed weights and prepared inputs lie in memory; between the linear layers' own files only.
//
// All formats walk over the inputs in steps of 4 bytes of a prepared row: 1 float32, 2 bfloat16 or 4 int8. A step of a
// panel is 128 bytes, [kPanel outputs][4 bytes]: two vectors of 16 outputs, against which the row's 4 bytes are
// broadcast. So one loop serves all formats (see linear_avx512.h).
//
//   f32    panel: steps
//   bf16   panel: steps
//   int8   panel: steps of unsigned bytes w + 128, then kPanel float32 scales
//   int4   panel: kPanel float32 scales; then group by group of 32 inputs a factor and an offset per output, both unsigned
//          bytes, and per pair of steps 128 bytes of codes. A weight's byte, as int8 stores it, is
//          floor(code * factor / 16) + offset: so an int4 panel unpacks exactly into an int8 panel's steps, and both
//          take the same way from there.
#pragma once

#include "linear.h"
#include "simd.h"

namespace hg {

constexpr int64_t kStepBytes = 128;           // of an unpacked panel
constexpr int64_t kGroup = 32;                // int4: inputs per factor and offset
constexpr int64_t kGroupSteps = kGroup / 4;
constexpr int64_t kPairBytes = 128;           // int4: the codes of two steps
constexpr int64_t kGroupHead = 2 * kPanel;    // int4: the factors, then the offsets
constexpr int64_t kGroupBytes = kGroupHead + kGroupSteps / 2 * kPairBytes;
constexpr int64_t kScaleBytes = kPanel * 4;

// A pair's codes lie in 16 bits each, for inputs 0 and 1, and 2 and 3, of an output's step. From the lowest 4 bits: the even
// step's first input and its second, the odd step's second and its first: where they are cheapest to take apart.
constexpr int kCodeShift[2][2] = {{0, 4}, {12, 8}};  // [odd step][second input]

constexpr int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

inline int64_t linear_steps(Format format, int64_t n_in) {
    switch (format) {
        case Format::f32: return n_in;
        case Format::bf16: return (n_in + 1) / 2;
        case Format::int8: return (n_in + 3) / 4;
        default: return (n_in + 7) / 8 * 2;
    }
}

// int4: where a group begins in its panel.
constexpr int64_t int4_group(int64_t group) { return kScaleBytes + group * kGroupBytes; }

inline int64_t panel_bytes(Format format, int64_t n_in) {
    const int64_t steps = linear_steps(format, n_in);
    switch (format) {
        case Format::int8: return steps * kStepBytes + kScaleBytes;
        case Format::int4:
            return kScaleBytes + (n_in + kGroup - 1) / kGroup * kGroupHead + steps / 2 * kPairBytes;
        default: return steps * kStepBytes;
    }
}

// A prepared row of the integer formats: this header, the bytes, then the list of high parts.
// x = scale * byte + scale_high * high, where `high` is zero but for the few inputs far outside the row's spread: see
// input_prepare.
struct RowHeader {
    float scale, scale_high;
    int32_t offset, offset_high;  // 128 * the sum of the bytes: the weights are stored 128 too large
    int32_t n_high, high_at;      // how many High there are, and where: bytes from the header
    int32_t unused[10];
};
static_assert(sizeof(RowHeader) == 64, "rows stay aligned");

struct High {  // the high parts of the 4 inputs of one step
    int32_t step;
    uint32_t values;
};

inline int64_t row_data_bytes(int64_t n_in) { return round_up(n_in, 8); }
// Inputs beyond kHighSpread root mean squares: fewer than n_in / kHighSpread^2, whatever the row. The mean square is rounded;
// what that can add is far less than the rest of the sum below.
constexpr int64_t kHighSpread = 4;
inline int64_t row_max_high(int64_t n_in) { return n_in / (kHighSpread * kHighSpread) + n_in / 256 + 1; }

}  // namespace hg
