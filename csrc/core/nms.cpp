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

constexpr unsigned kDigitBits = 9, kBuckets = 1u << kDigitBits;

unsigned bit_length(std::uint32_t value) {
  unsigned bits = 0;
  for (; value; value >>= 1) ++bits;
  return bits;
}

// One pass: stable by the digit of the score that lies at `shift` of score - least.
void sort_by_digit(const std::vector<std::uint64_t>& keys, std::uint32_t least, unsigned shift,
                   std::vector<std::uint64_t>& out) {
  const auto digit = [=](std::uint64_t key) {
    return (static_cast<std::uint32_t>(key >> 32) - least) >> shift & (kBuckets - 1);
  };
  std::array<std::uint32_t, kBuckets> starts{};
  for (const std::uint64_t key : keys) ++starts[digit(key)];
  std::uint32_t start = 0;
  for (std::uint32_t& entry : starts) start += std::exchange(entry, start);
  for (const std::uint64_t key : keys) out[starts[digit(key)]++] = key;
}

// Stable on the upper 32 bits; the lower ones (slots) come in ascending. Scores between a confidence threshold and 1
// differ in few bits: only as many digits as their range has.
void radix_sort(std::vector<std::uint64_t>& keys, std::vector<std::uint64_t>& spare) {
  const auto [low, high] = std::minmax_element(keys.begin(), keys.end());
  const std::uint32_t least = static_cast<std::uint32_t>(*low >> 32);
  const unsigned bits = bit_length(static_cast<std::uint32_t>(*high >> 32) - least);
  spare.resize(keys.size());
  for (unsigned shift = 0; shift < bits; shift += kDigitBits) {
    sort_by_digit(keys, least, shift, spare);
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
