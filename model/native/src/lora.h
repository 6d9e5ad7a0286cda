// Low-rank adapters: y += scaling * B (A x) after a product, in float32, for the rows that ask for it (Hu et al., 2021).
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

namespace hg {

// One published projection's pair. Its outputs are columns [offset, offset + n_out) of our product.
struct Pair {
    int64_t offset, n_out, n_in, rank;
    float scaling;
    std::vector<float> a;  // [rank, n_in]
    std::vector<float> b;  // [rank, n_out]: transposed, so that both products run along memory
};

// The pairs of one adapter: of block `layer`, matrix `which` (qkv, out, up, down).
class Adapter {
  public:
    explicit Adapter(int32_t n_layer) : pairs_(static_cast<size_t>(n_layer)) {}

    std::vector<Pair>& pairs(int32_t layer, int which) { return pairs_[static_cast<size_t>(layer)][which]; }
    const std::vector<Pair>& pairs(int32_t layer, int which) const { return pairs_[static_cast<size_t>(layer)][which]; }

  private:
    struct Layer {
        std::vector<Pair> of[4];
        std::vector<Pair>& operator[](int which) { return of[which]; }
        const std::vector<Pair>& operator[](int which) const { return of[which]; }
    };
    std::vector<Layer> pairs_;
};

using Adapters = std::map<int32_t, Adapter>;  // by number, from 1

// Adds what the pairs make of x [n_in] to y, the whole row of the product.
void lora_row(const std::vector<Pair>& pairs, const float* x, float* y);

}  // namespace hg
