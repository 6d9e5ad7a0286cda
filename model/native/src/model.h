// A loaded model: its shape, packed weights, cache and adapters.
#pragma once

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <vector>

#include "cache.h"
#include "linear.h"
#include "lora.h"
#include "memory.h"
#include "pool.h"

namespace hg {

// A caller's mistake, with a line that names it.
struct BadArgument : std::invalid_argument {
    using std::invalid_argument::invalid_argument;
};

enum class Architecture : int32_t { gpt2 = 0, llama = 1 };

// Plain data: Python fills the same structure (library.py).
struct Shape {
    Architecture architecture;
    int32_t vocab_size, n_layer, n_head, n_kv_head, head_dim, d_model, d_ff;
    float norm_eps;
    Format format;       // of the blocks' products
    Format head_format;  // of the head and the token embedding
    int32_t tied;        // 1: the embedding's rows are the head's
    int32_t head;        // 0: a classifier's trunk
    int32_t n_slots, context;
    int32_t half_cache;  // 1: keys and values in 16 bits

    int64_t query_width() const { return int64_t{n_head} * head_dim; }
    int64_t kv_width() const { return int64_t{n_kv_head} * head_dim; }
    int64_t qkv_width() const { return query_width() + 2 * kv_width(); }
    int64_t up_width() const { return int64_t{d_ff} * (architecture == Architecture::llama ? 2 : 1); }
};

// Throws BadArgument on a shape that the kernels can't compute.
void check_shape(const Shape& shape);

// The products of a block, and the two matrices outside. Llama's gate and up are one product, gate first.
enum class Matrix : int32_t { qkv = 0, out = 1, up = 2, down = 3, embedding = 4, head = 5 };
constexpr int kBlockMatrices = 4;

// Vectors and tables in float32. The first eight belong to a block; the biases are of the product of that number.
enum class Vector : int32_t {
    qkv_bias = 0,
    out_bias = 1,
    up_bias = 2,
    down_bias = 3,
    attention_gain = 4,
    attention_bias = 5,
    mlp_gain = 6,
    mlp_bias = 7,
    final_gain = 8,
    final_bias = 9,
    positions = 10,  // [context, d_model], gpt2's learned ones
    cosines = 11,    // [context, head_dim / 2], llama's
    sines = 12,
};
constexpr int kBlockVectors = 8;
constexpr int kVectors = 13;

// A piece of a matrix as it is stored; strides in elements. Plain data too.
struct Piece {
    const void* data;
    int32_t dtype;  // 0 float32, 1 bfloat16, 2 float16
    int64_t rows, row_stride, column_stride;
};

struct Block {
    Linear linears[kBlockMatrices];
    std::vector<float> vectors[kBlockVectors];
    int64_t packed[kBlockMatrices] = {};  // rows so far
};

class Model {
  public:
    // Throws BadArgument on a shape that the kernels can't compute, std::bad_alloc, std::system_error (threads).
    Model(const Shape& shape, int threads);
    ~Model();
    Model(const Model&) = delete;
    Model& operator=(const Model&) = delete;

    // Packs rows [row_begin, row_end) of a matrix, whose pieces' rows lie end to end; `layer` is read for a block's only. The
    // ranges come in order and end at a multiple of kPanel or the last row, which completes the matrix.
    void pack(Matrix which, int32_t layer, const Piece* pieces, int32_t n_pieces, int64_t row_begin, int64_t row_end);
    void set_vector(Vector which, int32_t layer, const float* values, int64_t n);
    // Throws BadArgument when something has not been set.
    void check_complete() const;

    const Linear& embedding() const { return shape.tied && shape.head ? head_ : embedding_; }
    const Linear& head() const { return head_; }
    const std::vector<float>& vector(Vector which) const { return vectors_[static_cast<int>(which) - kBlockVectors]; }
    const std::vector<float>& vector(Vector which, int32_t layer) const {
        return blocks[static_cast<size_t>(layer)].vectors[static_cast<int>(which)];
    }

    const Shape shape;
    Pool pool;
    Cache cache{};
    std::vector<Block> blocks;
    Adapters adapters;

    // Adds a projection's pair to an adapter, which is made if there is none of that number: `pair` without its two
    // matrices, a [rank, n_in], b [n_out, rank]. Throws BadArgument when it fits no columns of the matrix.
    void add_pair(int32_t adapter, Matrix which, int32_t layer, Pair pair, const float* a, const float* b);
    void copy_slot(int32_t source, int32_t target, int64_t length);

  private:
    Linear& linear(Matrix which, int32_t layer);
    int64_t& packed(Matrix which, int32_t layer);
    int64_t vector_size(Vector which) const;
    void lay_out();

    Buffer weights_;
    Linear embedding_{}, head_{};
    int64_t embedding_packed_ = 0, head_packed_ = 0;
    std::vector<float> vectors_[kVectors - kBlockVectors];
};

}  // namespace hg
