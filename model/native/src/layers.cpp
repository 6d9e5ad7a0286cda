#include "layers.h"

#include <cmath>

namespace hg {
namespace {

// Plain loops over this many running sums: a compiler makes vectors of them under every instruction set, and the order of
// the sums is the same in all.
constexpr int kLanes = 32;

float sum_of(float* lanes) {
    for (int width = kLanes / 2; width > 0; width /= 2) {
        for (int j = 0; j < width; ++j) lanes[j] += lanes[j + width];
    }
    return lanes[0];
}

// Sum of term(i) over [0, n).
template <typename Term>
inline float sum(int64_t n, Term term) {
    float lanes[kLanes] = {};
    const int64_t whole = n / kLanes * kLanes;
    for (int64_t i = 0; i < whole; i += kLanes) {
        for (int j = 0; j < kLanes; ++j) lanes[j] += term(i + j);
    }
    for (int64_t i = whole; i < n; ++i) lanes[i - whole] += term(i);
    return sum_of(lanes);
}

}  // namespace

void norm_row(const float* x, int64_t n, const float* gain, const float* bias, float eps, float* out) {
    const float count = static_cast<float>(n);
    if (bias == nullptr) {
        const float squares = sum(n, [=](int64_t i) { return x[i] * x[i]; });
        const float scale = 1.0f / std::sqrt(squares / count + eps);
        for (int64_t i = 0; i < n; ++i) out[i] = gain[i] * (x[i] * scale);
        return;
    }
    const float mean = sum(n, [=](int64_t i) { return x[i]; }) / count;
    // The variance from the differences: the difference of two large sums would lose its digits.
    const float squares = sum(n, [=](int64_t i) { return (x[i] - mean) * (x[i] - mean); });
    const float scale = 1.0f / std::sqrt(squares / count + eps);
    for (int64_t i = 0; i < n; ++i) out[i] = (x[i] - mean) * scale * gain[i] + bias[i];
}

void rope_row(float* x, int64_t n, const float* cos, const float* sin) {
    const int64_t half = n / 2;
    float* left = x;
    float* right = x + half;
    for (int64_t i = 0; i < half; ++i) {
        const float a = left[i], b = right[i];
        left[i] = a * cos[i] - b * sin[i];
        right[i] = b * cos[i] + a * sin[i];
    }
}

float dot(const float* a, const float* b, int64_t n) {
    return sum(n, [=](int64_t i) { return a[i] * b[i]; });
}

void add_scaled(float* y, const float* x, float scale, int64_t n) {
    for (int64_t i = 0; i < n; ++i) y[i] += scale * x[i];
}

}  // namespace hg
