// The inner loops of the letterbox, one set for each instruction set. All sets give the same bits.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/cpu.hpp"

namespace edgepose {

// Bilinear sampling, in two steps and in integers, as OpenCV's INTER_LINEAR samples 8-bit pictures. Along x, with
// weights in 1/2048: (left * weight + right * weight) >> 4, a level times 128. Then along y, likewise weighted:
// ((above * weight >> 16) + (below * weight >> 16) + 2) >> 2, a level again. A sampled row has four elements a column,
// of gray one; it and its tables reach to the end of a block, so that the kernels need not stop before it.
constexpr int kOutputBlock = 64;

// One output column; the neighbours as bytes from the row's start.
struct BilinearColumn {
  std::int32_t first = 0, second = 0;
  std::int16_t first_weight = 0, second_weight = 0;
};

// The same for vector loops, which read windows of the source row and shuffle two bytes for each output out of it: the
// neighbour of the larger weight and the other one, whose weight is given, times -32.
struct WindowTable {
  int outputs = 0;                        // a multiple of kOutputBlock
  const std::int32_t* starts = nullptr;   // of the windows, in bytes from the row's start
  const std::uint8_t* indices = nullptr;  // [outputs][2], counted in the register that a window is loaded to
  const std::int16_t* weights = nullptr;  // [outputs]
};

// A window of so many bytes serves so many outputs. Windows of less than 16 bytes share a register of 16.
struct WindowSampler {
  int bytes = 0;
  int outputs = 0;
  void (*sample)(const std::uint8_t* row, const WindowTable& table, std::int16_t* out) = nullptr;
};

// The antialiased modes' rows, blended first, hold their values times 64 (6 fraction bits), so that only the last
// rounding shows.
constexpr int kRowFractionBits = 6;

// What the columns read of such a row. Output column i is the sum over t of weights * row elements, the pair t of
// source pixels starting at offsets[i] + 2 * t * channels. The kernels read up to kRowSlack elements past the last
// pair.
struct ColumnTable {
  int columns = 0;
  int channels = 0;  // 1, 3 or 4
  int tap_pairs = 0;
  const std::int32_t* offsets = nullptr;
  const std::int16_t* weights = nullptr;  // [columns][tap_pairs][1 or 4 channels][2], kWeightOne = 1
};

// Tables and rows of pixels reach to the end of a block of columns.
constexpr int kColumnBlock = 16;

constexpr int kRowSlack = 64;

// level -> (level - mean) / std, to the last bit as a float division gives it: x = level - mean,
// fma(x, inverse_high, x * inverse_low).
struct LevelToFloat {
  float mean = 0.0F;
  float inverse_high = 1.0F;
  float inverse_low = 0.0F;
};

struct ChannelOrder {
  std::uint8_t byte[3] = {0, 1, 2};  // where in a 4-byte pixel each of the model's channels lies
};

struct YuvRow {
  const std::uint8_t* y = nullptr;
  const std::uint8_t* u = nullptr;
  const std::uint8_t* v = nullptr;
  std::ptrdiff_t y_step = 1;       // from one pixel to the next
  std::ptrdiff_t chroma_step = 1;  // from one pair of pixels to the next
};

struct LetterboxKernels {
  // The forms of windows to try, the best one first; those without a function end the list.
  WindowSampler window_samplers[4];
  // Two sampled rows to levels; n is a multiple of kOutputBlock.
  void (*blend_rows)(const std::int16_t* above, const std::int16_t* below, std::int16_t above_weight,
                     std::int16_t below_weight, std::uint8_t* levels, int n);

  // out = sum of rows[t] * weights[t], rounded to 6 fraction bits.
  void (*weigh_rows)(const std::uint8_t* const* rows, const std::int16_t* weights, int taps, std::int16_t* out, int n);
  // A blended row to pixels of 4 bytes, rounded to levels: the source's channels in their order; gray thrice.
  void (*sample_columns)(const std::int16_t* row, const ColumnTable& table, std::uint8_t* pixels);
  // A source row to pixels of 4 bytes, column by column.
  void (*copy_columns)(const std::uint8_t* row, int channels, int n, std::uint8_t* pixels);
  // Pairs of pixels, BT.601 limited range, to B G R and a zero.
  void (*yuv_to_pixels)(const YuvRow& row, int pairs, std::uint8_t* pixels);
  // B, G and R, lying as `bgr` says, to their luma (BT.601) in every byte.
  void (*pixels_to_gray)(std::uint8_t* pixels, int n, const ChannelOrder& bgr);

  void (*planar_float32)(const std::uint8_t* pixels, int n, int byte, const LevelToFloat& map, float* out);
  void (*planar_float16)(const std::uint8_t* pixels, int n, int byte, const LevelToFloat& map, std::uint16_t* out);
  void (*planar_uint8)(const std::uint8_t* pixels, int n, int byte, std::uint8_t flip, std::uint8_t* out);
  void (*packed_float32)(const std::uint8_t* pixels, int n, const ChannelOrder& order, const LevelToFloat* maps,
                         float* out);
  void (*packed_uint8)(const std::uint8_t* pixels, int n, const ChannelOrder& order, std::uint8_t flip,
                       std::uint8_t* out);
  // packed_uint8 from a source row of 3 bytes a pixel.
  void (*reordered_uint8)(const std::uint8_t* row, int n, const ChannelOrder& order, std::uint8_t flip,
                          std::uint8_t* out);
};

const LetterboxKernels& letterbox_kernels(SimdLevel level);

const LetterboxKernels& letterbox_kernels_plain();
const LetterboxKernels& letterbox_kernels_avx2();
const LetterboxKernels& letterbox_kernels_avx512();
const LetterboxKernels& letterbox_kernels_neon();

}  // namespace edgepose
