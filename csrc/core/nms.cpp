#include "core/nms.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

namespace edgepose {
namespace {

// Below this many keys std::sort is faster than four passes of a radix sort.
constexpr std::size_t kRadixThreshold = 192;

// Ascending keys are descending scores. As integers, floats are ordered by their bits, negative ones backwards.
std::uint64_t sort_key(float score, std::size_t slot) {
  const float value = score + 0.0f;  // one zero
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const std::uint32_t descending = bits >> 31 ? bits : ~(bits | 0x80000000u);
  return static_cast<std::uint64_t>(descending) << 32 | static_cast<std::uint32_t>(slot);
}

// Stable on the upper 32 bits; the lower ones (slots) come in ascending.
void radix_sort(std::vector<std::uint64_t>& keys, std::vector<std::uint64_t>& spare) {
  std::array<std::array<std::uint32_t, 256>, 4> counts{};
  for (const std::uint64_t key : keys)
    for (unsigned digit = 0; digit < 4; ++digit) ++counts[digit][key >> (32 + 8 * digit) & 255];
  spare.resize(keys.size());
  for (unsigned digit = 0; digit < 4; ++digit) {
    const unsigned shift = 32 + 8 * digit;
    auto& count = counts[digit];
    if (count[keys.front() >> shift & 255] == keys.size()) continue;
    std::uint32_t start = 0;
    for (std::uint32_t& entry : count) start += std::exchange(entry, start);
    for (const std::uint64_t key : keys) spare[count[key >> shift & 255]++] = key;
    keys.swap(spare);
  }
}

}  // namespace

void BoxSuppressor::reset(std::size_t capacity, float threshold, const DecodeKernels& kernels) {
  capacity_ = pad_lanes(capacity);
  count_ = 0;
  threshold_ = threshold;
  kernels_ = &kernels;
  if (lanes_.size() < 6 * capacity_) lanes_.resize(6 * capacity_);
}

bool BoxSuppressor::try_keep(const Box& box, std::int32_t class_id) {
  float* lanes = lanes_.data();
  const std::size_t c = capacity_;
  const KeptBoxes kept{lanes, lanes + c, lanes + 2 * c, lanes + 3 * c, lanes + 4 * c, lanes + 5 * c, pad_lanes(count_)};
  const BoxQuery query{box.x1, box.y1, box.x2, box.y2, box.area(), static_cast<float>(class_id)};
  if (kernels_->any_iou_above(kept, query, threshold_)) return false;
  const std::size_t i = count_++;
  if (i % kLanePad == 0) std::fill_n(lanes + 5 * c + i, kLanePad, -1.0f);
  const float values[6] = {query.x1, query.y1, query.x2, query.y2, query.area, query.class_id};
  for (std::size_t j = 0; j < 6; ++j) lanes[j * c + i] = values[j];
  return true;
}

void order_by_score(const float* scores, std::size_t n, std::vector<std::uint64_t>& keys,
                    std::vector<std::uint64_t>& spare) {
  keys.resize(n);
  for (std::size_t i = 0; i < n; ++i) keys[i] = sort_key(scores[i], i);
  if (n < kRadixThreshold)
    std::sort(keys.begin(), keys.end());
  else
    radix_sort(keys, spare);
}

std::vector<std::uint32_t> suppress_boxes(const Box* boxes, const float* scores, const std::int32_t* class_ids,
                                          std::size_t n, float threshold, std::size_t max_det) {
  BoxSuppressor suppressor;
  suppressor.reset(std::min(n, max_det), threshold, decode_kernels());
  return keep_in_order(scores, n, max_det, [&](std::uint32_t i) {
    return is_place(boxes[i]) && suppressor.try_keep(boxes[i], class_ids ? class_ids[i] : 0);
  });
}

}  // namespace edgepose
