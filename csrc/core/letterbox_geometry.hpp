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

// From and to what size a picture is sampled; `channels` are the bytes of a source pixel: 1, 3 or 4.
struct PictureSizes {
  int source_width = 0;
  int source_height = 0;
  int channels = 0;
  int width = 0;
  int height = 0;
  int lanes() const { return channels == 1 ? 1 : 4; }  // elements of a column in rows of more than 8 bits
};

// Bilinear sampling of one axis, pixel centres at + 0.5, as OpenCV's INTER_LINEAR has it for 8-bit pictures: output
// position i blends source positions first[i] and second[i] with weights in 1/kOne, each rounded by itself from a
// 32-bit float.
struct BilinearAxis {
  static constexpr int kBits = 11;
  static constexpr int kOne = 1 << kBits;
  std::vector<std::int32_t> first, second;
  std::vector<std::int16_t> first_weight, second_weight;
  bool on_pixels = false;  // every position falls on a source pixel: nothing is blended
};

// What lies outside of the source is its edge pixel. Columns that fall there take it whole; rows blend it with itself,
// which the roundings can tell from it.
enum class Edge { kWhole, kBlended };

BilinearAxis bilinear_axis(int source, int out, Edge edge);

// Output position i reads `taps` source positions from first[i] on. The weights of a position are integers that add
// up to kWeightOne. Positions past the source's end may be named, with weight 0.
struct TriangleAxis {
  static constexpr int kWeightOne = 1 << 14;
  int taps = 0;
  std::vector<std::int32_t> first;
  std::vector<std::int16_t> weights;  // [positions][taps]
};

// The triangle filter as wide as the reduction, of Pillow's BILINEAR; as wide as a pixel where nothing is reduced.
TriangleAxis triangle_axis(int source, int out);

}  // namespace edgepose
