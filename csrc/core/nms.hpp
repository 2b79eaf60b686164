// Greedy non-maximum suppression by box IoU. A candidate is compared with what was kept before it and with nothing
// else; the caller offers candidates best first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/decode_kernels.hpp"

namespace edgepose {

struct Box {
  float x1, y1, x2, y2;
  float area() const { return (x2 - x1) * (y2 - y1); }
};

class BoxSuppressor {
 public:
  // Forgets what was kept; room for `capacity` boxes.
  void reset(std::size_t capacity, float threshold, const DecodeKernels& kernels);
  // False if a kept box of the same class overlaps it by IoU > threshold, else keeps it.
  bool try_keep(const Box& box, std::int32_t class_id);

 private:
  std::vector<float> lanes_;  // x1, y1, x2, y2, area, class_id, `capacity_` floats each
  std::size_t capacity_ = 0, count_ = 0;
  float threshold_ = 0.0f;
  const DecodeKernels* kernels_ = nullptr;
};

// Sorts slots 0..n-1 by score descending, then slot ascending: `order` receives them. Scores are not negative.
void order_by_score(const float* scores, std::size_t n, std::vector<std::uint64_t>& keys,
                    std::vector<std::uint64_t>& spare);

// The slot that a key of order_by_score stands for.
inline std::uint32_t slot_of(std::uint64_t key) { return static_cast<std::uint32_t>(key); }

}  // namespace edgepose
