#include "pool.h"

#include <algorithm>
#include <chrono>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace hg {
namespace {

// state_: region number (24 bits) | chunks (20 bits) | next chunk (20 bits).
constexpr int kCountBits = 20;
constexpr uint64_t kCountMask = (uint64_t{1} << kCountBits) - 1;
// Every thread may count one past the end before it sees that nothing is left: room for them below the next field.
constexpr int64_t kMaxChunks = int64_t{1} << (kCountBits - 1);

// How long an idle thread looks for work before it sleeps. Regions of one step follow each other within a few
// microseconds, and to wake a sleeper takes 30 to 60: so spin through the gaps within a step, and leave the core to
// others between steps, while tokens are sampled and sent.
constexpr auto kSpin = std::chrono::microseconds(60);
constexpr int kPausesPerLook = 32;  // between two looks at the clock, which costs some 20 ns

uint64_t region_of(uint64_t state) { return state >> (2 * kCountBits); }
uint64_t chunks_of(uint64_t state) { return (state >> kCountBits) & kCountMask; }
uint64_t next_of(uint64_t state) { return state & kCountMask; }

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

Pool::Pool(int threads) {
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
    const uint64_t region = region_of(state_.load(std::memory_order_relaxed)) + 1;
    state_.store(region << (2 * kCountBits) | static_cast<uint64_t>(n_chunks) << kCountBits);
    if (sleepers_.load() > 0) {  // in one order with the store above and a sleeper's last look: none is missed
        { const std::lock_guard<std::mutex> lock(mutex_); }
        wake_.notify_all();
    }
    take(0);
    const auto all_done = [&] { return done_.load(std::memory_order_acquire) == n_chunks; };
    // A thread that holds the last chunk may have lost its core: after a while give it ours.
    while (!spin(all_done)) std::this_thread::yield();
}

// Takes chunks until none is left; the region that had none.
uint64_t Pool::take(int thread) {
    for (;;) {
        const uint64_t state = state_.fetch_add(1, std::memory_order_acq_rel);
        if (next_of(state) >= chunks_of(state)) return region_of(state);
        try {
            call_(context_, first_ + static_cast<int64_t>(next_of(state)), thread);
        } catch (...) {  // a chunk that failed is done too: the caller waits for all, and tells
            keep_failure();
        }
        done_.fetch_add(1, std::memory_order_release);
    }
}

void Pool::keep_failure() {
    const std::lock_guard<std::mutex> lock(failure_mutex_);
    if (failure_ == nullptr) failure_ = std::current_exception();
}

void Pool::work(int thread) {
    uint64_t seen = 0;
    for (;;) {
        wait_while(seen);
        if (closing_.load(std::memory_order_relaxed)) return;
        seen = take(thread);
    }
}

// Waits while `seen` is the present region; spins, then sleeps.
void Pool::wait_while(uint64_t seen) {
    const auto changed = [&] { return region_of(state_.load()) != seen || closing_.load(); };
    if (spin(changed)) return;
    std::unique_lock<std::mutex> lock(mutex_);
    sleepers_.fetch_add(1);
    wake_.wait(lock, changed);
    sleepers_.fetch_sub(1);
}

}  // namespace hg
