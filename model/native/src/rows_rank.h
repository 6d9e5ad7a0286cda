// The order in which tokens are drawn, and the quick look for those that matter.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "mathf.h"
#include "vec.h"

namespace hg {

struct Ranked {
    float value;
    int32_t id;
};

// Whether a comes before b: the larger value, then the lower index.
struct RanksBefore {
    bool operator()(const Ranked& a, const Ranked& b) const {
        return a.value != b.value ? a.value > b.value : a.id < b.id;
    }
};
constexpr RanksBefore ranks_before;

// Calls visit(i) in order for those i with x[i] > floor(), which may rise on the way. A group of 64 without one costs a few
// instructions.
template <typename Floor, typename Visit>
HG_INLINE void each_above(const float* x, int64_t n, Floor floor, Visit visit) {
    constexpr int64_t kGroup = 4 * kLanes;
    for (int64_t begin = 0; begin < n; begin += kGroup) {
        const int64_t end = std::min(begin + kGroup, n);
        if (end - begin == kGroup) {
            const Vec a = vec_max(vec_load(x + begin), vec_load(x + begin + kLanes));
            const Vec b = vec_max(vec_load(x + begin + 2 * kLanes), vec_load(x + begin + 3 * kLanes));
            if (vec_max_lane(vec_max(a, b)) <= floor()) continue;
        }
        for (int64_t i = begin; i < end; ++i) {
            if (x[i] > floor()) visit(i);
        }
    }
}

constexpr int64_t kPiece = 1024;  // of a row, small enough for the nearest cache

HG_INLINE double sum_weights(const double* w, int64_t n) {
    constexpr int kWays = 32;
    double sums[kWays] = {}, sum = 0.0;
    int64_t i = 0;
    for (; i + kWays <= n; i += kWays) {
        for (int way = 0; way < kWays; ++way) sums[way] += w[i + way];
    }
    for (; i < n; ++i) sum += w[i];
    for (int way = 0; way < kWays; ++way) sum += sums[way];
    return sum;
}

// w[i] = e^d[i] for d <= 0, and their sum; n at most kPiece.
HG_INLINE double exp_piece(const float* d, int64_t n, double* w) {
    for (int64_t i = 0; i < n; ++i) w[i] = exp_f64(double(d[i]));
    return sum_weights(w, n);
}

// The k that come first of x / divisor, in order; n of them if there are fewer.
void rank_top(const float* x, int64_t n, int64_t k, float divisor, std::vector<Ranked>& out);

}  // namespace hg
