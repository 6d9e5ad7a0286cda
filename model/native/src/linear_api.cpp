// The linear layers for callers of the library, tests first of all: plain C, one product at a time, on the calling
// thread.
#include "linear.h"

#if defined(_WIN32)
#define HG_EXPORT extern "C" __declspec(dllexport)
#else
#define HG_EXPORT extern "C" __attribute__((visibility("default")))
#endif

using hg::Epilogue;
using hg::Format;

namespace {

hg::Linear make_linear(int32_t format, int64_t n_out, int64_t n_in, uint8_t* data, const float* bias) {
    return {static_cast<Format>(format), n_out, n_in, hg::linear_panels(n_out), data, bias};
}

}  // namespace

HG_EXPORT int64_t hg_linear_panel() { return hg::kPanel; }

HG_EXPORT int64_t hg_linear_bytes(int32_t format, int64_t n_out, int64_t n_in) {
    return static_cast<int64_t>(hg::linear_bytes(static_cast<Format>(format), n_out, n_in));
}

HG_EXPORT int64_t hg_linear_input_bytes(int32_t format, int64_t n_in) {
    return static_cast<int64_t>(hg::input_bytes(static_cast<Format>(format), n_in));
}

// weight [n_out, n_in] float32 -> data, of hg_linear_bytes, aligned to 64 bytes.
HG_EXPORT void hg_linear_pack(int32_t format, int64_t n_out, int64_t n_in, uint8_t* data, const float* weight,
                              int64_t panel_begin, int64_t panel_end) {
    hg::Linear linear = make_linear(format, n_out, n_in, data, nullptr);
    hg::linear_pack(linear, weight, panel_begin, panel_end);
}

// Rows [begin, end) dequantised: out [end - begin, n_in] float32.
HG_EXPORT void hg_linear_rows(int32_t format, int64_t n_out, int64_t n_in, uint8_t* data, int64_t begin, int64_t end,
                              float* out) {
    const hg::Linear linear = make_linear(format, n_out, n_in, data, nullptr);
    for (int64_t row = begin; row < end; ++row) hg::linear_row(linear, row, out + (row - begin) * n_in);
}

// x [n_rows, n_in] float32 -> inputs, n_rows times hg_linear_input_bytes, aligned to 64 bytes.
HG_EXPORT void hg_linear_prepare(int32_t format, const float* x, int64_t n_rows, int64_t n_in, uint8_t* inputs) {
    const size_t stride = hg::input_bytes(static_cast<Format>(format), n_in);
    for (int64_t m = 0; m < n_rows; ++m) {
        hg::input_prepare(static_cast<Format>(format), x + m * n_in, n_in, inputs + static_cast<size_t>(m) * stride);
    }
}

// y [n_rows, y_stride] float32; bias [n_out] or null; see hg::linear_run.
HG_EXPORT void hg_linear_run(int32_t format, int64_t n_out, int64_t n_in, uint8_t* data, const float* bias,
                             const uint8_t* inputs, int64_t n_rows, int64_t panel_begin, int64_t panel_end, float* y,
                             int64_t y_stride, int32_t epilogue) {
    const hg::Linear linear = make_linear(format, n_out, n_in, data, bias);
    hg::linear_run(linear, inputs, n_rows, panel_begin, panel_end, y, y_stride, static_cast<Epilogue>(epilogue));
}
