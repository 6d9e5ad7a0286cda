// What model/native/rows.py calls: rows of logits in, choices out.
#include <algorithm>

#include "api.h"
#include "rows.h"

// logits [n_rows, n_vocab], rows `stride` floats apart -> argmax, max, logsumexp (may be null), state (RowState), each
// [n_rows].
HG_API void hg_rows_scan(const float* logits, int64_t n_rows, int64_t n_vocab, int64_t stride, int32_t* argmax,
                         float* max, float* logsumexp, uint8_t* state) {
    for (int64_t r = 0; r < n_rows; ++r) {
        const hg::RowScan scan = hg::row_scan(logits + r * stride, n_vocab, logsumexp != nullptr);
        argmax[r] = scan.argmax;
        max[r] = scan.max;
        state[r] = scan.state;
        if (logsumexp != nullptr) logsumexp[r] = scan.logsumexp;
    }
}

// One token per row, or -1 where only the reference can tell: draws [n_rows], tokens [n_rows].
HG_API void hg_rows_draw(const float* logits, int64_t n_rows, int64_t n_vocab, int64_t stride, const hg::RowDraw* draws,
                         int32_t* tokens) {
    for (int64_t r = 0; r < n_rows; ++r) tokens[r] = hg::row_draw(logits + r * stride, n_vocab, draws[r]);
}

// The k largest of each row, in order: ids, values [n_rows, k]; k at most n_vocab.
HG_API void hg_rows_top(const float* logits, int64_t n_rows, int64_t n_vocab, int64_t stride, int64_t k, int32_t* ids,
                        float* values) {
    for (int64_t r = 0; r < n_rows; ++r) hg::row_top(logits + r * stride, n_vocab, k, ids + r * k, values + r * k);
}

HG_API int64_t hg_rows_candidates(const float* row, int64_t n_vocab, float threshold, int32_t* ids, float* values,
                                  int64_t capacity) {
    return hg::row_candidates(row, n_vocab, threshold, ids, values, capacity);
}
