// Heatmaps of keypoints, and how they correct keypoints that a cell of the heads regressed.
#pragma once

#include <cstddef>

#include "core/nms.hpp"
#include "core/tensor.hpp"

namespace edgepose {

// Logits that a keypoint lies in a quarter of a cell: keypoint k, upper (dy 0) or lower (dy 1), left (dx 0) or right
// half is channel 4 k + 2 dy + dx. Element (channel, cell) lies at channel * channel_stride + cell * cell_stride.
struct Heatmap {
  const Tensor* tensor;
  Quantization quantization;
  std::size_t rows, columns;  // cells
  std::size_t channel_stride, cell_stride;
  float stride;  // input pixels a cell
};

// Moves each of a person's keypoints, x and y in input pixels, to the peak of its heatmap that is strongest after a
// Gaussian weight for its distance from where the keypoint was (as MoveNet does, Votel and Li, 2021): within the box
// and a margin, where the probability is at least a tenth. A keypoint without such a peak, or whose place or box is not
// finite, stays. Returns how well the heatmaps support the pose: the mean of the peaks' probabilities, where a keypoint
// that stays counts as a twentieth.
float refine_pose(const Heatmap& heatmap, const Box& box, std::size_t num_keypoints, float* xy);

}  // namespace edgepose
