// What model/native/rows.py calls: rows of logits in, choices out.
#include "api.h"
#include "rows.h"

namespace {

void require(bool right, const char* message) {
    if (!right) throw hg::BadArgument(message);
}

}  // namespace

// logits [n_rows, n_vocab], rows `stride` floats apart -> argmax, max, logsumexp (may be null), state (RowState), each
// [n_rows].
HG_API int32_t hg_rows_scan(const float* logits, int64_t n_rows, int64_t n_vocab, int64_t stride, int32_t* argmax,
                            float* max, float* logsumexp, uint8_t* state) {
    return hg::guarded([&] {
        require(n_vocab >= 1, "a row of logits must have at least one");
        for (int64_t r = 0; r < n_rows; ++r) {
            const hg::RowScan scan = hg::row_scan(logits + r * stride, n_vocab, logsumexp != nullptr);
            argmax[r] = scan.argmax;
            max[r] = scan.max;
            state[r] = scan.state;
            if (logsumexp != nullptr) logsumexp[r] = scan.logsumexp;
        }
    });
}

// One token per row, or -1 where only the reference can tell: draws [n_rows], tokens [n_rows].
HG_API int32_t hg_rows_draw(const float* logits, int64_t n_rows, int64_t n_vocab, int64_t stride, const hg::RowDraw* draws,
                            int32_t* tokens) {
    return hg::guarded([&] {
        require(n_vocab >= 1, "a row of logits must have at least one");
        for (int64_t r = 0; r < n_rows; ++r) tokens[r] = hg::row_draw(logits + r * stride, n_vocab, draws[r]);
    });
}

// The k largest of each row, in order: ids, values [n_rows, k]; k from 1 to n_vocab.
HG_API int32_t hg_rows_top(const float* logits, int64_t n_rows, int64_t n_vocab, int64_t stride, int64_t k, int32_t* ids,
                           float* values) {
    return hg::guarded([&] {
        require(1 <= k && k <= n_vocab, "so many of a row's largest can't be had");
        for (int64_t r = 0; r < n_rows; ++r) hg::row_top(logits + r * stride, n_vocab, k, ids + r * k, values + r * k);
    });
}
