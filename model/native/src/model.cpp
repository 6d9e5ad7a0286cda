#include "model.h"

#include <algorithm>
#include <new>
#include <string>
#include <utility>

#include "simd.h"

namespace hg {
namespace {

void require(bool right, const char* message) {
    if (!right) throw BadArgument(message);
}

Linear empty_linear(Format format, int64_t n_out, int64_t n_in) {
    return Linear{format, n_out, n_in, linear_panels(n_out), nullptr, nullptr};
}

float element(const Piece& piece, int64_t at) {
    if (piece.dtype == 0) return static_cast<const float*>(piece.data)[at];
    const uint16_t bits = static_cast<const uint16_t*>(piece.data)[at];
    return piece.dtype == 1 ? float_of_bf16(bits) : float_of_half(bits);
}

// Rows [begin, end) of the pieces laid end to end, as floats: out [end - begin, n_in].
void gather(const Piece* pieces, int64_t begin, int64_t end, int64_t n_in, float* out) {
    while (begin < end) {
        while (begin >= pieces->rows) {
            begin -= pieces->rows;
            end -= pieces->rows;
            ++pieces;
        }
        const Piece& piece = *pieces;
        const int64_t n = std::min(end, piece.rows) - begin, first = begin * piece.row_stride;
        if (piece.column_stride == 1) {
            for (int64_t j = 0; j < n; ++j) {
                for (int64_t i = 0; i < n_in; ++i) out[j * n_in + i] = element(piece, first + j * piece.row_stride + i);
            }
        } else {  // stored transposed: along memory too
            for (int64_t i = 0; i < n_in; ++i) {
                for (int64_t j = 0; j < n; ++j) {
                    out[j * n_in + i] = element(piece, first + j * piece.row_stride + i * piece.column_stride);
                }
            }
        }
        begin += n;
        out += n * n_in;
    }
}

}  // namespace

void check_shape(const Shape& s) {
    require(s.architecture == Architecture::gpt2 || s.architecture == Architecture::llama, "unknown architecture");
    for (const Format format : {s.format, s.head_format}) {
        require(Format::f32 <= format && format <= Format::int4, "unknown number format");
    }
    for (const int32_t size : {s.vocab_size, s.n_layer, s.n_head, s.n_kv_head, s.head_dim, s.d_model, s.d_ff, s.n_slots,
                               s.context}) {
        require(size > 0, "every size must be at least 1");
    }
    require(s.n_head % s.n_kv_head == 0, "n_head must be a multiple of n_kv_head");
    require(s.architecture == Architecture::gpt2 || s.head_dim % 2 == 0, "head_dim must be even for rotary positions");
    const int64_t widest = std::max<int64_t>({s.d_model, s.d_ff, s.query_width()});
    if (widest <= kMaxInputs) return;
    throw BadArgument("a layer has more inputs than the kernels can sum: " + std::to_string(widest) + ", not at most " +
                      std::to_string(kMaxInputs));
}

Model::Model(const Shape& shape_, int threads) : shape((check_shape(shape_), shape_)), pool(threads) {
    blocks.resize(static_cast<size_t>(shape.n_layer));
    lay_out();
    if (!cache_create(cache, shape.n_layer, shape.n_slots, shape.n_kv_head, shape.head_dim, shape.context,
                      shape.half_cache != 0)) {
        throw std::bad_alloc();
    }
}

Model::~Model() { cache_destroy(cache); }

// One buffer for all weights, in the order in which a step reads them.
void Model::lay_out() {
    std::vector<Linear*> all;
    for (Block& block : blocks) {
        block.linears[0] = empty_linear(shape.format, shape.qkv_width(), shape.d_model);
        block.linears[1] = empty_linear(shape.format, shape.d_model, shape.query_width());
        block.linears[2] = empty_linear(shape.format, shape.up_width(), shape.d_model);
        block.linears[3] = empty_linear(shape.format, shape.d_model, shape.d_ff);
        for (Linear& linear : block.linears) all.push_back(&linear);
    }
    if (shape.head) {
        head_ = empty_linear(shape.head_format, shape.vocab_size, shape.d_model);
        all.push_back(&head_);
    }
    if (!shape.head || !shape.tied) {
        embedding_ = empty_linear(shape.head_format, shape.vocab_size, shape.d_model);
        all.push_back(&embedding_);
    }
    const auto bytes_of = [](const Linear& l) { return (linear_bytes(l.format, l.n_out, l.n_in) + 63) / 64 * 64; };
    size_t total = 0;
    for (const Linear* linear : all) total += bytes_of(*linear);
    weights_ = Buffer(total);
    uint8_t* at = weights_.data();
    for (Linear* linear : all) {
        linear->data = at;
        at += bytes_of(*linear);
    }
}

Linear& Model::linear(Matrix which, int32_t layer) {
    if (which == Matrix::head && shape.head) return head_;
    if (which == Matrix::embedding && embedding_.data != nullptr) return embedding_;
    require(Matrix::qkv <= which && which <= Matrix::down, "this model has no such matrix");
    require(0 <= layer && layer < shape.n_layer, "this model has no such layer");
    return blocks[static_cast<size_t>(layer)].linears[static_cast<int>(which)];
}

int64_t& Model::packed(Matrix which, int32_t layer) {
    if (which == Matrix::head) return head_packed_;
    if (which == Matrix::embedding) return embedding_packed_;
    return blocks[static_cast<size_t>(layer)].packed[static_cast<int>(which)];
}

void Model::pack(Matrix which, int32_t layer, const Piece* pieces, int32_t n_pieces, int64_t row_begin, int64_t row_end) {
    Linear& target = linear(which, layer);
    int64_t rows = 0;
    for (int32_t i = 0; i < n_pieces; ++i) {
        require(pieces[i].data != nullptr && 0 <= pieces[i].dtype && pieces[i].dtype <= 2, "a piece that can't be read");
        rows += pieces[i].rows;
    }
    require(rows == target.n_out, "the pieces have another number of rows than the matrix");
    require(row_begin == 0 || row_begin == packed(which, layer), "a matrix's rows are packed in order");
    require(row_begin % kPanel == 0 && row_begin < row_end && row_end <= rows && (row_end % kPanel == 0 || row_end == rows),
            "rows that are not whole panels");
    packed(which, layer) = row_begin;
    const int64_t n_in = target.n_in, first = row_begin / kPanel;
    Buffer scratch(static_cast<size_t>(pool.threads()) * kPanel * static_cast<size_t>(n_in) * sizeof(float));
    pool.run(linear_panels(row_end) - first, [&](int64_t chunk, int thread) {
        float* panel_rows = scratch.floats() + thread * kPanel * n_in;
        const int64_t panel = first + chunk, begin = panel * kPanel, end = std::min(begin + kPanel, target.n_out);
        gather(pieces, begin, end, n_in, panel_rows);
        // The panel's rows alone are there: linear_pack is told where row 0 would be, and reads none of the others.
        linear_pack(target, panel_rows - begin * n_in, panel, panel + 1);
    });
    packed(which, layer) = row_end;
}

int64_t Model::vector_size(Vector which) const {
    switch (which) {
        case Vector::qkv_bias: return shape.qkv_width();
        case Vector::up_bias: return shape.up_width();
        case Vector::positions: return int64_t{shape.context} * shape.d_model;
        case Vector::cosines:
        case Vector::sines: return int64_t{shape.context} * (shape.head_dim / 2);
        default: return shape.d_model;
    }
}

void Model::set_vector(Vector which, int32_t layer, const float* values, int64_t n) {
    const int index = static_cast<int>(which);
    require(0 <= index && index < kVectors, "there is no such vector");
    require(values != nullptr && n == vector_size(which), "a vector of the wrong size");
    if (index >= kBlockVectors) {
        vectors_[index - kBlockVectors].assign(values, values + n);
        return;
    }
    require(0 <= layer && layer < shape.n_layer, "this model has no such layer");
    Block& block = blocks[static_cast<size_t>(layer)];
    block.vectors[index].assign(values, values + n);
    if (index < kBlockMatrices) block.linears[index].bias = block.vectors[index].data();
}

void Model::check_complete() const {
    const bool gpt2 = shape.architecture == Architecture::gpt2;
    for (const Block& block : blocks) {
        for (int i = 0; i < kBlockMatrices; ++i) {
            require(block.packed[i] == block.linears[i].n_out, "a block's matrix has not been set");
        }
        for (const Vector gain : {Vector::attention_gain, Vector::mlp_gain}) {
            require(!block.vectors[static_cast<int>(gain)].empty(), "a block's norm has not been set");
        }
        for (const Vector bias : {Vector::attention_bias, Vector::mlp_bias}) {
            require(block.vectors[static_cast<int>(bias)].empty() != gpt2, "LayerNorm has a bias, RMSNorm none");
        }
    }
    require(head_packed_ == head_.n_out, "the head has not been set");
    require(embedding_packed_ == embedding_.n_out, "the token embedding has not been set");
    require(!vector(Vector::final_gain).empty() && vector(Vector::final_bias).empty() != gpt2, "the last norm's gain or bias");
    require(vector(Vector::positions).empty() != gpt2, "learned positions are gpt2's, and needed there");
    require(vector(Vector::cosines).empty() == gpt2 && vector(Vector::sines).empty() == gpt2,
            "rotary positions are llama's, and needed there");
}

void Model::add_pair(int32_t adapter, Matrix which, int32_t layer, Pair pair, const float* a, const float* b) {
    const Linear& target = linear(which, layer);
    require(adapter > 0 && static_cast<int>(which) < kBlockMatrices, "an adapter changes the products of blocks alone");
    require(pair.n_in == target.n_in && pair.rank >= 1 && pair.offset >= 0 && pair.n_out >= 1 &&
                pair.offset + pair.n_out <= target.n_out,
            "a pair of another shape than the product's");
    pair.a.assign(a, a + pair.rank * pair.n_in);
    pair.b.resize(static_cast<size_t>(pair.rank * pair.n_out));
    for (int64_t j = 0; j < pair.n_out; ++j) {
        for (int64_t r = 0; r < pair.rank; ++r) pair.b[static_cast<size_t>(r * pair.n_out + j)] = b[j * pair.rank + r];
    }
    Adapter& owner = adapters.try_emplace(adapter, shape.n_layer).first->second;
    owner.pairs(layer, static_cast<int>(which)).push_back(std::move(pair));
}

void Model::copy_slot(int32_t source, int32_t target, int64_t length) {
    require(0 <= source && source < shape.n_slots && 0 <= target && target < shape.n_slots, "there is no such slot");
    require(0 <= length && length <= shape.context, "a slot is not that long");
    if (source == target || length == 0) return;
    pool.run(shape.n_layer, [&](int64_t layer, int) {
        cache_copy_layer(cache, static_cast<int>(layer), source, target, length);
    });
}

}  // namespace hg
