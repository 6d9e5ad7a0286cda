// A draw needs the weights of all tokens summed, but in order only those around the point where it falls. So tokens are put
// into buckets by their distance to the maximum, the bucket with the point is found from the buckets' sums, and only its
// tokens are put in order. First only the tokens near the maximum are listed for that, which are few and mostly enough;
// then, where the draw falls further down, all.

#include <cmath>

#include "rows.h"
#include "rows_rank.h"

namespace hg {

namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();
constexpr int64_t kTopMost = 256;   // a larger top_k is counted off a list, which then takes less time
constexpr size_t kNearMost = 8192;  // so many tokens near the maximum are listed
constexpr float kNear = -8.0f;      // nearer is near
constexpr float kDeepest = -64.0f;  // less than e^-64 of the likeliest moves no float64 sum
constexpr int kBuckets = 2048;

// The smallest distance to the maximum that min_p leaves, as a float: kept is what is not below. NaN when rounding could
// move it.
float min_p_floor(double min_p) {
    const double least = static_cast<float>(min_p);
    if (least >= 1.0) return 0.0f;
    if (least <= 0.0) return kLowest;
    float floor = static_cast<float>(std::log(least));
    while (exp_f64(floor) < least) floor = std::nextafter(floor, 1.0f);
    while (exp_f64(std::nextafter(floor, kLowest)) >= least) floor = std::nextafter(floor, kLowest);
    const double kept = exp_f64(floor), cut = exp_f64(std::nextafter(floor, kLowest));
    const bool clear = kept > least * (1.0 + 1e-14) && cut < least * (1.0 - 1e-14);
    return clear ? floor : std::numeric_limits<float>::quiet_NaN();
}

struct Found {
    int32_t id = kUndecided;
    double cumulative = 0.0;  // weights up to and with this token
};

// The tokens that a draw looks at. Their memory is kept from draw to draw.
struct List {
    size_t size = 0;
    bool in_buckets = false;
    std::vector<float> distances;  // to the maximum, below 0
    std::vector<int32_t> ids;
    std::vector<double> weights;
    std::vector<int32_t> places;  // bucket of each
    std::vector<Ranked> ordered;  // one bucket's

    void clear(size_t room) {
        size = 0;
        in_buckets = false;
        if (ids.size() >= room) return;
        distances.resize(room);
        ids.resize(room);
        weights.resize(room);
        places.resize(room);
    }
    void add(float distance, int32_t id, double weight) {
        distances[size] = distance;
        ids[size] = id;
        weights[size++] = weight;
    }
};

thread_local List kept_list;

class Draw {
  public:
    Draw(const float* row, int64_t n, float max, const RowDraw& ask)
        : row_(row), n_(n), ask_(ask), temperature_(static_cast<float>(std::max(ask.temperature, 1e-6))) {
        max_ = max / temperature_;
        floor_ = min_p_floor(ask.min_p);
        top_p_ = double(static_cast<float>(ask.top_p));
        // An error of this share of the total: n roundings of a sum in the reference and here, and two exponentials.
        margin_ = 4.5e-16 * double(n) + 2e-14;
    }

    int32_t token() {
        if (floor_ != floor_) return kUndecided;
        floor_ = std::max(floor_, kDeepest);
        const int64_t top_k = ask_.top_k > 0 && ask_.top_k < n_ ? ask_.top_k : 0;
        const float bound = std::nextafter(floor_, kLowest);  // the last that min_p cuts
        const auto all = static_cast<size_t>(n_);
        if (top_k > 0) {
            if (top_k <= kTopMost) {
                list_top(top_k);
            } else {
                list_above(std::max(kNear, bound), all);
                if (list_.size < size_t(top_k)) list_above(bound, all);
                total_ = weight_of_first(top_k);
            }
            return settle().id;
        }
        list_above(std::max(kNear, bound), kNearMost);
        Found found = settle();
        if (found.id == kBeyond) {
            list_above(bound, all);
            found = settle();
        }
        return std::max(found.id, kUndecided);
    }

  private:
    static constexpr int32_t kBeyond = -2;  // further down than the list goes

    double weight(float scaled) const { return exp_f64(double(scaled - max_)); }
    double margin() const { return margin_ * total_; }

    Found settle() {
        if (!(total_ > 0.0 && total_ < double(-kLowest))) return {};
        double sum = total_;
        if (top_p_ < 1.0) {
            const Found last = locate(top_p_ * total_);
            if (last.id < 0) return last;
            sum = last.cumulative;
        }
        return locate(ask_.uniform * sum);
    }

    void list_top(int64_t top_k) {
        std::vector<Ranked>& top = list_.ordered;
        rank_top(row_, n_, top_k, temperature_, top);
        list_.clear(top.size());
        listed_ = 0.0;
        for (const Ranked& token : top) {
            const float distance = token.value - max_;
            if (distance < floor_) break;
            const double weight = exp_f64(double(distance));
            list_.add(distance, token.id, weight);
            listed_ += weight;
        }
        total_ = listed_;
    }

