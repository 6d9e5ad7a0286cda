// Rows of logits: what the sampler asks of them, a pass or two over the vocabulary and no sort. Every row is on its own, so
// callers may spread rows over threads.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hg {

enum RowState : uint8_t {
    kRowBroken = 0,  // NaN or +inf in it, or nothing but -inf: no token can be chosen
    kRowFinite = 1,
    kRowBanned = 2,  // finite but for some -inf, which is how tokens are banned
};

struct RowScan {
    int32_t argmax;   // the lowest index among equals; of a row with NaN, the first NaN, as in torch
    float max;        // row[argmax]
    float logsumexp;  // 0 where it wasn't asked for
    RowState state;
};
RowScan row_scan(const float* row, int64_t n, bool with_logsumexp);

// The k largest (n if there are fewer), largest first, the lower index first among equals. Not for rows with NaN.
int64_t row_top(const float* row, int64_t n, int64_t k, int32_t* ids, float* values);

// A draw as model.sampling defines it: logits / temperature in float32; weights e^(x - max) in float64, of what min_p, then
// top_k, then top_p leave; the token at which the weights, added up from the largest on (the lower index first among
// equals), pass `uniform` times their sum.
struct RowDraw {
    double temperature;  // over 0; less than 1e-6 counts as that
    double top_p;        // over 0, at most 1
    double min_p;        // 0: off
    int64_t top_k;       // 0: off
    double uniform;      // in [0, 1)
};

// The token, or kUndecided. Sums are taken in another order than the reference's, so where the point, or a cut, lies so near
// the end of a token's share that rounding could move it to the next (one draw in a million at most), nothing is said:
// then, as for a broken row, the caller asks the reference. Any token returned is the reference's.
constexpr int32_t kUndecided = -1;
int32_t row_draw(const float* row, int64_t n, const RowDraw&);

}  // namespace hg
