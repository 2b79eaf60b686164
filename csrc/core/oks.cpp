#include "core/oks.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

namespace edgepose {
namespace {

void grow(std::vector<float>& lanes, std::size_t size) {
  if (lanes.size() < size) lanes.resize(size);
}

}  // namespace

std::vector<float> inverse_variances(const std::vector<float>& sigmas) {
  std::vector<float> result;
  result.reserve(sigmas.size());
  for (const float sigma : sigmas) {
    if (!(sigma >= 1e-6f) || !std::isfinite(sigma))
      throw std::invalid_argument("sigma is " + std::to_string(sigma) + ", expected a finite number of at least 1e-6");
    result.push_back(static_cast<float>(1.0 / (8.0 * sigma * sigma)));
  }
  return result;
}

void PoseSuppressor::reset(std::size_t capacity, float threshold, const std::vector<float>& inverse_variance,
                           const DecodeKernels& kernels) {
  capacity_ = pad_lanes(capacity);
  count_ = 0;
  threshold_ = threshold;
  inverse_variance_ = &inverse_variance;
  kernels_ = &kernels;
  grow(x_, capacity_ * inverse_variance.size());
  grow(y_, capacity_ * inverse_variance.size());
  grow(area_, capacity_);
  grow(class_id_, capacity_);
}

KeptPoses PoseSuppressor::kept() const {
  return {x_.data(),
          y_.data(),
          area_.data(),
          class_id_.data(),
          pad_lanes(count_),
          capacity_,
          inverse_variance_->size(),
          inverse_variance_->data()};
}

bool PoseSuppressor::try_keep(const float* xy, float area, std::int32_t class_id) {
  if (kernels_->any_oks_above(kept(), {xy, area, static_cast<float>(class_id)}, threshold_)) return false;
  keep(xy, area, class_id);
  return true;
}

void PoseSuppressor::keep(const float* xy, float area, std::int32_t class_id) {
  const std::size_t i = count_++;
  if (i % kLanePad == 0) std::fill_n(class_id_.begin() + static_cast<std::ptrdiff_t>(i), kLanePad, -1.0f);
  for (std::size_t k = 0; k < inverse_variance_->size(); ++k) {
    x_[k * capacity_ + i] = xy[2 * k];
    y_[k * capacity_ + i] = xy[2 * k + 1];
  }
  area_[i] = area;
  class_id_[i] = static_cast<float>(class_id);
}

void PoseSuppressor::similarities(const float* xy, float area, float* out) const {
  kernels_->oks_row(kept(), {xy, area, 0.0f}, out);
}

}  // namespace edgepose