    // In one pass the sum of all weights that min_p leaves, and the tokens over `bound`; of these `most`, no more.
    void list_above(float bound, size_t most) {
        alignas(64) float d[kPiece];
        alignas(64) double w[kPiece];
        list_.clear(size_t(n_));
        float* distance = list_.distances.data();
        int32_t* id = list_.ids.data();
        double* weight = list_.weights.data();
        size_t listed = 0;
        total_ = 0.0;
        for (int64_t begin = 0; begin < n_; begin += kPiece) {
            const int64_t size = std::min(kPiece, n_ - begin);
            distances(begin, size, d);
            total_ += exp_piece(d, size, w);
            if (listed >= most) continue;
            each_above(d, size, [bound] { return bound; }, [&](int64_t i) {
                distance[listed] = d[i];
                id[listed] = static_cast<int32_t>(begin + i);
                weight[listed++] = w[i];
            });
        }
        list_.size = listed;
        // With some missing the list is of no use.
        listed_ = most < size_t(n_) && listed >= most ? 0.0 : sum_weights(weight, int64_t(listed));
    }

    // d[i] = logits / temperature - max, in float32 as the reference has it, of a piece of the row; -inf what min_p cuts.
    void distances(int64_t begin, int64_t size, float* d) const {
        const float* x = row_ + begin;
        if (temperature_ == 1.0f) {
            for (int64_t i = 0; i < size; ++i) d[i] = x[i] - max_;
        } else {
            for (int64_t i = 0; i < size; ++i) d[i] = x[i] / temperature_ - max_;
        }
        for (int64_t i = 0; i < size; ++i) d[i] = d[i] < floor_ ? kLowest : d[i];
    }

    // Buckets of equal width in distance, in order: a token's number never falls with its distance.
    void sort_into_buckets() {
        const float* distances = list_.distances.data();
        int32_t* places = list_.places.data();
        const size_t n = list_.size;
        const float deepest = n > 0 ? *std::min_element(distances, distances + n) : 0.0f;
        const float per_unit = deepest < 0.0f ? float(kBuckets - 1) / -deepest : 1.0f, last = kBuckets - 1;
        for (size_t i = 0; i < n; ++i) {
            const float place = -distances[i] * per_unit;
            places[i] = static_cast<int32_t>(place < last ? place : last);
        }
        std::fill_n(weights_, kBuckets, 0.0);
        std::fill_n(counts_, kBuckets, 0);
        for (size_t i = 0; i < n; ++i) {
            weights_[places[i]] += list_.weights[i];
            ++counts_[places[i]];
        }
        list_.in_buckets = true;
    }

    std::vector<Ranked>& bucket(int at) const {
        std::vector<Ranked>& out = list_.ordered;
        const int32_t* places = list_.places.data();
        out.clear();
        for (size_t i = 0; i < list_.size; ++i) {
            if (places[i] != at) continue;
            const int32_t id = list_.ids[i];
            out.push_back({row_[id] / temperature_, id});
        }
        return out;
    }

    double weight_of_first(int64_t k) {
        sort_into_buckets();
        double sum = 0.0;
        int at = 0;
        for (; at < kBuckets && counts_[at] <= k; ++at) {
            sum += weights_[at];
            k -= counts_[at];
        }
        if (at == kBuckets || k == 0) return sum;
        std::vector<Ranked>& tokens = bucket(at);
        std::nth_element(tokens.begin(), tokens.begin() + k, tokens.end(), ranks_before);
        for (int64_t i = 0; i < k; ++i) sum += weight(tokens[i].value);
        return sum;
    }

    // The token at which the weights pass `target`; undecided where rounding could move that.
    Found locate(double target) {
        if (target > listed_ - margin() && listed_ < total_ - margin()) return {kBeyond, 0.0};
        if (!list_.in_buckets) sort_into_buckets();
        double cumulative = 0.0;
        int at = 0;
        while (at < kBuckets && cumulative + weights_[at] < target) cumulative += weights_[at++];
        if (at == kBuckets || (cumulative > 0.0 && cumulative > target - margin())) return {};
        std::vector<Ranked>& tokens = bucket(at);
        std::sort(tokens.begin(), tokens.end(), ranks_before);
        for (const Ranked& token : tokens) {
            cumulative += weight(token.value);
            if (cumulative > target + margin()) return {token.id, cumulative};
            if (cumulative > target - margin()) return {};
        }
        return {};
    }

    const float* row_;
    int64_t n_;
    const RowDraw& ask_;
    float temperature_, max_, floor_;
    double top_p_, margin_;
    double total_ = 0.0;   // weights of what min_p and top_k leave
    double listed_ = 0.0;  // weights of the tokens listed
    double weights_[kBuckets];
    int64_t counts_[kBuckets];
    List& list_ = kept_list;
};

}  // namespace

int32_t row_draw(const float* row, int64_t n, const RowDraw& ask) {
    const RowScan scan = row_scan(row, n, false);
    return scan.state == kRowBroken ? kUndecided : Draw(row, n, scan.max, ask).token();
}

}  // namespace hg
