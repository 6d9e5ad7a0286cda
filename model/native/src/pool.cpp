#include "pool.h"

#include <algorithm>
#include <chrono>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace hg {
namespace {

// A share's word: region number (24 bits) | first chunk (20 bits) | end (20 bits).
constexpr int kCountBits = 20;
constexpr uint64_t kCountMask = (uint64_t{1} << kCountBits) - 1;
constexpr uint64_t kRegionMask = (uint64_t{1} << (64 - 2 * kCountBits)) - 1;
constexpr int64_t kMaxChunks = static_cast<int64_t>(kCountMask);

// How long an idle thread looks for work before it sleeps. Regions of one step follow each other within a few
// microseconds, and to wake a sleeper takes 30 to 60: so spin through the gaps within a step, and leave the core to
// others between steps, while tokens are sampled and sent.
constexpr auto kSpin = std::chrono::microseconds(60);
constexpr int kPausesPerLook = 32;  // between two looks at the clock, which costs some 20 ns

uint64_t pack(uint64_t region, int64_t begin, int64_t end) {
    return (region & kRegionMask) << (2 * kCountBits) | static_cast<uint64_t>(begin) << kCountBits | static_cast<uint64_t>(end);
}
uint64_t begin_of(uint64_t state) { return (state >> kCountBits) & kCountMask; }
uint64_t end_of(uint64_t state) { return state & kCountMask; }

void relax() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Spins until done() or the time is up; whether it was done.
template <typename Done>
bool spin(Done done) {
    const auto end = std::chrono::steady_clock::now() + kSpin;
    do {
        for (int i = 0; i < kPausesPerLook; ++i) {
            if (done()) return true;
            relax();
        }
    } while (std::chrono::steady_clock::now() < end);
    return false;
}

}  // namespace

Pool::Pool(int threads) : shares_(static_cast<size_t>(std::max(threads, 1))) {
    workers_.reserve(static_cast<size_t>(std::max(threads - 1, 0)));
    try {
        for (int thread = 1; thread < threads; ++thread) workers_.emplace_back([this, thread] { work(thread); });
    } catch (...) {
        close();
        throw;
    }
}

Pool::~Pool() { close(); }

void Pool::close() {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        closing_.store(true);
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
}

void Pool::run_shared(int64_t n_chunks, Call call, void* context) {
    call_ = call;
    context_ = context;
    for (int64_t first = 0; first < n_chunks; first += kMaxChunks) {
        run_region(std::min(n_chunks - first, kMaxChunks), first);
    }
    if (failure_ != nullptr) std::rethrow_exception(std::exchange(failure_, nullptr));
}

void Pool::run_region(int64_t n_chunks, int64_t first) {
    first_ = first;
    done_.store(0, std::memory_order_relaxed);
    const uint64_t region = region_.load(std::memory_order_relaxed) + 1;
    const int64_t n_threads = threads();
    for (int64_t t = 0; t < n_threads; ++t) {
        shares_[static_cast<size_t>(t)].state.store(pack(region, n_chunks * t / n_threads, n_chunks * (t + 1) / n_threads),
                                                    std::memory_order_release);
    }
    region_.store(region);
    if (sleepers_.load() > 0) {  // in one order with the store above and a sleeper's last look: none is missed
        { const std::lock_guard<std::mutex> lock(mutex_); }
        wake_.notify_all();
    }
    take(0);
    const auto all_done = [&] { return done_.load(std::memory_order_acquire) == n_chunks; };
    // A thread that holds the last chunk may have lost its core: after a while give it ours.
    while (!spin(all_done)) std::this_thread::yield();
}

// Takes chunks until none is left: its own from the first on, as they lie in memory, then others' from the last.
void Pool::take(int thread) {
    const int n_threads = threads();
    int64_t done = 0;
    while (take_from(shares_[static_cast<size_t>(thread)], true, thread)) ++done;
    for (int other = 1; other < n_threads; ++other) {
        Share& share = shares_[static_cast<size_t>((thread + other) % n_threads)];
        while (take_from(share, false, thread)) ++done;
    }
    if (done > 0) done_.fetch_add(done, std::memory_order_release);
}

bool Pool::take_from(Share& share, bool own, int thread) {
    uint64_t state = share.state.load(std::memory_order_acquire);
    for (;;) {
        if (begin_of(state) >= end_of(state)) return false;
        const uint64_t left = own ? state + (uint64_t{1} << kCountBits) : state - 1;
        if (share.state.compare_exchange_weak(state, left, std::memory_order_acq_rel, std::memory_order_acquire)) break;
    }
    const uint64_t chunk = own ? begin_of(state) : end_of(state) - 1;
    try {
        call_(context_, first_ + static_cast<int64_t>(chunk), thread);
    } catch (...) {  // a chunk that failed is done too: the caller waits for all, and tells
        keep_failure();
    }
    return true;
}

void Pool::keep_failure() {
    const std::lock_guard<std::mutex> lock(failure_mutex_);
    if (failure_ == nullptr) failure_ = std::current_exception();
}

void Pool::work(int thread) {
    uint64_t seen = 0;
    for (;;) {
        seen = wait_while(seen);
        if (closing_.load(std::memory_order_relaxed)) return;
        take(thread);
    }
}

// Waits while `seen` is the present region, and says which it is then; spins, then sleeps.
uint64_t Pool::wait_while(uint64_t seen) {
    const auto changed = [&] { return region_.load() != seen || closing_.load(); };
    if (!spin(changed)) {
        std::unique_lock<std::mutex> lock(mutex_);
        sleepers_.fetch_add(1);
        wake_.wait(lock, changed);
        sleepers_.fetch_sub(1);
    }
    return region_.load();
}

}  // namespace hg
