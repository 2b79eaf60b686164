#include "core/heatmap.hpp"

#include <algorithm>
#include <cmath>

namespace edgepose {
namespace {

constexpr float kReach = 0.2f;         // deviation of the distance's weight, of the square root of the box's area
constexpr float kMargin = 0.1f;        // of the box's sides, that keypoints may lie outside
constexpr float kMinLogit = -2.197f;   // a probability of 0.1
constexpr float kWindow = 2.5f;        // deviations that are searched
constexpr float kUnsupported = 0.05f;  // the probability that a keypoint without a peak counts as

struct Range {
  std::ptrdiff_t begin, end;
};

// The quarters whose middle lies within [low, high], both in quarters, of `count`.
Range quarters(float low, float high, std::size_t count) {
  const float most = static_cast<float>(count);
  const float begin = std::min(std::max(std::ceil(low - 0.5f), 0.0f), most);
  const float end = std::min(std::max(std::floor(high - 0.5f) + 1.0f, 0.0f), most);
  return {static_cast<std::ptrdiff_t>(begin), static_cast<std::ptrdiff_t>(end)};
}

Range searched(float at, float reach, float low, float high, std::size_t count) {
  const float margin = kMargin * (high - low);
  return quarters(std::max(at - kWindow * reach, low - margin), std::min(at + kWindow * reach, high + margin), count);
}

float sigmoid(float logit) { return 1.0f / (1.0f + std::exp(-logit)); }

// One keypoint's map, in quarters of cells.
template <class Read>
class Map {
 public:
  Map(const Heatmap& heatmap, std::size_t keypoint, Read read) : heatmap_(heatmap), first_(4 * keypoint), read_(read) {}

  float logit(std::ptrdiff_t row, std::ptrdiff_t column) const {
    const std::size_t y = static_cast<std::size_t>(row), x = static_cast<std::size_t>(column);
    const std::size_t channel = first_ + 2 * (y & 1) + (x & 1), cell = (y / 2) * heatmap_.columns + x / 2;
    return read_(channel * heatmap_.channel_stride + cell * heatmap_.cell_stride);
  }

  // Moves (x, y), in quarters, to the best peak of the ranges; returns its probability, 0 where there is none.
  float refine(const Range& across, const Range& down, float reach, float* x, float* y) const {
    const float inverse = 0.5f / (reach * reach);
    float best = 0.0f;
    std::ptrdiff_t best_row = -1, best_column = -1;
    for (std::ptrdiff_t row = down.begin; row < down.end; ++row)
      for (std::ptrdiff_t column = across.begin; column < across.end; ++column) {
        const float value = logit(row, column);
        if (!(value > kMinLogit)) continue;
        const float dx = static_cast<float>(column) + 0.5f - *x, dy = static_cast<float>(row) + 0.5f - *y;
        const float weighted = sigmoid(value) * std::exp(-(dx * dx + dy * dy) * inverse);
        if (weighted > best) best = weighted, best_row = row, best_column = column;
      }
    if (best_row < 0) return 0.0f;
    place(best_row, best_column, x, y);
    return sigmoid(logit(best_row, best_column));
  }

 private:
  // The centre of mass of the 3 x 3 quarters around a peak.
  void place(std::ptrdiff_t row, std::ptrdiff_t column, float* x, float* y) const {
    const std::ptrdiff_t rows = static_cast<std::ptrdiff_t>(2 * heatmap_.rows);
    const std::ptrdiff_t columns = static_cast<std::ptrdiff_t>(2 * heatmap_.columns);
    float mass = 0.0f, sum_x = 0.0f, sum_y = 0.0f;
    for (std::ptrdiff_t r = std::max<std::ptrdiff_t>(row - 1, 0); r < std::min(row + 2, rows); ++r)
      for (std::ptrdiff_t c = std::max<std::ptrdiff_t>(column - 1, 0); c < std::min(column + 2, columns); ++c) {
        const float p = sigmoid(logit(r, c));
        if (std::isnan(p)) continue;
        mass += p;
        sum_x += p * (static_cast<float>(c) + 0.5f);
        sum_y += p * (static_cast<float>(r) + 0.5f);
      }
    *x = sum_x / mass;
    *y = sum_y / mass;
  }

  const Heatmap& heatmap_;
  std::size_t first_;
  Read read_;
};

}  // namespace

float refine_pose(const Heatmap& heatmap, const Box& box, std::size_t num_keypoints, float* xy) {
  const float quarter = heatmap.stride / 2;
  const float reach = kReach * std::sqrt(std::max(box.area(), 0.0f)) / quarter;
  float support = 0.0f;
  if (!is_place(box) || !(reach > 0.0f)) return kUnsupported;
  visit_real(*heatmap.tensor, heatmap.quantization, [&](auto read) {
    for (std::size_t k = 0; k < num_keypoints; ++k) {
      float &x = xy[2 * k], &y = xy[2 * k + 1];
      support += kUnsupported;
      if (!is_place(x) || !is_place(y)) continue;
      float at_x = x / quarter, at_y = y / quarter;
      const Range across = searched(at_x, reach, box.x1 / quarter, box.x2 / quarter, 2 * heatmap.columns);
      const Range down = searched(at_y, reach, box.y1 / quarter, box.y2 / quarter, 2 * heatmap.rows);
      const float peak = Map(heatmap, k, read).refine(across, down, reach, &at_x, &at_y);
      if (!(peak > 0.0f)) continue;
      support += peak - kUnsupported;
      x = at_x * quarter;
      y = at_y * quarter;
    }
  });
  return support / static_cast<float>(num_keypoints);
}

}  // namespace edgepose
