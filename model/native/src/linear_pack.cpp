// Packing weights into panels, quantising them on the way, and reading rows back.
#include <algorithm>
#include <vector>

#include "linear_layout.h"

namespace hg {

namespace {

// A panel's weights with the outputs side by side, [inputs, filled up with zeros][kPanel], and the largest magnitude of
// each output (NaN where a weight isn't finite).
struct Turned {
    std::vector<float> values;
    float largest[kPanel] = {};

    Turned(const Linear& linear, const float* weight, int64_t p, int64_t n_inputs)
        : values(static_cast<size_t>(n_inputs * kPanel)) {
        const int64_t n = std::min(kPanel, linear.n_out - p * kPanel);
        for (int64_t j = 0; j < n; ++j) {
            const float* row = weight + (p * kPanel + j) * linear.n_in;
            for (int64_t i = 0; i < linear.n_in; ++i) {
                values[static_cast<size_t>(i * kPanel + j)] = row[i];
                // Not std::max: once a weight isn't finite, NaN stays.
                const float magnitude = std::fabs(row[i]);
                const bool sound = magnitude < INFINITY && largest[j] == largest[j];
                largest[j] = sound ? std::max(largest[j], magnitude) : NAN;
            }
        }
    }
    const float* input(int64_t i) const { return values.data() + i * kPanel; }
};

HG_INLINE float inverse(float x) { return x > 1e-35f ? 1.0f / x : 0.0f; }  // of NaN 0 too

HG_INLINE float nearest(float x) { return (x + 12582912.0f) - 12582912.0f; }  // ties to even; |x| < 2^22

void pack_f32(const Linear& linear, const float* weight, int64_t p, uint8_t* panel) {
    const Turned turned(linear, weight, p, linear.n_in);
    std::memcpy(panel, turned.values.data(), turned.values.size() * sizeof(float));
}

void pack_bf16(const Linear& linear, const float* weight, int64_t p, uint8_t* panel) {
    const int64_t steps = linear_steps(Format::bf16, linear.n_in);
    const Turned turned(linear, weight, p, steps * 2);
    uint16_t* out = reinterpret_cast<uint16_t*>(panel);
    for (int64_t s = 0; s < steps; ++s) {
        for (int64_t j = 0; j < kPanel; ++j) {
            for (int64_t i = 0; i < 2; ++i) *out++ = bf16_of_float(turned.input(2 * s + i)[j]);
        }
    }
}

void pack_int8(const Linear& linear, const float* weight, int64_t p, uint8_t* panel) {
    const int64_t steps = linear_steps(Format::int8, linear.n_in);
    const Turned turned(linear, weight, p, steps * 4);
    float* scales = reinterpret_cast<float*>(panel + steps * kStepBytes);
    float inverses[kPanel];
    for (int64_t j = 0; j < kPanel; ++j) {
        scales[j] = turned.largest[j] / 127.0f;
        inverses[j] = 127.0f * inverse(turned.largest[j]);
    }
    for (int64_t s = 0; s < steps; ++s) {
        for (int64_t j = 0; j < kPanel; ++j) {
            for (int64_t i = 0; i < 4; ++i) {
                const float q = inverses[j] > 0.0f ? turned.input(4 * s + i)[j] * inverses[j] : 0.0f;
                *panel++ = static_cast<uint8_t>(static_cast<int32_t>(nearest(q)) + 128);
            }
        }
    }
}

// ---- int4: the output's weights on int8's grid (in units of scale), each group's on 16 of its values. ----

using Lanes = float[kPanel];

// floor(code * factor / 16) lies this much below the quotient on average.
constexpr float kFloorBias = 15.0f / 32.0f;

// The factor and the offset of each output for a group that reaches from `low` to `high`. In floats, whole numbers.
void choose_grid(const Lanes& low, const Lanes& high, Lanes& factor, Lanes& offset) {
    for (int64_t j = 0; j < kPanel; ++j) {
        const float begin = std::min(std::max(nearest(low[j] + kFloorBias), -127.0f), 127.0f);
        // The largest code's value must not pass 127.
        const float most = static_cast<float>(static_cast<int32_t>((2047.0f - 16.0f * begin) * (1.0f / 15.0f)));
        const float step = nearest((high[j] - low[j]) * (16.0f / 15.0f));
        factor[j] = std::min(std::max(step, 0.0f), std::min(most, 255.0f));
        offset[j] = begin;
    }
}

HG_INLINE float code_of(float weight, float inverse_factor, float offset) {
    const float code = nearest((weight - offset + kFloorBias) * 16.0f * inverse_factor);
    return std::min(std::max(code, 0.0f), 15.0f);
}

HG_INLINE float value_of(float code, float factor, float offset) {
    return static_cast<float>(static_cast<int32_t>(code * factor * 0.0625f)) + offset;
}

// Squared error of a group [kGroup][kPanel] on each output's grid.
void grid_error(const float* group, const Lanes& factor, const Lanes& offset, Lanes& error) {
    Lanes inverses;
    for (int64_t j = 0; j < kPanel; ++j) {
        inverses[j] = inverse(factor[j]);
        error[j] = 0.0f;
    }
    for (int64_t i = 0; i < kGroup; ++i) {
        for (int64_t j = 0; j < kPanel; ++j) {
            const float w = group[i * kPanel + j];
            const float rest = value_of(code_of(w, inverses[j], offset[j]), factor[j], offset[j]) - w;
            error[j] += rest * rest;
        }
    }
}

// The best grid of each output: the group's whole range, and ranges cut a little at either end, which serve the many
// weights in the middle at the cost of the few outside.
void best_grid(const float* group, Lanes& factor, Lanes& offset) {
    constexpr int kCuts = 4;
    constexpr float kCut = 0.025f;  // of the range
    Lanes low, high, least;
    std::fill(low, low + kPanel, INFINITY);
    std::fill(high, high + kPanel, -INFINITY);
    std::fill(least, least + kPanel, INFINITY);
    for (int64_t i = 0; i < kGroup; ++i) {
        for (int64_t j = 0; j < kPanel; ++j) {
            low[j] = std::min(low[j], group[i * kPanel + j]);
            high[j] = std::max(high[j], group[i * kPanel + j]);
        }
    }
    for (int cut = 0; cut < kCuts * kCuts; ++cut) {
        Lanes begin, end, here_factor, here_offset, error;
        for (int64_t j = 0; j < kPanel; ++j) {
            const float range = (high[j] - low[j]) * kCut;
            begin[j] = low[j] + range * static_cast<float>(cut / kCuts);
            end[j] = high[j] - range * static_cast<float>(cut % kCuts);
        }
        choose_grid(begin, end, here_factor, here_offset);
        grid_error(group, here_factor, here_offset, error);
        for (int64_t j = 0; j < kPanel; ++j) {
            const bool better = error[j] < least[j];
            least[j] = better ? error[j] : least[j];
            factor[j] = better ? here_factor[j] : factor[j];
            offset[j] = better ? here_offset[j] : offset[j];
        }
    }
}

// `head`: a group's factors and offsets, its codes behind them; `steps` of it exist.
void write_group(const float* group, const Lanes& factor, const Lanes& offset, int64_t steps, uint8_t* head) {
    for (int64_t j = 0; j < kPanel; ++j) {
        head[j] = static_cast<uint8_t>(factor[j]);
        head[kPanel + j] = static_cast<uint8_t>(static_cast<int32_t>(offset[j]) + 128);
    }
    uint8_t* codes = head + kGroupHead;
    std::memset(codes, 0, static_cast<size_t>(steps / 2 * kPairBytes));
    for (int64_t s = 0; s < steps; ++s) {
        for (int64_t j = 0; j < kPanel; ++j) {
            for (int64_t i = 0; i < 4; ++i) {
                const float w = group[(4 * s + i) * kPanel + j];
                const int code = static_cast<int>(code_of(w, inverse(factor[j]), offset[j]));
                const int shift = kCodeShift[s % 2][i % 2];
                codes[s / 2 * kPairBytes + j * 4 + i / 2 * 2 + shift / 8] |= static_cast<uint8_t>(code << shift % 8);
            }
        }
    }
}

void pack_int4(const Linear& linear, const float* weight, int64_t p, uint8_t* panel) {
    const int64_t steps = linear_steps(Format::int4, linear.n_in), n_groups = (linear.n_in + kGroup - 1) / kGroup;
    Turned turned(linear, weight, p, n_groups * kGroup);
    Lanes scale, inverses;
    for (int64_t j = 0; j < kPanel; ++j) {
        scale[j] = turned.largest[j] / 127.0f;
        inverses[j] = 127.0f * inverse(turned.largest[j]);
    }
    std::memcpy(panel, scale, sizeof(scale));
    for (int64_t i = 0; i < linear.n_in; ++i) {
        float* w = turned.values.data() + i * kPanel;
        for (int64_t j = 0; j < kPanel; ++j) w[j] = inverses[j] > 0.0f ? w[j] * inverses[j] : 0.0f;
    }
    for (int64_t i = linear.n_in; i < n_groups * kGroup; ++i) {  // beyond the last input: nothing that widens its group
        std::memcpy(turned.values.data() + i * kPanel, turned.input(linear.n_in - 1), sizeof(Lanes));
    }
    for (int64_t g = 0; g < n_groups; ++g) {
        Lanes factor = {}, offset = {};
        best_grid(turned.input(g * kGroup), factor, offset);
        write_group(turned.input(g * kGroup), factor, offset, std::min(kGroupSteps, steps - g * kGroupSteps),
                    panel + int4_group(g));
    }
}

}  // namespace

void linear_pack(Linear& linear, const float* weight, int64_t panel_begin, int64_t panel_end) {
    for (int64_t p = panel_begin; p < panel_end; ++p) {
        uint8_t* panel = linear.data + p * panel_bytes(linear.format, linear.n_in);
        switch (linear.format) {
            case Format::f32: pack_f32(linear, weight, p, panel); break;
            case Format::bf16: pack_bf16(linear, weight, p, panel); break;
            case Format::int8: pack_int8(linear, weight, p, panel); break;
            case Format::int4: pack_int4(linear, weight, p, panel); break;
        }
    }
}

void linear_row(const Linear& linear, int64_t row, float* out) {
    const int64_t steps = linear_steps(linear.format, linear.n_in), lane = row % kPanel;
    const uint8_t* panel = linear.data + row / kPanel * panel_bytes(linear.format, linear.n_in);
    if (linear.format == Format::f32) {
        const float* values = reinterpret_cast<const float*>(panel);
        for (int64_t i = 0; i < linear.n_in; ++i) out[i] = values[i * kPanel + lane];
    } else if (linear.format == Format::bf16) {
        const uint16_t* values = reinterpret_cast<const uint16_t*>(panel);
        for (int64_t i = 0; i < linear.n_in; ++i) out[i] = float_of_bf16(values[(i / 2 * kPanel + lane) * 2 + i % 2]);
    } else if (linear.format == Format::int8) {
        const float scale = reinterpret_cast<const float*>(panel + steps * kStepBytes)[lane];
        for (int64_t i = 0; i < linear.n_in; ++i) {
            out[i] = scale * static_cast<float>(panel[(i / 4 * kPanel + lane) * 4 + i % 4] - 128);
        }
    } else {
        const float scale = reinterpret_cast<const float*>(panel)[lane];
        for (int64_t i = 0; i < linear.n_in; ++i) {
            const int64_t step = i / 4;
            const uint8_t* head = panel + int4_group(i / kGroup) + lane;
            const uint8_t* pair = panel + int4_group(i / kGroup) + kGroupHead + step % kGroupSteps / 2 * kPairBytes;
            const int shift = kCodeShift[step % 2][i % 2];
            const int code = pair[lane * 4 + i % 4 / 2 * 2 + shift / 8] >> shift % 8 & 15;
            out[i] = scale * static_cast<float>((code * head[0] >> 4) + head[kPanel] - 128);
        }
    }
}

}  // namespace hg
