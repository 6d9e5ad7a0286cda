// One step: the new tokens of any number of slots through the whole model at once, so that the weights are read once.
#pragma once

#include <cstdint>
#include <vector>

#include "attention.h"
#include "model.h"

namespace hg {

// The next tokens of one slot: model.backend.Segment.
struct Segment {
    int32_t slot, adapter;  // adapter 0: the base model
    int64_t start, n_tokens, n_outputs;
};

// Computes steps; its buffers grow to the largest and stay. For one thread at a time.
class Forward {
  public:
    explicit Forward(Model& model) : model_(model) {}

    // Appends the segments' tokens (end to end) to their slots; hidden [sum of n_outputs, d_model] gets the final norm's
    // output of the last n_outputs tokens of each. Throws BadArgument before anything is touched, std::bad_alloc.
    void hidden_states(const Segment* segments, int64_t n_segments, const int32_t* tokens, int64_t n_tokens, float* hidden);

    // hidden [n_rows, d_model] -> out [n_rows, vocab_size].
    void logits(const float* hidden, int64_t n_rows, float* out);

  private:
    // A piece of attention's work: tokens [begin, end) of a segment, for one key/value head and its queries.
    struct Unit {
        enum Kind { append, attend, both };
        Kind kind;
        int32_t kv_head;
        int64_t segment, begin, end, cost;  // cost: multiply-adds, about
    };
    // Units shared out in chunks, the dearest first: chunk i has units [ends[i - 1], ends[i]).
    struct Plan {
        std::vector<Unit> units;
        std::vector<int64_t> ends;
    };
    // Rows that the products compute. In the last layer they are those alone whose hidden states are wanted.
    struct Rows {
        std::vector<int64_t> source;   // row of the step that each is
        std::vector<int64_t> segment;  // segment that each belongs to
        std::vector<int64_t> first;    // per segment: where its tokens' rows would begin, token 0 first
    };

    void check(const Segment* segments, int64_t n_segments, const int32_t* tokens, int64_t n_tokens) const;
    void lay_out(const Segment* segments, int64_t n_segments);
    void plan_layers();
    void add_units(Plan& plan, Unit::Kind kind, int64_t segment, int64_t begin, int64_t end);
    void reserve();
    void embed(const int32_t* tokens);
    void attention(int32_t layer);
    void feed_forward(int32_t layer);
    void run_plan(int32_t layer, const Plan& plan);
    void append(int32_t layer, const Unit& unit);
    void attend(int32_t layer, const Unit& unit, uint8_t* scratch);
    void keep_outputs();
    void normalise(const std::vector<float>& gain, const std::vector<float>& bias);
    void linear(const Linear& linear, int64_t n_rows, float* y, int64_t stride, Epilogue epilogue);
    void lora(int32_t layer, Matrix which, const float* x, int64_t x_stride, float* y, int64_t y_stride);

    // Calls row(r) for each of [0, n), `elements` numbers long: on this thread alone when that is soon done.
    template <typename Row>
    void each_row(int64_t n, int64_t elements, Row row);

    // Prepares every row's inputs of `linear`: inputs_of(r) computes row r and says where it lies.
    template <typename InputsOf>
    void prepare(const Linear& linear, InputsOf inputs_of);

    int64_t count() const { return static_cast<int64_t>(rows_->source.size()); }

    Model& model_;
    const Segment* segments_ = nullptr;
    int64_t n_segments_ = 0;
    bool any_adapter_ = false;
    Rows all_, outputs_;
    const Rows* rows_ = nullptr;  // those that the products compute now
    Plan appends_, attends_, last_;
    Buffer x_, normed_, qkv_, mixed_, up_, prepared_, scratch_;
};

}  // namespace hg
