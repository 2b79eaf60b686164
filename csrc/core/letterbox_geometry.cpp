#include "core/letterbox_geometry.hpp"

#include <algorithm>
#include <cmath>

namespace edgepose {
namespace {

int at_least_one(double pixels) { return std::max(1, static_cast<int>(std::nearbyint(pixels))); }

int centred(int out, int size) { return std::max(0, static_cast<int>(std::nearbyint((out - size) / 2.0 - 0.1))); }

// Rounds the running sum rather than each weight: the total is exact and the errors do not add up.
void append_weights(const std::vector<double>& real, int taps, std::vector<std::int16_t>& weights) {
  double total = 0.0;
  for (double weight : real) total += weight;
  double sum = 0.0;
  int given = 0;
  for (int tap = 0; tap < taps; ++tap) {
    if (tap < static_cast<int>(real.size())) sum += real[tap];
    const int wanted = static_cast<int>(std::lround(sum / total * TriangleAxis::kWeightOne));
    weights.push_back(static_cast<std::int16_t>(wanted - given));
    given = wanted;
  }
}

}  // namespace

Placement place(ResizeMode mode, bool center, int source_width, int source_height, int out_width, int out_height) {
  if (mode == ResizeMode::kStretch) return {0, 0, out_width, out_height};
  const double ratio =
      std::min(static_cast<double>(out_height) / source_height, static_cast<double>(out_width) / source_width);
  Placement placed;
  placed.width = std::min(out_width, at_least_one(source_width * ratio));
  placed.height = std::min(out_height, at_least_one(source_height * ratio));
  if (center) {
    placed.left = centred(out_width, placed.width);
    placed.top = centred(out_height, placed.height);
  }
  return placed;
}

BilinearAxis bilinear_axis(int source, int out, Edge edge) {
  BilinearAxis axis;
  axis.on_pixels = true;
  const double scale = 1.0 / (static_cast<double>(out) / source);
  const int last = source - 1;
  for (int i = 0; i < out; ++i) {
    const auto position = static_cast<float>((i + 0.5) * scale - 0.5);
    const int first = static_cast<int>(std::floor(position));
    float fraction = position - static_cast<float>(first);
    if (edge == Edge::kWhole && (first < 0 || first >= last)) fraction = 0.0F;
    axis.first.push_back(std::clamp(first, 0, last));
    axis.second.push_back(std::clamp(first + 1, 0, last));
    axis.first_weight.push_back(static_cast<std::int16_t>(std::nearbyint((1.0F - fraction) * BilinearAxis::kOne)));
    axis.second_weight.push_back(static_cast<std::int16_t>(std::nearbyint(fraction * BilinearAxis::kOne)));
    axis.on_pixels = axis.on_pixels && axis.second_weight.back() == 0;
  }
  return axis;
}

TriangleAxis triangle_axis(int source, int out) {
  TriangleAxis axis;
  const double scale = static_cast<double>(source) / out;
  const double reach = std::max(1.0, scale);
  axis.taps = std::min(source, static_cast<int>(std::ceil(reach)) * 2 + 1);
  std::vector<double> real;
  for (int i = 0; i < out; ++i) {
    const double center = (i + 0.5) * scale;
    const int begin = std::max(0, static_cast<int>(center - reach + 0.5));
    const int end = std::min({source, static_cast<int>(center + reach + 0.5), begin + axis.taps});
    real.clear();
    for (int x = begin; x < end; ++x) real.push_back(std::max(0.0, 1.0 - std::abs(x + 0.5 - center) / reach));
    axis.first.push_back(begin);
    append_weights(real, axis.taps, axis.weights);
  }
  return axis;
}

}  // namespace edgepose
