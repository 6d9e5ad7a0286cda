// y = x W^T + bias over packed weights, in four formats.
//
// One contract holds for all of them: y[m][n] depends on row m of x and row n of W alone, bit for bit: never on how many
// rows come along, on the range of panels or on the thread. Floats are summed in the order of the inputs, one sum per
// output; the integer formats sum exactly and turn to float once per output.
//
//   f32    float32 weights, float32 inputs
//   bf16   bfloat16 weights, inputs rounded to bfloat16, sums in float32
//   int8   8-bit weights with a scale per output; 8-bit inputs with a scale per row, the row's outliers in two parts
//   int4   4-bit weights, each 32 inputs of an output with a factor and an offset of 8 bits (4.5 bits a weight); inputs as
//          for int8
//
// The mix for 4-bit models: every matrix of the blocks in int4, the head, which is also the embedding, in int8. With the head in
// 4 bits too, a small model's distribution moved nearly twice as far (0.056 nats against 0.032, with an earlier, symmetric
// 4-bit format). Of the blocks' matrices the joint query, key and value projection weighs most.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hg {

enum class Format : int32_t { f32 = 0, bf16 = 1, int8 = 2, int4 = 3 };

// A weight [n_out, n_in], packed in panels of kPanel outputs: one allocation of linear_bytes, aligned to 64 bytes, that
// the caller owns. The last panel is filled up with zeros.
struct Linear {
    Format format;
    int64_t n_out, n_in, n_panels;
    uint8_t* data;
    const float* bias;  // [n_out], or null
};

constexpr int64_t kPanel = 32;           // outputs per panel
constexpr int64_t kMaxInputs = 1 << 16;  // more could overflow the integer sums

inline int64_t linear_panels(int64_t n_out) { return (n_out + kPanel - 1) / kPanel; }
size_t linear_bytes(Format, int64_t n_out, int64_t n_in);

// Packs panels [panel_begin, panel_end) of weight [n_out, n_in], row-major. Panels are independent: call it from many
// threads at once. `weight` points at row 0 of the matrix, but only the rows of those panels are read.
void linear_pack(Linear&, const float* weight, int64_t panel_begin, int64_t panel_end);

// Row `row` as the product sees it (quantised and back): out [n_in]. The token embedding of a tied head.
void linear_row(const Linear&, int64_t row, float* out);

// Inputs are prepared once per row and used for every product over them. A prepared row takes input_bytes (a multiple
// of 64); rows lie one behind the other, the first aligned to 64 bytes. int4 takes int8's rows.
size_t input_bytes(Format, int64_t n_in);
void input_prepare(Format, const float* x, int64_t n_in, uint8_t* out);

enum class Epilogue : int32_t { store = 0 /* y = x W^T + bias */, add = 1 /* y += x W^T + bias */ };

// A good y_stride for n columns: whole cache lines, an odd number of them, so that tiles neither share lines nor crowd the
// same sets of the L1 cache. Any other stride works too, up to a quarter slower at hundreds of rows.
inline int64_t output_stride(int64_t n) { return ((n + 15) / 16 | 1) * 16; }

// y [n_rows, y_stride floats], columns [panel_begin * kPanel, min(panel_end * kPanel, n_out)) are written.
void linear_run(const Linear&, const uint8_t* inputs, int64_t n_rows, int64_t panel_begin, int64_t panel_end, float* y,
                int64_t y_stride, Epilogue);

}  // namespace hg
