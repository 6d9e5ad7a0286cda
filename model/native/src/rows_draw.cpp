// A draw needs the weights of all tokens summed, but in order only those around the point where it falls. So the few tokens
// near the maximum go into a heap, and the walk down from the largest mostly ends among them. Where it doesn't, tokens
// are counted into buckets by their distance to the maximum, the bucket with the point is found from the buckets' sums,
// and only its tokens are put in order.

#include <cmath>

#include "rows.h"
#include "rows_rank.h"

namespace hg {

namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();
constexpr int64_t kTopMost = 1024;   // a larger top_k goes through buckets
constexpr size_t kNearMost = 8192;   // so many candidates go into the heap
constexpr float kNear = 8.0f;        // candidates: down to e^-8 of the likeliest
constexpr float kDeepest = -64.0f;   // less than e^-64 of the likeliest moves no float64 sum
constexpr int kBuckets = 2048;

bool ranks_after(const Ranked& a, const Ranked& b) { return ranks_before(b, a); }

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
        if (top_k > 0 && top_k <= kTopMost) return settle_top(top_k);
        survey();
        if (top_k > 0) {
            fill_buckets();
            total_ = weight_of_first(top_k);
        } else {
            if (near_.size() < kNearMost) {
                const Found found = settle([this](double target) { return locate_near(target); });
                if (found.id != kBeyond) return found.id;
            }
            fill_buckets();
        }
        return settle([this](double target) { return locate_bucket(target); }).id;
    }

  private:
    static constexpr int32_t kBeyond = -2;  // further down than the candidates at hand

    double weight(float scaled) const { return exp_f64(double(scaled - max_)); }
    double margin() const { return margin_ * total_; }

    // The draw, given a way to find the token at which the weights pass a number.
    template <typename Locate>
    Found settle(Locate locate) const {
        if (!(total_ > 0.0 && total_ < double(-kLowest))) return {};
        double sum = total_;
        if (top_p_ < 1.0) {
            const Found last = locate(top_p_ * total_);
            if (last.id < 0) return last;
            sum = last.cumulative;
        }
        return locate(ask_.uniform * sum);
    }

    // Takes tokens off a heap until the weights pass `target`; undecided where rounding could move that.
    Found walk(std::vector<Ranked>& heap, double before, double target) const {
        if (before > 0.0 && before > target - margin()) return {};
        std::make_heap(heap.begin(), heap.end(), ranks_after);
        double cumulative = before;
        for (auto end = heap.end(); end != heap.begin(); --end) {
            const Ranked token = heap.front();
            std::pop_heap(heap.begin(), end, ranks_after);
            cumulative += weight(token.value);
            if (cumulative > target + margin()) return {token.id, cumulative};
            if (cumulative > target - margin()) return {};
        }
        return {};
    }

    // A small top_k: only its tokens, in order.
    int32_t settle_top(int64_t top_k) {
        rank_top(row_, n_, top_k, temperature_, near_);
        total_ = 0.0;
        size_t kept = 0;
        for (; kept < near_.size() && near_[kept].value - max_ >= floor_; ++kept) total_ += weight(near_[kept].value);
        near_.resize(kept);
        return settle([this](double target) {
            near_copy_ = near_;
            return walk(near_copy_, 0.0, target);
        }).id;
    }

    Found locate_near(double target) {
        if (target > near_total_ - margin()) return {kBeyond, 0.0};
        near_copy_ = near_;
        return walk(near_copy_, 0.0, target);
    }

    // d[i] = logits / temperature - max, in float32 as the reference has it, of a piece of the row.
    void distances(int64_t begin, int64_t size, float* d) const {
        const float* x = row_ + begin;
        if (temperature_ == 1.0f) {
            for (int64_t i = 0; i < size; ++i) d[i] = x[i] - max_;
        } else {
            for (int64_t i = 0; i < size; ++i) d[i] = x[i] / temperature_ - max_;
        }
    }

    // What min_p cuts weighs nothing.
    void cut(float* d, int64_t size) const {
        for (int64_t i = 0; i < size; ++i) d[i] = d[i] < floor_ ? kLowest : d[i];
    }

    // One pass: the sum of the weights that min_p leaves, the tokens near the maximum, how far down the others go.
    void survey() {
        alignas(64) float d[kPiece];
        alignas(64) double w[kPiece];
        near_.clear();
        total_ = near_total_ = 0.0;
        Vec deepest = vec_zero();
        for (int64_t begin = 0; begin < n_; begin += kPiece) {
            const int64_t size = std::min(kPiece, n_ - begin);
            std::fill_n(d, kPiece, 0.0f);
            distances(begin, size, d);
            for (int64_t i = 0; i < size; i += kLanes) deepest = vec_min(deepest, vec_load(d + i));
            cut(d, size);
            total_ += exp_piece(d, size, w);
            if (near_.size() >= kNearMost) continue;  // too many to be of use
            each_above(d, size, [] { return -kNear; }, [&](int64_t i) {
                near_.push_back({row_[begin + i] / temperature_, static_cast<int32_t>(begin + i)});
                near_total_ += w[i];
            });
        }
        alignas(64) float lanes[kLanes];
        vec_store(lanes, deepest);
        deepest_ = std::max(floor_, *std::min_element(lanes, lanes + kLanes));
    }

    // Buckets of equal width in distance, and which of them each token is in; kBuckets: in none.
    void fill_buckets() {
        const float per_unit = deepest_ < 0.0f ? float(kBuckets - 1) / -deepest_ : 1.0f;
        std::fill_n(weights_, kBuckets + 1, 0.0);
        std::fill_n(counts_, kBuckets + 1, 0);
        places_.resize(size_t(n_));
        alignas(64) float d[kPiece];
        alignas(64) double w[kPiece];
        alignas(64) int32_t at[kPiece];
        for (int64_t begin = 0; begin < n_; begin += kPiece) {
            const int64_t size = std::min(kPiece, n_ - begin);
            distances(begin, size, d);
            cut(d, size);
            exp_piece(d, size, w);
            for (int64_t i = 0; i < size; ++i) {  // never falls with the distance: buckets are in order
                const float place = -d[i] * per_unit;
                at[i] = static_cast<int32_t>(place < float(kBuckets - 1) ? place : float(kBuckets - 1));
                at[i] = d[i] < floor_ ? kBuckets : at[i];
            }
            for (int64_t i = 0; i < size; ++i) {
                places_[begin + i] = static_cast<uint16_t>(at[i]);
                weights_[at[i]] += w[i];
                ++counts_[at[i]];
            }
        }
    }

    void collect(int at, std::vector<Ranked>& out) const {
        out.clear();
        for (int64_t i = 0; i < n_; ++i) {
            if (places_[i] == at) out.push_back({row_[i] / temperature_, static_cast<int32_t>(i)});
        }
    }

    double weight_of_first(int64_t k) {
        double sum = 0.0;
        int at = 0;
        for (; at < kBuckets && counts_[at] <= k; ++at) {
            sum += weights_[at];
            k -= counts_[at];
        }
        if (at == kBuckets || k == 0) return sum;
        collect(at, near_);
        std::nth_element(near_.begin(), near_.begin() + k, near_.end(), ranks_before);
        for (int64_t i = 0; i < k; ++i) sum += weight(near_[i].value);
        return sum;
    }

    Found locate_bucket(double target) {
        double before = 0.0;
        int at = 0;
        while (at < kBuckets && before + weights_[at] < target) before += weights_[at++];
        if (at == kBuckets) return {};
        collect(at, near_copy_);
        return walk(near_copy_, before, target);
    }

    const float* row_;
    int64_t n_;
    const RowDraw& ask_;
    float temperature_, max_, floor_;
    double top_p_, margin_;
    double total_ = 0.0, near_total_ = 0.0;  // of the weights before top_p cuts; of near_
    float deepest_ = 0.0f;
    double weights_[kBuckets + 1];
    int64_t counts_[kBuckets + 1];
    // Their memory is kept from draw to draw.
    static thread_local std::vector<Ranked> near_, near_copy_;
    static thread_local std::vector<uint16_t> places_;
};

thread_local std::vector<Ranked> Draw::near_, Draw::near_copy_;
thread_local std::vector<uint16_t> Draw::places_;

}  // namespace

int32_t row_draw(const float* row, int64_t n, const RowDraw& ask) {
    const RowScan scan = row_scan(row, n, false);
    return scan.state == kRowBroken ? kUndecided : Draw(row, n, scan.max, ask).token();
}

}  // namespace hg
