#include "rows.h"

#include <algorithm>
#include <cmath>

#include "rows_rank.h"

namespace hg {

namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

struct PieceMax {
    float max;
    bool finite;
};

PieceMax piece_max(const float* x, int64_t n) {
    constexpr int kWays = 4;
    Vec top[kWays], zeros[kWays];  // x * 0 is 0 for what is finite, else NaN
    for (int w = 0; w < kWays; ++w) top[w] = vec_set(kLowest), zeros[w] = vec_zero();
    int64_t i = 0;
    for (; i + kWays * kLanes <= n; i += kWays * kLanes) {
        for (int w = 0; w < kWays; ++w) {
            const Vec v = vec_load(x + i + w * kLanes);
            top[w] = vec_max(v, top[w]);
            zeros[w] = vec_fma(v, vec_zero(), zeros[w]);
        }
    }
    for (int w = 1; w < kWays; ++w) top[0] = vec_max(top[w], top[0]), zeros[0] = zeros[0] + zeros[w];
    float max = vec_max_lane(top[0]), zero = vec_sum(zeros[0]);
    for (; i < n; ++i) {
        max = x[i] > max ? x[i] : max;
        zero += x[i] * 0.0f;
    }
    return {max, zero == 0.0f};
}

// Argmax as torch has it where NaN may be among the values, and what kind of row it is.
void scan_broken(const float* row, int64_t n, RowScan& scan) {
    for (int64_t i = 0; i < n; ++i) {
        if (row[i] != row[i]) {
            scan.argmax = static_cast<int32_t>(i);
            scan.max = row[i];
            break;
        }
    }
    scan.state = std::isfinite(scan.max) ? kRowBanned : kRowBroken;
}

double sum_exp(const float* x, int64_t n, float max) {
    alignas(64) float d[kPiece];
    alignas(64) double w[kPiece];
    for (int64_t i = 0; i < n; ++i) d[i] = x[i] - max;
    return exp_piece(d, n, w);
}

}  // namespace

RowScan row_scan(const float* row, int64_t n, bool with_logsumexp) {
    RowScan scan = {0, kLowest, 0.0f, kRowFinite};
    int64_t best = 0;  // begin of the piece with the first of the largest
    bool finite = true;
    double sum = 0.0;  // of e^(x - scan.max) so far
    for (int64_t begin = 0; begin < n; begin += kPiece) {
        const int64_t size = std::min(kPiece, n - begin);
        const PieceMax piece = piece_max(row + begin, size);
        finite = finite && piece.finite;
        if (piece.max > scan.max) {
            if (with_logsumexp) sum *= exp_f64(double(scan.max) - double(piece.max));
            scan.max = piece.max;
            best = begin;
        }
        if (with_logsumexp && scan.max > kLowest) sum += sum_exp(row + begin, size, scan.max);
    }
    const float* first = std::find(row + best, row + std::min(best + kPiece, n), scan.max);
    scan.argmax = static_cast<int32_t>(first - row);
    if (!finite) scan_broken(row, n, scan);
    if (with_logsumexp) {
        scan.logsumexp = std::isfinite(scan.max) ? static_cast<float>(double(scan.max) + std::log(sum)) : scan.max;
    }
    return scan;
}

void rank_top(const float* x, int64_t n, int64_t k, float divisor, std::vector<Ranked>& out) {
    out.clear();
    float floor = kLowest;  // an x that isn't over it can't rank before the last of the heap, of a lower index
    const auto take = [&](int64_t i) { out.push_back({x[i] / divisor, static_cast<int32_t>(i)}); };
    // A heap with the last in rank in front. Its x is the smallest of all that share its quotient so far, or smaller.
    const auto lower = [&] { floor = x[out.front().id]; };
    int64_t begin = 0;
    for (; begin < n && int64_t(out.size()) < k; ++begin) take(begin);
    std::make_heap(out.begin(), out.end(), ranks_before);
    if (!out.empty()) lower();
    each_above(x + begin, n - begin, [&] { return floor; }, [&](int64_t at) {
        const Ranked token = {x[begin + at] / divisor, static_cast<int32_t>(begin + at)};
        if (!ranks_before(token, out.front())) return;
        std::pop_heap(out.begin(), out.end(), ranks_before);
        out.back() = token;
        std::push_heap(out.begin(), out.end(), ranks_before);
        lower();
    });
    std::sort_heap(out.begin(), out.end(), ranks_before);
}

int64_t row_top(const float* row, int64_t n, int64_t k, int32_t* ids, float* values) {
    static thread_local std::vector<Ranked> top;
    rank_top(row, n, k, 1.0f, top);
    for (size_t i = 0; i < top.size(); ++i) {
        ids[i] = top[i].id;
        values[i] = top[i].value;
    }
    return static_cast<int64_t>(top.size());
}

}  // namespace hg
