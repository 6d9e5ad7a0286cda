// Threads that share out the chunks of one parallel region after another.
//
// A region is over when its CHUNKS are done, not when every thread has come: who has time takes the next chunk, so a
// thread that the system keeps off its core (a server shares its cores) delays nobody but with the chunk it is in.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace hg {

class Pool {
  public:
    explicit Pool(int threads);  // the caller of run counts as one of them; at least 1. std::system_error: no such thread
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    int threads() const { return static_cast<int>(workers_.size()) + 1; }

    // Calls work(chunk, thread) for every chunk of [0, n_chunks), each once, on some thread of [0, threads()), and
    // returns when all have returned. From one thread at a time. Where `work` throws, the other chunks are done all the same,
    // and then the first exception is thrown here.
    template <typename Work>
    void run(int64_t n_chunks, Work&& work) {
        if (n_chunks <= 1 || workers_.empty()) {
            run_alone(n_chunks, work);
            return;
        }
        auto call = [](void* context, int64_t chunk, int thread) {
            (*static_cast<std::remove_reference_t<Work>*>(context))(chunk, thread);
        };
        run_shared(n_chunks, call, &work);
    }

    // The same over [0, n) in pieces of `grain`: work(begin, end, thread).
    template <typename Work>
    void run_pieces(int64_t n, int64_t grain, Work&& work) {
        run((n + grain - 1) / grain, [&](int64_t chunk, int thread) {
            const int64_t begin = chunk * grain;
            work(begin, begin + grain < n ? begin + grain : n, thread);
        });
    }

  private:
    template <typename Work>
    static void run_alone(int64_t n_chunks, Work& work) {
        std::exception_ptr failure;
        for (int64_t chunk = 0; chunk < n_chunks; ++chunk) {
            try {
                work(chunk, 0);
            } catch (...) {
                if (failure == nullptr) failure = std::current_exception();
            }
        }
        if (failure != nullptr) std::rethrow_exception(failure);
    }

    using Call = void (*)(void* context, int64_t chunk, int thread);

    // The chunks that are left of a thread's share. One word holds what must change together: the region's number, the first
    // chunk and the one behind the last. So a thread that comes late takes a chunk of whatever region is on, or finds none.
    struct alignas(64) Share {
        std::atomic<uint64_t> state{0};
    };

    void run_shared(int64_t n_chunks, Call call, void* context);
    void run_region(int64_t n_chunks, int64_t first);
    void take(int thread);
    bool take_from(Share& share, bool own, int thread);
    void keep_failure();
    void work(int thread);
    uint64_t wait_while(uint64_t seen);
    void close();

    std::vector<Share> shares_;                   // one per thread
    alignas(64) std::atomic<uint64_t> region_{0};  // the present region's number
    alignas(64) std::atomic<int64_t> done_{0};     // chunks of this region that have returned
    alignas(64) Call call_ = nullptr;              // these stand still while a chunk of the region is not done
    void* context_ = nullptr;
    int64_t first_ = 0;  // number of the region's chunk 0

    std::mutex failure_mutex_;
    std::exception_ptr failure_;  // the first that a chunk threw

    std::atomic<int> sleepers_{0};
    std::atomic<bool> closing_{false};
    std::mutex mutex_;
    std::condition_variable wake_;
    std::vector<std::thread> workers_;
};

}  // namespace hg
