#include "lora.h"

#include "layers.h"

namespace hg {

void lora_row(const std::vector<Pair>& pairs, const float* x, float* y) {
    for (const Pair& pair : pairs) {
        for (int64_t r = 0; r < pair.rank; ++r) {
            const float reduced = pair.scaling * dot(&pair.a[static_cast<size_t>(r * pair.n_in)], x, pair.n_in);
            add_scaled(y + pair.offset, &pair.b[static_cast<size_t>(r * pair.n_out)], reduced, pair.n_out);
        }
    }
}

}  // namespace hg
