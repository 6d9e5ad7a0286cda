#include "attention.h"

#include <algorithm>
#include <cmath>

#include "vec.h"

// A tile of rows (queries x the heads of the group) runs over the keys in chunks of 256, numbered from position 0: scores
// into scratch, running maximum, weights, weighted sum of the values, all of one row in one fixed order. A row's chunks
// begin at absolute positions and each of its sums is a single chain over them, so it can't matter with which other rows
// it shares a tile: those only share the loads of keys and values. Per row and chunk (Milakov and Gimelshein, 2018):
//     m' = max(m, scores),  p = 2^(scores - m'),  sum = sum * 2^(m - m') + p,  acc = acc * 2^(m - m') + p V
// with queries scaled by log2(e) / sqrt(head_dim) beforehand, so that 2^x serves for e^x.

namespace hg {

namespace {

constexpr int kChunk = 256;    // keys whose scores are held at once
constexpr int kTileRows = 24;  // rows that share a chunk's keys and values while these are in the nearest caches
constexpr int kStreamRows = 4;  // so few rows wait for memory: they ask for what comes next ahead of time
constexpr int kAhead = 32;      // values
constexpr int kValueRun = 64;  // values that all rows of a tile pass before the next: 16 KB at 64 dimensions

// Rows x vectors that a product keeps in registers: as many as there are, less those of the operands.
#if defined(HG_AVX512)
constexpr int kScoreRows = 8, kScoreBlocks = 4, kScoreSums = 16, kValueRows = 6, kValueVecs = 4;
#elif defined(HG_AVX2)
constexpr int kScoreRows = 4, kScoreBlocks = 4, kScoreSums = 4, kValueRows = 3, kValueVecs = 2;
#elif defined(__aarch64__)
constexpr int kScoreRows = 4, kScoreBlocks = 4, kScoreSums = 4, kValueRows = 4, kValueVecs = 1;
#else
constexpr int kScoreRows = 2, kScoreBlocks = 2, kScoreSums = 2, kValueRows = 2, kValueVecs = 1;
#endif

int64_t padded(int64_t head_dim) { return (head_dim + kLanes - 1) / kLanes * kLanes; }

// What a tile works on, in scratch memory.
struct Tile {
    int rows;
    int64_t head_dim, width;   // width: head_dim rounded up to whole vectors
    float* q;                  // [kTileRows][width], scaled
    float* acc;                // [kTileRows][width]
    float* scores;             // [kTileRows][kChunk]
    float* sums;               // [kTileRows][kLanes], added up at the very end
    float max[kTileRows];
    int64_t limit[kTileRows];  // positions that the row sees; never falls from row to row
};

// scores[r][16 b + j] = q[r] . key 16 b + j of the chunk, summed over the dimensions in their order.
template <typename T, int R, int B>
void score_tile(const T* keys, int64_t head_dim, const float* q, int64_t q_stride, float* scores) {
    Vec sum[R][B];
    for (int r = 0; r < R; ++r) {
        for (int b = 0; b < B; ++b) sum[r][b] = vec_zero();
    }
    const int64_t block = head_dim * kCacheBlock;
    for (int64_t d = 0; d < head_dim; ++d) {
        Vec key[B];
        for (int b = 0; b < B; ++b) key[b] = vec_load(keys + b * block + d * kCacheBlock);
        if constexpr (R <= kStreamRows) {
            for (int b = 0; b < B; ++b) HG_PREFETCH_L1(keys + (B + b) * block + d * kCacheBlock);
        }
        for (int r = 0; r < R; ++r) {
            const Vec x = vec_set(q[r * q_stride + d]);
            for (int b = 0; b < B; ++b) sum[r][b] = vec_fma(x, key[b], sum[r][b]);
        }
    }
    for (int r = 0; r < R; ++r) {
        for (int b = 0; b < B; ++b) vec_store(scores + r * kChunk + b * kCacheBlock, sum[r][b]);
    }
}

// The scores of R rows over blocks [begin, end) of the chunk, as many blocks at once as the registers hold.
template <typename T, int R>
void score_rows(const T* keys, int64_t begin, int64_t end, int64_t head_dim, const float* q, int64_t q_stride,
                float* scores) {
    constexpr int kMost = std::max(1, std::min(kScoreBlocks, kScoreSums / R));
    for (int64_t b = begin; b < end;) {
        const T* block = keys + b * head_dim * kCacheBlock;
        float* out = scores + b * kCacheBlock;
        const int64_t left = end - b;
        if (left >= kMost) {
            score_tile<T, R, kMost>(block, head_dim, q, q_stride, out);
            b += kMost;
        } else if (kMost > 2 && left == 3) {
            score_tile<T, R, std::min(kMost, 3)>(block, head_dim, q, q_stride, out);
            b += 3;
        } else if (kMost > 1 && left == 2) {
            score_tile<T, R, std::min(kMost, 2)>(block, head_dim, q, q_stride, out);
            b += 2;
        } else {
            score_tile<T, R, 1>(block, head_dim, q, q_stride, out);
            b += 1;
        }
    }
}

template <typename T, int R = kScoreRows>
void score_any(int rows, const T* keys, int64_t begin, int64_t end, int64_t head_dim, const float* q,
               int64_t q_stride, float* scores) {
    if (rows >= R) {
        score_rows<T, R>(keys, begin, end, head_dim, q, q_stride, scores);
    } else if constexpr (R > 1) {
        score_any<T, R - 1>(rows, keys, begin, end, head_dim, q, q_stride, scores);
    }
}

int64_t seen(const Tile& tile, int row, int64_t chunk) {  // keys of the chunk that the row sees
    return std::clamp<int64_t>(tile.limit[row] - chunk, 0, kChunk);
}

// Scores of rows [first, tile.rows) over the chunk at position `chunk`; what a row doesn't see comes out as anything.
template <typename T>
void score_chunk(const Tile& tile, int first, int64_t chunk, const T* keys) {
    const auto blocks = [&](int row) { return (seen(tile, row, chunk) + kCacheBlock - 1) / kCacheBlock; };
    const int64_t all = blocks(tile.rows - 1);
    // A few blocks at a time for all rows, so that the blocks come from the nearest cache but once.
    for (int64_t begin = 0; begin < all; begin += kScoreBlocks) {
        for (int r = first; r < tile.rows; r += kScoreRows) {
            const int rows = std::min(kScoreRows, tile.rows - r);
            const int64_t end = std::min(begin + kScoreBlocks, blocks(r + rows - 1));
            score_any<T>(rows, keys, begin, end, tile.head_dim, tile.q + r * tile.width, tile.width,
                         tile.scores + r * kChunk);
        }
    }
}

// The row's scores become weights; what was gathered so far is rescaled to the new maximum.
void softmax_row(Tile& tile, int row, int64_t chunk) {
    float* scores = tile.scores + row * kChunk;
    const int64_t n = seen(tile, row, chunk), whole = n / kLanes * kLanes, rest = n - whole;
    const Vec lowest = vec_set(-std::numeric_limits<float>::infinity());
    Vec top = lowest;
    for (int64_t i = 0; i < whole; i += kLanes) top = vec_max(top, vec_load(scores + i));
    if (rest > 0) top = vec_max(top, vec_first(vec_load(scores + whole), rest, lowest));
    const float before = tile.max[row], best = std::max(before, vec_max_lane(top));
    tile.max[row] = best;

    const Vec shift = vec_set(best);
    float* sums = tile.sums + row * kLanes;
    float* acc = tile.acc + row * tile.width;
    Vec sum = vec_zero();
    if (chunk > 0) {
        // Unchanged maximum: times 1, which changes nothing and so can be left out.
        const Vec scale = vec_exp2(vec_set(before) - shift);
        sum = vec_load(sums) * scale;
        if (!(before == best)) {
            for (int64_t d = 0; d < tile.width; d += kLanes) vec_store(acc + d, vec_load(acc + d) * scale);
        }
    }
    for (int64_t i = 0; i < whole; i += kLanes) {
        const Vec p = vec_exp2(vec_load(scores + i) - shift);
        vec_store(scores + i, p);
        sum = sum + p;
    }
    if (rest > 0) {
        const Vec p = vec_first(vec_exp2(vec_load(scores + whole) - shift), rest, vec_zero());
        vec_store(scores + whole, p);
        sum = sum + p;
    }
    vec_store(sums, sum);
}

// acc[r] += weights[r][j] * value j for j in [begin, end), in that order: R rows, W vectors of dimensions.
template <typename T, int R, int W>
void value_tile(const T* values, int64_t head_dim, int64_t begin, int64_t end, const float* weights, float* acc,
                int64_t width) {
    Vec sum[R][W];
    for (int r = 0; r < R; ++r) {
        for (int w = 0; w < W; ++w) sum[r][w] = vec_load(acc + r * width + w * kLanes);
    }
    for (int64_t j = begin; j < end; ++j) {
        Vec value[W];
        for (int w = 0; w < W; ++w) value[w] = vec_load(values + j * head_dim + w * kLanes);
        if constexpr (R <= kStreamRows) {
            for (int w = 0; w < W; ++w) HG_PREFETCH_L1(values + (j + kAhead) * head_dim + w * kLanes);
        }
        for (int r = 0; r < R; ++r) {
            const Vec p = vec_set(weights[r * kChunk + j]);
            for (int w = 0; w < W; ++w) sum[r][w] = vec_fma(p, value[w], sum[r][w]);
        }
    }
    for (int r = 0; r < R; ++r) {
        for (int w = 0; w < W; ++w) vec_store(acc + r * width + w * kLanes, sum[r][w]);
    }
}

// All dimensions of R rows. The last vector may reach into the next position's values: those lanes are never read.
template <typename T, int R>
void value_rows(const T* values, int64_t head_dim, int64_t begin, int64_t end, const float* weights, float* acc,
                int64_t width) {
    int64_t d = 0;
    for (; d + kValueVecs * kLanes <= width; d += kValueVecs * kLanes) {
        value_tile<T, R, kValueVecs>(values + d, head_dim, begin, end, weights, acc + d, width);
    }
    for (; d < width; d += kLanes) value_tile<T, R, 1>(values + d, head_dim, begin, end, weights, acc + d, width);
}

template <typename T, int R = kValueRows>
void value_any(int rows, const T* values, int64_t head_dim, int64_t begin, int64_t end, const float* weights,
               float* acc, int64_t width) {
    if (rows >= R) {
        value_rows<T, R>(values, head_dim, begin, end, weights, acc, width);
    } else if constexpr (R > 1) {
        value_any<T, R - 1>(rows, values, head_dim, begin, end, weights, acc, width);
    }
}

// The weighted values of the chunk onto rows [first, tile.rows).
template <typename T>
void value_chunk(const Tile& tile, int first, int64_t chunk, const T* values) {
    const int64_t all = seen(tile, tile.rows - 1, chunk);
    for (int64_t begin = 0; begin < all; begin += kValueRun) {
        for (int r = first; r < tile.rows; r += kValueRows) {
            const int rows = std::min(kValueRows, tile.rows - r);
            const float* weights = tile.scores + r * kChunk;
            float* acc = tile.acc + r * tile.width;
            // What all of these rows see, they pass together; then each its own rest. Never a weight of 0 instead: 0
            // times a stale NaN is NaN.
            const int64_t end = std::min<int64_t>(begin + kValueRun, all);
            const int64_t common = std::clamp(seen(tile, r, chunk), begin, end);
            if (common > begin) {
                value_any<T>(rows, values, tile.head_dim, begin, common, weights, acc, tile.width);
            }
            for (int i = 1; i < rows; ++i) {
                const int64_t own = std::min(seen(tile, r + i, chunk), end);
                if (own > common) {
                    value_rows<T, 1>(values, tile.head_dim, common, own, weights + i * kChunk, acc + i * tile.width,
                                     tile.width);
                }
            }
        }
    }
}

// The first values of the chunk: they come from memory while the scores are summed.
template <typename T>
void prefetch_values(const Tile& tile, int64_t chunk, const T* values) {
    const auto* begin = reinterpret_cast<const char*>(values);
    const int64_t rows = std::min<int64_t>(kAhead, seen(tile, tile.rows - 1, chunk));
    for (int64_t i = 0; i < rows * tile.head_dim * int64_t(sizeof(T)); i += 64) HG_PREFETCH_L1(begin + i);
}

template <typename T>
void run_tile(Tile& tile, const T* keys, const T* values) {
    std::fill_n(tile.max, tile.rows, -std::numeric_limits<float>::infinity());
    std::fill_n(tile.acc, tile.rows * tile.width, 0.0f);
    int first = 0;  // rows before it have seen all they may
    for (int64_t chunk = 0; chunk < tile.limit[tile.rows - 1]; chunk += kChunk) {
        while (tile.limit[first] <= chunk) ++first;
        if (tile.rows <= kStreamRows) prefetch_values(tile, chunk, values + chunk * tile.head_dim);
        score_chunk(tile, first, chunk, keys + chunk * tile.head_dim);
        for (int r = first; r < tile.rows; ++r) softmax_row(tile, r, chunk);
        value_chunk(tile, first, chunk, values + chunk * tile.head_dim);
    }
}

template <typename T>
void run(const Cache& cache, size_t head, int group, int64_t start, int64_t q_begin, int64_t q_end, const float* q,
         int64_t q_stride, float* out, int64_t out_stride, uint8_t* scratch) {
    const int64_t head_dim = cache.head_dim, width = padded(head_dim);
    Tile tile;
    tile.head_dim = head_dim;
    tile.width = width;
    tile.q = reinterpret_cast<float*>(scratch);
    tile.acc = tile.q + kTileRows * width;
    tile.scores = tile.acc + kTileRows * width;
    tile.sums = tile.scores + kTileRows * kChunk;
    const Vec scale = vec_set(kLog2E / std::sqrt(static_cast<float>(head_dim)));
    const int64_t rows = (q_end - q_begin) * group;
    for (int64_t begin = 0; begin < rows; begin += kTileRows) {
        tile.rows = static_cast<int>(std::min<int64_t>(kTileRows, rows - begin));
        for (int r = 0; r < tile.rows; ++r) {
            const int64_t query = q_begin + (begin + r) / group, member = (begin + r) % group;
            const float* from = q + query * q_stride + member * head_dim;
            for (int64_t d = 0; d < head_dim; d += kLanes) {
                const int64_t n = std::min<int64_t>(kLanes, head_dim - d);
                vec_store(tile.q + r * width + d, vec_load_first(from + d, n) * scale);
            }
            tile.limit[r] = start + query + 1;
        }
        run_tile(tile, reinterpret_cast<const T*>(cache.keys) + head, reinterpret_cast<const T*>(cache.values) + head);
        for (int r = 0; r < tile.rows; ++r) {
            const int64_t query = q_begin + (begin + r) / group, member = (begin + r) % group;
            float* to = out + query * out_stride + member * head_dim;
            const Vec total = vec_set(vec_sum(vec_load(tile.sums + r * kLanes)));
            for (int64_t d = 0; d < head_dim; d += kLanes) {
                const int64_t n = std::min<int64_t>(kLanes, head_dim - d);
                vec_store_first(to + d, vec_load(tile.acc + r * width + d) / total, n);
            }
        }
    }
}

}  // namespace

size_t attention_scratch(const Cache& cache) {
    return size_t(kTileRows) * size_t(2 * padded(cache.head_dim) + kChunk + kLanes) * sizeof(float);
}

void attention_run(const Cache& cache, int layer, int slot, int kv_head, int group, int64_t start, int64_t q_begin,
                   int64_t q_end, const float* q, int64_t q_stride, float* out, int64_t out_stride, uint8_t* scratch) {
    const size_t head = cache.head_offset(layer, slot, kv_head);
    if (cache.half) {
        run<uint16_t>(cache, head, group, start, q_begin, q_end, q, q_stride, out, out_stride, scratch);
    } else {
        run<float>(cache, head, group, start, q_begin, q_end, q, q_stride, out, out_stride, scratch);
    }
}

int64_t attention_cost(const Cache& cache, int group, int64_t start, int64_t q_begin, int64_t q_end) {
    const int64_t n = q_end - q_begin;
    const int64_t pairs = n * (start + q_begin + 1) + n * (n - 1) / 2;  // queries x positions seen
    return pairs * group * cache.head_dim * 2;
}

}  // namespace hg
