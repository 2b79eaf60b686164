// The inner loops of the letterbox, one set for each instruction set. All sets give the same bits.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/cpu.hpp"

namespace edgepose {

// A blended row holds its values times 64 (6 fraction bits), so that only the last rounding shows.
constexpr int kRowFractionBits = 6;

// What the columns read of a blended row. Output column i is the sum over t of weights * row elements, the pair t of
// source pixels starting at offsets[i] + 2 * t * channels. The kernels read up to kRowSlack elements past the last
// pair.
struct ColumnTable {
  int columns = 0;
  int channels = 0;  // 1, 3 or 4
  int tap_pairs = 0;
  const std::int32_t* offsets = nullptr;
  const std::int16_t* weights = nullptr;  // [columns][tap_pairs][1 or 4 channels][2], kWeightOne = 1
  // Where the elements that a group of columns reads begin, and which they are from there on ([columns][1 or 4
  // channels][2], each as group_index says): all in one window that the row has. Null where they lie further apart.
  const std::int32_t* group_offsets = nullptr;
  const std::int16_t* group_indices = nullptr;
};

constexpr int group_columns(int channels) { return channels == 1 ? 4 : 8; }
constexpr int group_window(int channels) { return channels == 1 ? 8 : 64; }
// Gray: the element itself. Colour: where it lies once 64 bytes of two rows were unpacked, lane by lane of 16 bytes, to
// two vectors: the lower halves of all lanes, then the upper ones.
constexpr int group_index(int channels, int element) {
  return channels == 1 ? element : (element / 16 * 8) + element % 8 + (element / 8 % 2 * 32);
}

// Tables and rows of pixels reach to the end of a block of columns, so that the kernels need not stop before it.
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
  // out = a * 64 + (b - a) * 64 * fraction / 32768, rounded.
  void (*blend_rows)(const std::uint8_t* a, const std::uint8_t* b, std::int16_t fraction, std::int16_t* out, int n);
  // out = sum of rows[t] * weights[t], rounded to 6 fraction bits.
  void (*weigh_rows)(const std::uint8_t* const* rows, const std::int16_t* weights, int taps, std::int16_t* out, int n);
  // A blended row to pixels of 4 bytes, rounded to levels: the source's channels in their order; gray thrice.
  void (*sample_columns)(const std::int16_t* row, const ColumnTable& table, std::uint8_t* pixels);
  // Both of blend_rows and sample_columns, from tables with groups; null: call the two.
  void (*sample_between)(const std::uint8_t* a, const std::uint8_t* b, std::int16_t fraction, const ColumnTable& table,
                         std::uint8_t* pixels);
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
