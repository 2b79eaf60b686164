#include "core/oks.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "core/nms.hpp"

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

void oks_matrix(const PoseSet& a, const PoseSet& b, const std::vector<float>& sigmas, float* out) {
  const std::vector<float> inverse_variance = inverse_variances(sigmas);
  PoseSuppressor columns;
  columns.reset(b.n, 1.0f, inverse_variance, decode_kernels());
  const std::size_t size = 2 * sigmas.size();
  for (std::size_t i = 0; i < b.n; ++i) columns.keep(b.xy + size * i, b.areas[i], 0);
  std::vector<float> row(pad_lanes(b.n));
  for (std::size_t i = 0; i < a.n; ++i) {
    columns.similarities(a.xy + size * i, a.areas[i], row.data());
    std::copy_n(row.data(), b.n, out + b.n * i);
  }
}

std::vector<std::uint32_t> suppress_poses(const PoseSet& poses, const float* scores, const std::int32_t* class_ids,
                                          const std::vector<float>& sigmas, float threshold, std::size_t max_det) {
  const std::vector<float> inverse_variance = inverse_variances(sigmas);
  PoseSuppressor suppressor;
  suppressor.reset(std::min(poses.n, max_det), threshold, inverse_variance, decode_kernels());
  const std::size_t size = 2 * sigmas.size();
  return keep_in_order(scores, poses.n, max_det, [&](std::uint32_t i) {
    const float* xy = poses.xy + size * i;
    const float area = poses.areas[i];
    const bool known = std::all_of(xy, xy + size, [](float value) { return is_place(value); });
    return known && std::isfinite(area) && suppressor.try_keep(xy, area, class_ids ? class_ids[i] : 0);
  });
}

}  // namespace edgepose
