// Where the picture lies in the model's input, and which source pixels each output row and column reads.
#pragma once

#include <cstdint>
#include <vector>

namespace edgepose {

enum class ResizeMode { kLetterbox, kStretch };

// The picture's rectangle in the input, in pixels.
struct Placement {
  int left = 0;
  int top = 0;
  int width = 0;
  int height = 0;
  bool operator==(const Placement& other) const {
    return left == other.left && top == other.top && width == other.width && height == other.height;
  }
};

// The geometry of Ultralytics' letterbox: the largest size of the same aspect, rounded, at least one pixel; centred
// with the odd pixel of padding at the right and the bottom, or at the top left.
Placement place(ResizeMode mode, bool center, int source_width, int source_height, int out_width, int out_height);

// Output position i reads `taps` source positions from first[i] on. The weights of a position are integers that add
// up to kWeightOne. Positions past the source's end may be named, with weight 0.
struct AxisSampling {
  static constexpr int kWeightOne = 1 << 14;
  int taps = 0;
  std::vector<std::int32_t> first;
  std::vector<std::int16_t> weights;  // [positions][taps]
  // Bilinear sampling only (taps == 2), else empty: the second tap's weight, in 1/32768.
  std::vector<std::int16_t> fractions;
  bool on_pixels = false;  // every position falls on a source pixel: nothing is blended
};

// Bilinear sampling with pixel centres at + 0.5, edge pixels repeated: OpenCV's INTER_LINEAR.
AxisSampling bilinear_axis(int source, int out);

// The triangle filter as wide as the reduction, of Pillow's BILINEAR; bilinear where nothing is reduced.
AxisSampling antialiased_axis(int source, int out);

}  // namespace edgepose
