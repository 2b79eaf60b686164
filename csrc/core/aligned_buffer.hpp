// Scratch memory for vector code.
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <new>

namespace edgepose {

// Plain elements on a cache line's boundary; what they hold is lost when it grows, and it never shrinks.
template <typename T>
class AlignedBuffer {
 public:
  static constexpr std::align_val_t kAlignment{64};

  // At least `size` elements, zero where the memory is new.
  void reserve(std::size_t size) {
    if (size <= size_) return;
    size_ = 0;
    data_.reset(static_cast<T*>(::operator new(size * sizeof(T), kAlignment)));
    std::memset(data_.get(), 0, size * sizeof(T));
    size_ = size;
  }

  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  T& operator[](std::size_t i) { return data_.get()[i]; }
  const T& operator[](std::size_t i) const { return data_.get()[i]; }

 private:
  struct Free {
    void operator()(T* memory) const { ::operator delete(memory, kAlignment); }
  };
  std::unique_ptr<T, Free> data_;
  std::size_t size_ = 0;
};

}  // namespace edgepose
