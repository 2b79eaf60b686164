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

// Sorts slots 0..n-1 by score descending, then slot ascending; slot_of(key) gives the slot back. Where NaN
// comes is not said.
void order_by_score(const float* scores, std::size_t n, std::vector<std::uint64_t>& keys,
                    std::vector<std::uint64_t>& spare);

inline std::uint32_t slot_of(std::uint64_t key) { return static_cast<std::uint32_t>(key); }

// Whether a coordinate can be meant: false for NaN, too.
inline bool is_place(float value) { return value >= -kFarthestPlace && value <= kFarthestPlace; }
inline bool is_place(const Box& box) {
  return is_place(box.x1) && is_place(box.y1) && is_place(box.x2) && is_place(box.y2);
}

// Indices of the boxes that survive, best first, at most max_det. class_ids may be null: all of one class. A box whose
// score is NaN or whose corners are no places is left out.
std::vector<std::uint32_t> suppress_boxes(const Box* boxes, const float* scores, const std::int32_t* class_ids,
                                          std::size_t n, float threshold, std::size_t max_det);

// Calls offer(slot) best score first, passing over NaN, until `limit` of them returned true; returns those.
template <class Offer>
std::vector<std::uint32_t> keep_in_order(const float* scores, std::size_t n, std::size_t limit, Offer offer) {
  std::vector<std::uint32_t> kept;
  std::vector<std::uint64_t> keys, spare;
  order_by_score(scores, n, keys, spare);
  for (std::size_t i = 0; i < n && kept.size() < limit; ++i) {
    const std::uint32_t slot = slot_of(keys[i]);
    if (scores[slot] == scores[slot] && offer(slot)) kept.push_back(slot);
  }
  return kept;
}

}  // namespace edgepose
