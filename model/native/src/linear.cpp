// The product over packed weights: which tiles in which order. The inner loops are in linear_avx512.h and
// linear_portable.h.
#include "linear.h"

#include <algorithm>
#include <memory>

#include "linear_avx512.h"
#include "linear_portable.h"

namespace hg {

size_t linear_bytes(Format format, int64_t n_out, int64_t n_in) {
    return static_cast<size_t>(linear_panels(n_out) * panel_bytes(format, n_in));
}

namespace {

constexpr int64_t kBlockBytes = 256 << 10;  // of inputs: they stay in the L2 cache while panels pass
constexpr int64_t kPrefetch = 8192;         // bytes ahead, where weights are read once

// One panel's worth of unpacked int4 per thread, grown as needed.
uint8_t* scratch(int64_t bytes) {
    thread_local std::unique_ptr<uint8_t[]> memory;
    thread_local int64_t size = 0;
    if (size < bytes) {
        memory.reset(new uint8_t[static_cast<size_t>(bytes) + 63]);
        size = bytes;
    }
    return reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(memory.get()) + 63) & ~uintptr_t{63});
}

template <int R>
void dispatch(int64_t rows, Kernel kernel, const Tile& tile, const Target& target) {
    if constexpr (R > 1) {
        if (rows < R) return dispatch<R - 1>(rows, kernel, tile, target);
    }
    run_tile<R>(kernel, tile, target);
}

struct Product {
    const Linear& linear;
    const uint8_t* inputs;
    int64_t stride;
    float* y;
    int64_t y_stride;
    Epilogue epilogue;

    // Rows [begin, end) times one panel.
    void panel(int64_t p, int64_t begin, int64_t end) const {
        const int64_t steps = linear_steps(linear.format, linear.n_in), size = panel_bytes(linear.format, linear.n_in);
        const uint8_t* packed = linear.data + p * size;
        Kernel kernel = linear.format;
        const float* scale = nullptr;
        const uint8_t* data = packed;
        if (linear.format == Format::int8) scale = reinterpret_cast<const float*>(packed + steps * kStepBytes);
        if (linear.format == Format::int4) {
            scale = reinterpret_cast<const float*>(packed);
            if (end - begin > kMaxInt4Rows) {
                uint8_t* unpacked = scratch(steps * kStepBytes);
                int4_unpack(packed, steps, unpacked);
                kernel = Kernel::int8;
                data = unpacked;
            }
        }
        Target target(y + begin * y_stride + p * kPanel, y_stride, linear.n_out - p * kPanel,
                      linear.bias ? linear.bias + p * kPanel : nullptr, scale, epilogue);
        const int64_t n_tiles = (end - begin + kTileRows - 1) / kTileRows;
        // One tile reads the weights once and fetches them well ahead; of several, the first ones fetch the next panel.
        Tile tile{data, steps, inputs + begin * stride, stride, {packed + kPrefetch, size / steps, true}};
        if (n_tiles > 1) tile.ahead = {packed + size, 64, false};
        for (int64_t t = 0; t < n_tiles; ++t) {
            const int64_t rows = (end - begin) * (t + 1) / n_tiles - (end - begin) * t / n_tiles;
            dispatch<kTileRows>(rows, kernel, tile, target);
            tile.inputs += rows * stride;
            target.y += rows * y_stride;
            tile.ahead.at += steps * tile.ahead.step;
            if (tile.ahead.at >= packed + 2 * size) tile.ahead.step = 0;
        }
    }
};

}  // namespace

void linear_run(const Linear& linear, const uint8_t* inputs, int64_t n_rows, int64_t panel_begin, int64_t panel_end,
                float* y, int64_t y_stride, Epilogue epilogue) {
    const int64_t stride = static_cast<int64_t>(input_bytes(linear.format, linear.n_in));
    const Product product{linear, inputs, stride, y, y_stride, epilogue};
    const int64_t block = std::max<int64_t>(kBlockBytes / stride / kTileRows, 1) * kTileRows;
    for (int64_t begin = 0; begin < n_rows; begin += block) {
        const int64_t end = std::min(begin + block, n_rows);
        for (int64_t p = panel_begin; p < panel_end; ++p) product.panel(p, begin, end);
    }
}

}  // namespace hg
