// Packing weights into panels, quantising them on the way, and reading rows back.
#include <algorithm>
#include <vector>

#include "linear_layout.h"

namespace hg {

namespace {

// A panel's weights with the outputs side by side, [inputs, filled up with zeros][kPanel], and the largest magnitude of
// each output. One per thread at a time.
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
                largest[j] = std::max(largest[j], std::fabs(row[i]));
            }
        }
    }
    const float* input(int64_t i) const { return values.data() + i * kPanel; }
};

float inverse(float x) { return x > 1e-35f ? 1.0f / x : 0.0f; }

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
                // 1.5 * 2^23 rounds to the nearest integer, ties to even.
                const float q = (turned.input(4 * s + i)[j] * inverses[j] + 12582912.0f) - 12582912.0f;
                *panel++ = static_cast<uint8_t>(static_cast<int32_t>(q) + 128);
            }
        }
    }
}

// ---- int4: a scale per output, a factor per group and output, chosen to make the squared error small. ----

using Lanes = float[kPanel];

// kCodebook's value nearest to t, by counting the midpoints below it: no branches, so lanes become vectors.
HG_INLINE float codebook_value(float t) {
    float value = kCodebook[0];
    for (int c = 0; c < 15; ++c) {
        const float middle = 0.5f * static_cast<float>(kCodebook[c] + kCodebook[c + 1]);
        value += t > middle ? static_cast<float>(kCodebook[c + 1] - kCodebook[c]) : 0.0f;
    }
    return value;
}

HG_INLINE int codebook_code(float t) {
    int code = 0;
    for (int c = 0; c < 15; ++c) code += t > 0.5f * static_cast<float>(kCodebook[c] + kCodebook[c + 1]);
    return code;
}

constexpr float kCodeMax = 8.0f;  // largest magnitude in kCodebook

// Squared error of a group with the unit (scale * factor) of each lane.
void group_error(const float* group, const Lanes& unit, Lanes& error) {
    Lanes inverses;
    for (int64_t j = 0; j < kPanel; ++j) {
        inverses[j] = inverse(unit[j]);
        error[j] = 0.0f;
    }
    for (int64_t i = 0; i < kGroup; ++i) {
        for (int64_t j = 0; j < kPanel; ++j) {
            const float w = group[i * kPanel + j];
            const float rest = codebook_value(w * inverses[j]) * unit[j] - w;
            error[j] += rest * rest;
        }
    }
}

// The best factor of each lane near the one that just covers the group's largest weight.
void group_factors(const float* group, const Lanes& largest, const Lanes& scale, Lanes& factor, Lanes& error) {
    for (int64_t j = 0; j < kPanel; ++j) error[j] = INFINITY;
    for (int trial = 0; trial < 5; ++trial) {
        Lanes candidate, unit, here;
        for (int64_t j = 0; j < kPanel; ++j) {
            const float cover = largest[j] * inverse(scale[j] * kCodeMax);
            const float f = std::floor(cover * 0.7f) + static_cast<float>(trial);
            candidate[j] = std::min(std::max(f, 1.0f), static_cast<float>(kMaxFactor));
            unit[j] = candidate[j] * scale[j];
        }
        group_error(group, unit, here);
        for (int64_t j = 0; j < kPanel; ++j) {
            const bool better = here[j] < error[j];
            factor[j] = better ? candidate[j] : factor[j];
            error[j] = better ? here[j] : error[j];
        }
    }
}

void pack_int4(const Linear& linear, const float* weight, int64_t p, uint8_t* panel) {
    const int64_t steps = linear_steps(Format::int4, linear.n_in), n_groups = (linear.n_in + kGroup - 1) / kGroup;
    const Turned turned(linear, weight, p, n_groups * kGroup);
    std::vector<float> largest(static_cast<size_t>(n_groups * kPanel)), factors(largest.size()), trial(largest.size());
    for (int64_t i = 0; i < n_groups * kGroup; ++i) {
        for (int64_t j = 0; j < kPanel; ++j) {
            float& value = largest[static_cast<size_t>(i / kGroup * kPanel + j)];
            value = std::max(value, std::fabs(turned.input(i)[j]));
        }
    }
    const auto lanes = [](std::vector<float>& all, int64_t g) -> Lanes& {
        return *reinterpret_cast<Lanes*>(all.data() + g * kPanel);
    };
    Lanes scale = {}, least;
    std::fill(least, least + kPanel, INFINITY);
    for (int step = 0; step < 8; ++step) {
        Lanes candidate, sum = {}, error;
        for (int64_t j = 0; j < kPanel; ++j) {
            candidate[j] = turned.largest[j] / (kCodeMax * kMaxFactor) * (0.65f + 0.07f * static_cast<float>(step));
        }
        for (int64_t g = 0; g < n_groups; ++g) {
            group_factors(turned.input(g * kGroup), lanes(largest, g), candidate, lanes(trial, g), error);
            for (int64_t j = 0; j < kPanel; ++j) sum[j] += error[j];
        }
        for (int64_t j = 0; j < kPanel; ++j) {
            if (!(sum[j] < least[j])) continue;
            least[j] = sum[j];
            scale[j] = candidate[j];
            for (int64_t g = 0; g < n_groups; ++g) lanes(factors, g)[j] = lanes(trial, g)[j];
        }
    }
    std::memset(panel, 0, static_cast<size_t>(panel_bytes(Format::int4, linear.n_in)));
    std::memcpy(panel, scale, sizeof(scale));
    uint8_t *packed_factors = panel + sizeof(scale), *codes = panel + int4_codes(linear.n_in);
    for (int64_t g = 0; g < n_groups; ++g) {
        for (int64_t j = 0; j < kPanel; ++j) {
            const int factor = static_cast<int>(lanes(factors, g)[j]);
            packed_factors[g / 2 * kPanel + j] |= static_cast<uint8_t>(factor << (g % 2 * 4));
        }
    }
    for (int64_t s = 0; s < steps; ++s) {
        for (int64_t j = 0; j < kPanel; ++j) {
            const float unit = inverse(scale[j] * lanes(factors, s / kGroupSteps)[j]);
            for (int64_t i = 0; i < 4; ++i) {
                const int code = codebook_code(turned.input(4 * s + i)[j] * unit);
                codes[s / 2 * kStepBytes + j * 4 + i] |= static_cast<uint8_t>(code << (s % 2 * 4));
            }
        }
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
        const uint8_t *factors = panel + kPanel * 4, *codes = panel + int4_codes(linear.n_in);
        for (int64_t i = 0; i < linear.n_in; ++i) {
            const int64_t step = i / 4, group = i / kGroup;
            const int factor = factors[group / 2 * kPanel + lane] >> (group % 2 * 4) & 15;
            const int code = codes[step / 2 * kStepBytes + lane * 4 + i % 4] >> (step % 2 * 4) & 15;
            out[i] = scale * static_cast<float>(kCodebook[code] * factor);
        }
    }
}

}  // namespace hg
