#include "forward.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "layers.h"
#include "mathf.h"

namespace hg {
namespace {

constexpr int64_t kQueryBlock = 64;     // queries of a unit of attention
constexpr int64_t kAloneCost = 8192;    // elements that one thread normalises sooner than it shares them out
constexpr int64_t kUnitCost = 1 << 16;  // multiply-adds of a chunk of attention, about 5 microseconds
constexpr int64_t kChunkBytes = 48 << 10;  // of weights in a chunk of a product with few rows: about 3 microseconds
constexpr int64_t kBusyRows = 20;          // so many rows take as long to compute as their weights take to read
constexpr int64_t kSplitRows = 96;         // fewer rows in a chunk would use the weights they fetch too little

size_t round_up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

void require(bool right, const char* what, int64_t value) {
    if (!right) throw BadArgument(std::string(what) + std::to_string(value));
}

}  // namespace

template <typename Row>
void Forward::each_row(int64_t n, int64_t elements, Row row) {
    if (n == 1 || n * elements <= kAloneCost) {
        for (int64_t r = 0; r < n; ++r) row(r);
        return;
    }
    const int64_t grain = std::max<int64_t>(1, kAloneCost / 2 / elements);
    model_.pool.run_pieces(n, grain, [&](int64_t begin, int64_t end, int) {
        for (int64_t r = begin; r < end; ++r) row(r);
    });
}

template <typename InputsOf>
void Forward::prepare(const Linear& linear, InputsOf inputs_of) {
    const size_t row_bytes = input_bytes(linear.format, linear.n_in);
    each_row(count(), linear.n_in, [&](int64_t r) {
        input_prepare(linear.format, inputs_of(r), linear.n_in, prepared_.data() + static_cast<size_t>(r) * row_bytes);
    });
}

void Forward::hidden_states(const Segment* segments, int64_t n_segments, const int32_t* tokens, int64_t n_tokens,
                            float* hidden) {
    check(segments, n_segments, tokens, n_tokens);
    lay_out(segments, n_segments);
    plan_layers();
    reserve();
    embed(tokens);
    const int32_t n_layer = model_.shape.n_layer;
    for (int32_t layer = 0; layer < n_layer; ++layer) {
        attention(layer);
        if (layer + 1 == n_layer && outputs_.source.empty()) return;  // keys and values are stored: all that was wanted
        feed_forward(layer);
    }
    const int64_t width = model_.shape.d_model;
    const std::vector<float>&gain = model_.vector(Vector::final_gain), &bias = model_.vector(Vector::final_bias);
    each_row(count(), width, [&](int64_t r) {
        norm_row(x_.floats() + r * width, width, gain.data(), bias.empty() ? nullptr : bias.data(),
                 model_.shape.norm_eps, hidden + r * width);
    });
}

void Forward::logits(const float* hidden, int64_t n_rows, float* out) {
    const Linear& head = model_.head();
    const size_t row_bytes = input_bytes(head.format, head.n_in);
    prepared_.reserve(static_cast<size_t>(n_rows) * row_bytes);
    each_row(n_rows, head.n_in, [&](int64_t r) {
        input_prepare(head.format, hidden + r * head.n_in, head.n_in, prepared_.data() + static_cast<size_t>(r) * row_bytes);
    });
    linear(head, n_rows, out, head.n_out, Epilogue::store);
}

void Forward::check(const Segment* segments, int64_t n_segments, const int32_t* tokens, int64_t n_tokens) const {
    const Shape& shape = model_.shape;
    std::vector<bool> seen(static_cast<size_t>(shape.n_slots));
    int64_t total = 0;
    for (int64_t i = 0; i < n_segments; ++i) {
        const Segment& s = segments[i];
        require(0 <= s.slot && s.slot < shape.n_slots, "there is no slot ", s.slot);
        require(!seen[static_cast<size_t>(s.slot)], "two segments of slot ", s.slot);
        seen[static_cast<size_t>(s.slot)] = true;
        require(s.n_tokens >= 1 && s.start >= 0 && s.n_tokens <= shape.context && s.start <= shape.context - s.n_tokens,
                "tokens pass the end of slot ", s.slot);
        require(0 <= s.n_outputs && s.n_outputs <= s.n_tokens, "more outputs than tokens in slot ", s.slot);
        require(s.adapter == 0 || model_.adapters.count(s.adapter) == 1, "there is no adapter ", s.adapter);
        total += s.n_tokens;
    }
    require(n_segments >= 1 && total == n_tokens, "the segments have another number of tokens: ", total);
    for (int64_t i = 0; i < n_tokens; ++i) {
        require(0 <= tokens[i] && tokens[i] < shape.vocab_size, "outside the vocabulary: token ", tokens[i]);
    }
}

void Forward::lay_out(const Segment* segments, int64_t n_segments) {
    segments_ = segments;
    n_segments_ = n_segments;
    any_adapter_ = false;
    for (Rows* rows : {&all_, &outputs_}) *rows = Rows{};
    for (int64_t i = 0; i < n_segments; ++i) {
        const Segment& s = segments[i];
        const int64_t first = static_cast<int64_t>(all_.source.size()), skipped = s.n_tokens - s.n_outputs;
        any_adapter_ = any_adapter_ || s.adapter != 0;
        all_.first.push_back(first);
        outputs_.first.push_back(static_cast<int64_t>(outputs_.source.size()) - skipped);
        for (int64_t token = 0; token < s.n_tokens; ++token) {
            all_.source.push_back(first + token);
            all_.segment.push_back(i);
            if (token < skipped) continue;
            outputs_.source.push_back(first + token);
            outputs_.segment.push_back(i);
        }
    }
    rows_ = &all_;
}

// A short segment is one unit per head, which stores its keys and values and then attends. A long one is cut: first all
// is stored, then all attends. In the last layer only queries whose hidden state is wanted attend.
void Forward::plan_layers() {
    for (Plan* plan : {&appends_, &attends_, &last_}) *plan = Plan{};
    for (int64_t i = 0; i < n_segments_; ++i) {
        const Segment& s = segments_[i];
        if (s.n_tokens <= kQueryBlock) {
            add_units(attends_, Unit::both, i, 0, s.n_tokens);
            add_units(last_, Unit::both, i, s.n_tokens - s.n_outputs, s.n_tokens);
            continue;
        }
        for (int64_t begin = 0; begin < s.n_tokens; begin += kQueryBlock) {
            const int64_t end = std::min(begin + kQueryBlock, s.n_tokens);
            add_units(appends_, Unit::append, i, begin, end);
            add_units(attends_, Unit::attend, i, begin, end);
            const int64_t wanted = std::max(begin, s.n_tokens - s.n_outputs);
            if (wanted < end) add_units(last_, Unit::attend, i, wanted, end);
        }
    }
    for (Plan* plan : {&appends_, &attends_, &last_}) {
        // The dearest first: those that are left for the end then take little time, and all threads end together.
        std::stable_sort(plan->units.begin(), plan->units.end(), [](const Unit& a, const Unit& b) { return a.cost > b.cost; });
        int64_t cost = 0;
        for (size_t u = 0; u < plan->units.size(); ++u) {
            cost += plan->units[u].cost;
            if (cost < kUnitCost && u + 1 < plan->units.size()) continue;
            plan->ends.push_back(static_cast<int64_t>(u) + 1);
            cost = 0;
        }
    }
}

void Forward::add_units(Plan& plan, Unit::Kind kind, int64_t segment, int64_t begin, int64_t end) {
    const Shape& shape = model_.shape;
    const Segment& s = segments_[segment];
    int64_t cost = 0;
    if (kind != Unit::attend) cost += 16 * s.n_tokens * shape.head_dim;
    if (kind != Unit::append) cost += attention_cost(model_.cache, shape.n_head / shape.n_kv_head, s.start, begin, end);
    for (int32_t head = 0; head < shape.n_kv_head; ++head) {
        plan.units.push_back(Unit{kind, head, segment, begin, end, cost});
    }
}

void Forward::reserve() {
    const Shape& shape = model_.shape;
    const size_t rows = all_.source.size();
    const auto floats = [&](Buffer& buffer, int64_t width) {
        buffer.reserve(rows * static_cast<size_t>(width) * sizeof(float));
    };
    floats(x_, shape.d_model);
    floats(normed_, shape.d_model);
    floats(qkv_, output_stride(shape.qkv_width()));
    floats(mixed_, shape.query_width());
    floats(up_, output_stride(shape.up_width()));
    size_t widest = 0;
    for (const Linear& linear : model_.blocks[0].linears) widest = std::max(widest, input_bytes(linear.format, linear.n_in));
    prepared_.reserve(rows * widest);
    const size_t per_thread = round_up(attention_scratch(model_.cache), 4096);
    scratch_.reserve(static_cast<size_t>(model_.pool.threads()) * per_thread);
}

void Forward::embed(const int32_t* tokens) {
    const int64_t width = model_.shape.d_model;
    const std::vector<float>& positions = model_.vector(Vector::positions);
    each_row(count(), width, [&](int64_t r) {
        float* x = x_.floats() + r * width;
        linear_row(model_.embedding(), tokens[r], x);
        if (positions.empty()) return;
        const int64_t segment = all_.segment[static_cast<size_t>(r)];
        const int64_t position = segments_[segment].start + r - all_.first[static_cast<size_t>(segment)];
        add_scaled(x, positions.data() + position * width, 1.0f, width);
    });
}

// x + attention(norm(x)); in the last layer only the wanted rows of x stay.
void Forward::attention(int32_t layer) {
    const Shape& shape = model_.shape;
    const Linear* linears = model_.blocks[static_cast<size_t>(layer)].linears;
    const int64_t stride = output_stride(shape.qkv_width()), width = shape.query_width();
    normalise(model_.vector(Vector::attention_gain, layer), model_.vector(Vector::attention_bias, layer));
    linear(linears[0], count(), qkv_.floats(), stride, Epilogue::store);
    lora(layer, Matrix::qkv, normed_.floats(), shape.d_model, qkv_.floats(), stride);
    run_plan(layer, appends_);
    if (layer + 1 == shape.n_layer) keep_outputs();
    run_plan(layer, rows_ == &outputs_ ? last_ : attends_);
    prepare(linears[1], [&](int64_t r) { return mixed_.floats() + r * width; });
    linear(linears[1], count(), x_.floats(), shape.d_model, Epilogue::add);
    lora(layer, Matrix::out, mixed_.floats(), width, x_.floats(), shape.d_model);
}

// x + mlp(norm(x)).
void Forward::feed_forward(int32_t layer) {
    const Shape& shape = model_.shape;
    const Linear* linears = model_.blocks[static_cast<size_t>(layer)].linears;
    const int64_t stride = output_stride(shape.up_width());
    normalise(model_.vector(Vector::mlp_gain, layer), model_.vector(Vector::mlp_bias, layer));
    linear(linears[2], count(), up_.floats(), stride, Epilogue::store);
    lora(layer, Matrix::up, normed_.floats(), shape.d_model, up_.floats(), stride);
    prepare(linears[3], [&](int64_t r) {
        float* up = up_.floats() + r * stride;
        if (shape.architecture == Architecture::llama) silu_mul_array(up, up + shape.d_ff, shape.d_ff, up);
        else gelu_array(up, shape.d_ff, up);
        return up;
    });
    linear(linears[3], count(), x_.floats(), shape.d_model, Epilogue::add);
    lora(layer, Matrix::down, up_.floats(), stride, x_.floats(), shape.d_model);
}

// The norm of every row of x, into normed_ and prepared for the product that follows.
void Forward::normalise(const std::vector<float>& gain, const std::vector<float>& bias) {
    const int64_t width = model_.shape.d_model;
    prepare(model_.blocks[0].linears[0], [&](int64_t r) {  // qkv and up have the same inputs
        float* out = normed_.floats() + r * width;
        norm_row(x_.floats() + r * width, width, gain.data(), bias.empty() ? nullptr : bias.data(), model_.shape.norm_eps, out);
        return out;
    });
}

// From here on the products compute the wanted rows alone. They lie in order, so each moves forward or stays.
void Forward::keep_outputs() {
    const size_t bytes = static_cast<size_t>(model_.shape.d_model) * sizeof(float);
    for (size_t r = 0; r < outputs_.source.size(); ++r) {
        const auto from = static_cast<size_t>(outputs_.source[r]);
        if (from != r) std::memcpy(x_.data() + r * bytes, x_.data() + from * bytes, bytes);
    }
    rows_ = &outputs_;
}

void Forward::run_plan(int32_t layer, const Plan& plan) {
    const size_t per_thread = round_up(attention_scratch(model_.cache), 4096);
    model_.pool.run(static_cast<int64_t>(plan.ends.size()), [&](int64_t chunk, int thread) {
        const int64_t begin = chunk == 0 ? 0 : plan.ends[static_cast<size_t>(chunk) - 1];
        for (int64_t u = begin; u < plan.ends[static_cast<size_t>(chunk)]; ++u) {
            const Unit& unit = plan.units[static_cast<size_t>(u)];
            if (unit.kind != Unit::attend) append(layer, unit);
            if (unit.kind != Unit::append) attend(layer, unit, scratch_.data() + static_cast<size_t>(thread) * per_thread);
        }
    });
}

// Turns the unit's queries and keys by their positions, and stores its keys and values.
void Forward::append(int32_t layer, const Unit& unit) {
    const Shape& shape = model_.shape;
    const Segment& s = segments_[unit.segment];
    const int64_t size = shape.head_dim, group = shape.n_head / shape.n_kv_head, stride = output_stride(shape.qkv_width());
    const int64_t begin = unit.kind == Unit::both ? 0 : unit.begin, end = unit.kind == Unit::both ? s.n_tokens : unit.end;
    for (int64_t token = begin; token < end; ++token) {
        float* row = qkv_.floats() + (all_.first[static_cast<size_t>(unit.segment)] + token) * stride;
        float* query = row + unit.kv_head * group * size;
        float* key = row + shape.query_width() + unit.kv_head * size;
        const int64_t position = s.start + token;
        if (shape.architecture == Architecture::llama) {
            const float* cos = model_.vector(Vector::cosines).data() + position * (size / 2);
            const float* sin = model_.vector(Vector::sines).data() + position * (size / 2);
            for (int64_t head = 0; head < group; ++head) rope_row(query + head * size, size, cos, sin);
            rope_row(key, size, cos, sin);
        }
        cache_append_head(model_.cache, layer, s.slot, unit.kv_head, position, key, key + shape.kv_width());
    }
}

void Forward::attend(int32_t layer, const Unit& unit, uint8_t* scratch) {
    if (unit.begin == unit.end) return;
    const Shape& shape = model_.shape;
    const Segment& s = segments_[unit.segment];
    const auto segment = static_cast<size_t>(unit.segment);
    const int group = shape.n_head / shape.n_kv_head;
    const int64_t column = int64_t{unit.kv_head} * group * shape.head_dim, stride = output_stride(shape.qkv_width());
    // The kept rows of a segment are its last ones, so where its token 0 would lie may be before the buffer's begin.
    const float* q = qkv_.floats() + all_.first[segment] * stride + column;
    float* out = mixed_.floats() + rows_->first[segment] * shape.query_width() + column;
    attention_run(model_.cache, layer, s.slot, unit.kv_head, group, s.start, unit.begin, unit.end, q, stride, out,
                  shape.query_width(), scratch);
}

// Chunks of panels; of rows too where there are many and the panels alone don't give every thread several chunks.
void Forward::linear(const Linear& linear, int64_t n_rows, float* y, int64_t stride, Epilogue epilogue) {
    const int64_t panel_bytes = static_cast<int64_t>(linear_bytes(linear.format, kPanel, linear.n_in));
    const int64_t cost = panel_bytes + panel_bytes * n_rows / kBusyRows;
    const int64_t panels = std::max<int64_t>(1, kChunkBytes / cost), n_chunks = (linear.n_panels + panels - 1) / panels;
    const int64_t wanted = 8 * model_.pool.threads();
    const int64_t pieces = std::clamp<int64_t>(wanted / n_chunks, 1, std::max<int64_t>(1, n_rows / kSplitRows));
    const auto row_bytes = static_cast<int64_t>(input_bytes(linear.format, linear.n_in));
    model_.pool.run(n_chunks * pieces, [&](int64_t chunk, int) {
        const int64_t piece = chunk / n_chunks, first = n_rows * piece / pieces, last = n_rows * (piece + 1) / pieces;
        const int64_t begin = chunk % n_chunks * panels, end = std::min(begin + panels, linear.n_panels);
        linear_run(linear, prepared_.data() + first * row_bytes, last - first, begin, end, y + first * stride, stride, epilogue);
    });
}

// Adds the adapters of the rows that have one to a product's output: x its inputs, y its outputs.
void Forward::lora(int32_t layer, Matrix which, const float* x, int64_t x_stride, float* y, int64_t y_stride) {
    if (!any_adapter_) return;
    model_.pool.run(count(), [&](int64_t r, int) {
        const int32_t adapter = segments_[rows_->segment[static_cast<size_t>(r)]].adapter;
        if (adapter == 0) return;
        lora_row(model_.adapters.at(adapter).pairs(layer, static_cast<int>(which)), x + r * x_stride, y + r * y_stride);
    });
}

}  // namespace hg
