// Memory for weights, caches and scratch: zeroed, aligned, in huge pages where it is large, given back when dropped.
//
// Knows no layout of what lies in it.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>

namespace mg {

class Memory {
 public:
  Memory() = default;
  // Zeros. Pages are taken from the system when first touched. Throws std::bad_alloc.
  explicit Memory(size_t bytes) : bytes_(bytes) {
    if (bytes == 0) return;
    void* mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) throw std::bad_alloc();
    data_ = static_cast<uint8_t*>(mapped);
#ifdef MADV_HUGEPAGE
    // Advice only: a refusal costs speed, nothing else.
    if (bytes >= kHuge) madvise(data_, bytes, MADV_HUGEPAGE);
#endif
  }
  Memory(Memory&& other) noexcept { swap(other); }
  Memory& operator=(Memory&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Memory() {
    if (data_ != nullptr) munmap(data_, bytes_);
  }

  // Room for at least `bytes`; what was in it is lost when it grows. Grows by half again, so that steps of slowly
  // growing size do not map anew each time.
  void ensure(size_t bytes) {
    if (bytes <= bytes_) return;
    size_t room = bytes_ == 0 ? bytes : bytes + bytes / 2;
    Memory().swap(*this);
    Memory larger(room);
    swap(larger);
  }

  uint8_t* data() const { return data_; }
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }
  size_t bytes() const { return bytes_; }

 private:
  static constexpr size_t kHuge = size_t{1} << 21;
  void swap(Memory& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }
  uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace mg
