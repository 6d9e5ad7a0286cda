// Large aligned buffers.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hg {

// Memory of the system, its pages untouched (zero) until written. Large ones ask for large pages: a stream through
// hundreds of megabytes then misses the processor's page table cache less often. Throws std::bad_alloc.
class Buffer {
  public:
    Buffer() = default;
    explicit Buffer(size_t bytes);
    ~Buffer();
    Buffer(Buffer&& other) noexcept;
    Buffer& operator=(Buffer&& other) noexcept;

    uint8_t* data() const { return data_; }
    float* floats() const { return reinterpret_cast<float*>(data_); }
    size_t bytes() const { return bytes_; }

    // At least `bytes`; what it held is lost when it grows.
    void reserve(size_t bytes);

  private:
    uint8_t* data_ = nullptr;
    size_t bytes_ = 0;
};

}  // namespace hg
