#include "memory.h"

#include <new>
#include <utility>

#include <sys/mman.h>

namespace hg {
namespace {

constexpr size_t kLargePage = size_t{2} << 20;

size_t round_up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

}  // namespace

Buffer::Buffer(size_t bytes) {
    if (bytes == 0) return;
    // Whole large pages, at the border of one: the system gives them only so.
    const size_t wanted = round_up(bytes, bytes >= kLargePage ? kLargePage : 4096);
    const size_t spare = bytes >= kLargePage ? kLargePage : 0;
    void* got = mmap(nullptr, wanted + spare, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (got == MAP_FAILED) throw std::bad_alloc();
    auto* begin = static_cast<uint8_t*>(got);
    data_ = begin;
    bytes_ = wanted;
    if (spare == 0) return;
    data_ = reinterpret_cast<uint8_t*>(round_up(reinterpret_cast<uintptr_t>(begin), kLargePage));
    const size_t before = static_cast<size_t>(data_ - begin);
    if (before > 0) munmap(begin, before);
    if (before < spare) munmap(data_ + wanted, spare - before);
#if defined(MADV_HUGEPAGE)
    madvise(data_, wanted, MADV_HUGEPAGE);
#endif
}

Buffer::~Buffer() {
    if (data_ != nullptr) munmap(data_, bytes_);
}

Buffer::Buffer(Buffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
}

void Buffer::reserve(size_t bytes) {
    if (bytes > bytes_) *this = Buffer(bytes + bytes / 4);
}

}  // namespace hg
