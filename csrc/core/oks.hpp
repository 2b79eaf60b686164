// Object keypoint similarity (COCO keypoint evaluation, https://cocodataset.org/#keypoints-eval) and greedy
// suppression by it (Papandreou et al., "Towards Accurate Multi-person Pose Estimation in the Wild", 2017, 3.2.3).
//
// OKS(a, b) = mean over k of exp(-d_k^2 / (2 (2 sigma_k)^2 s^2)), s^2 the mean of the two box areas. Every keypoint
// counts, whatever its score.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/decode_kernels.hpp"

namespace edgepose {

// 1 / (2 (2 sigma)^2) each. Throws std::invalid_argument for a sigma that is not finite or below 1e-6.
std::vector<float> inverse_variances(const std::vector<float>& sigmas);

class PoseSuppressor {
 public:
  void reset(std::size_t capacity, float threshold, const std::vector<float>& inverse_variance,
             const DecodeKernels& kernels);
  // False if a kept pose of the same class has OKS > threshold with it, else keeps it. xy: K pairs.
  bool try_keep(const float* xy, float area, std::int32_t class_id);
  // Keeps it whatever it overlaps.
  void keep(const float* xy, float area, std::int32_t class_id);
  // OKS of a pose with each kept one, in their order; out holds pad_lanes(count) floats.
  void similarities(const float* xy, float area, float* out) const;

 private:
  KeptPoses kept() const;

  std::vector<float> x_, y_, area_, class_id_;
  const std::vector<float>* inverse_variance_ = nullptr;
  std::size_t capacity_ = 0, count_ = 0;
  float threshold_ = 0.0f;
  const DecodeKernels* kernels_ = nullptr;
};

// Poses one after the other: xy N * 2K, areas N.
struct PoseSet {
  const float *xy, *areas;
  std::size_t n;
};

// out (a.n, b.n) = OKS of each pair.
void oks_matrix(const PoseSet& a, const PoseSet& b, const std::vector<float>& sigmas, float* out);

// As suppress_boxes. A pose with a coordinate that is no place, or with a bad area, is left out.
std::vector<std::uint32_t> suppress_poses(const PoseSet& poses, const float* scores, const std::int32_t* class_ids,
                                          const std::vector<float>& sigmas, float threshold, std::size_t max_det);

}  // namespace edgepose
