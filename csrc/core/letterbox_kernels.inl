// The loops in plain C++. Each instruction set's file includes this one, for the ends of its rows and for what the
// compiler vectorises well enough; the unnamed namespace keeps each file's code to itself.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "core/letterbox_kernels.hpp"

namespace edgepose {
namespace {

constexpr int kWeightBits = 14;

inline void store_pixel(std::uint8_t* out, std::uint32_t pixel) {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  pixel = __builtin_bswap32(pixel);
#endif
  std::memcpy(out, &pixel, 4);
}

inline void blend_rows_any(const std::int16_t* above, const std::int16_t* below, std::int16_t above_weight,
                           std::int16_t below_weight, std::uint8_t* __restrict levels, int n) {
  for (int i = 0; i < n; ++i) {
    const int sum = (above[i] * above_weight >> 16) + (below[i] * below_weight >> 16);
    levels[i] = static_cast<std::uint8_t>((sum + 2) >> 2);
  }
}

inline void weigh_rows_from(int begin, const std::uint8_t* const* rows, const std::int16_t* weights, int taps,
                            std::int16_t* out, int n) {
  constexpr int kBlock = 256;
  constexpr int kShift = kWeightBits - kRowFractionBits;
  std::int32_t sums[kBlock];
  for (; begin < n; begin += kBlock) {
    const int count = n - begin < kBlock ? n - begin : kBlock;
    for (int i = 0; i < count; ++i) sums[i] = 1 << (kShift - 1);
    for (int tap = 0; tap < taps; ++tap) {
      const std::uint8_t* row = rows[tap] + begin;
      const std::int32_t weight = weights[tap];
      for (int i = 0; i < count; ++i) sums[i] += weight * row[i];
    }
    for (int i = 0; i < count; ++i) out[begin + i] = static_cast<std::int16_t>(sums[i] >> kShift);
  }
}

// One channel of one output column, times 2^14 and the row's fraction.
template <int kChannels>
std::int32_t sample_channel(const std::int16_t* source, const std::int16_t* weights, int tap_pairs) {
  constexpr int kLanes = kChannels == 1 ? 1 : 4;
  std::int32_t sum = 0;
  for (int pair = 0; pair < tap_pairs; ++pair, source += 2 * kChannels, weights += 2 * kLanes)
    sum += weights[0] * source[0] + weights[1] * source[kChannels];
  return sum;
}

template <int kChannels>
void sample_columns_from(int i, const std::int16_t* row, const ColumnTable& table, std::uint8_t* pixels) {
  constexpr int kLanes = kChannels == 1 ? 1 : 4;
  constexpr int kShift = kWeightBits + kRowFractionBits;
  for (; i < table.columns; ++i) {
    const std::int16_t* weights = table.weights + static_cast<std::ptrdiff_t>(i) * table.tap_pairs * kLanes * 2;
    std::uint32_t level[4] = {};
    for (int c = 0; c < kChannels; ++c) {
      const std::int32_t sum = sample_channel<kChannels>(row + table.offsets[i] + c, weights, table.tap_pairs);
      level[c] = static_cast<std::uint32_t>((sum + (1 << (kShift - 1))) >> kShift);
    }
    const std::uint32_t pixel =
        kChannels == 1 ? level[0] * 0x01010101U : level[0] | level[1] << 8 | level[2] << 16 | level[3] << 24;
    store_pixel(pixels + 4 * i, pixel);
  }
}

inline void sample_columns_from(int i, const std::int16_t* row, const ColumnTable& table, std::uint8_t* pixels) {
  if (table.channels == 1) return sample_columns_from<1>(i, row, table, pixels);
  if (table.channels == 3) return sample_columns_from<3>(i, row, table, pixels);
  sample_columns_from<4>(i, row, table, pixels);
}

inline void copy_columns_from(int i, const std::uint8_t* row, int channels, int n, std::uint8_t* pixels) {
  if (channels == 4) {
    std::memcpy(pixels + 4 * i, row + 4 * i, 4 * static_cast<std::size_t>(n - i));
    return;
  }
  const int second = channels == 1 ? 0 : 1;
  const int third = channels == 1 ? 0 : 2;
  for (; i < n; ++i) {
    const std::uint8_t* source = row + static_cast<std::ptrdiff_t>(i) * channels;
    pixels[4 * i] = source[0];
    pixels[4 * i + 1] = source[second];
    pixels[4 * i + 2] = source[third];
    pixels[4 * i + 3] = 0;
  }
}

inline std::uint32_t clamp_to_byte(std::int32_t value) {
  return static_cast<std::uint32_t>(value < 0 ? 0 : value > 255 ? 255 : value);
}

// ITU-R BT.601, limited range, in 1/2^20: 255/219, and 255/224 times the chroma factors.
inline std::uint32_t yuv_pixel(std::int32_t y, std::int32_t u, std::int32_t v) {
  constexpr int kShift = 20;
  const std::int32_t luma = (y < 16 ? 0 : y - 16) * 1220542 + (1 << (kShift - 1));
  const std::int32_t b = luma + 2116026 * (u - 128);
  const std::int32_t g = luma - 409993 * (u - 128) - 852492 * (v - 128);
  const std::int32_t r = luma + 1673527 * (v - 128);
  return clamp_to_byte(b >> kShift) | clamp_to_byte(g >> kShift) << 8 | clamp_to_byte(r >> kShift) << 16;
}

template <int kYStep, int kChromaStep>
void yuv_pairs(const YuvRow& row, int pairs, std::uint8_t* __restrict pixels) {
  const std::ptrdiff_t y_step = kYStep == 0 ? row.y_step : kYStep;
  const std::ptrdiff_t chroma_step = kChromaStep == 0 ? row.chroma_step : kChromaStep;
  for (int i = 0; i < pairs; ++i) {
    const std::int32_t u = row.u[i * chroma_step];
    const std::int32_t v = row.v[i * chroma_step];
    store_pixel(pixels + 8 * i, yuv_pixel(row.y[2 * i * y_step], u, v));
    store_pixel(pixels + 8 * i + 4, yuv_pixel(row.y[(2 * i + 1) * y_step], u, v));
  }
}

// Luma apart from chroma first: compilers vectorise both halves, but not steps of 4.
inline void yuyv_pairs(const std::uint8_t* source, int pairs, std::uint8_t* pixels) {
  constexpr int kBlock = 128;
  std::uint8_t luma[2 * kBlock];
  std::uint8_t chroma[2 * kBlock];
  for (int begin = 0; begin < pairs; begin += kBlock) {
    const int count = pairs - begin < kBlock ? pairs - begin : kBlock;
    const std::uint8_t* from = source + static_cast<std::ptrdiff_t>(4) * begin;
    for (int i = 0; i < 2 * count; ++i) {
      luma[i] = from[2 * i];
      chroma[i] = from[2 * i + 1];
    }
    yuv_pairs<1, 2>({luma, chroma, chroma + 1, 1, 2}, count, pixels + static_cast<std::ptrdiff_t>(8) * begin);
  }
}

inline void yuv_to_pixels_any(const YuvRow& row, int pairs, std::uint8_t* pixels) {
  if (row.y_step == 1 && row.chroma_step == 1) return yuv_pairs<1, 1>(row, pairs, pixels);
  if (row.y_step == 1 && row.chroma_step == 2) return yuv_pairs<1, 2>(row, pairs, pixels);
  if (row.y_step == 2 && row.chroma_step == 4 && row.u == row.y + 1) return yuyv_pairs(row.y, pairs, pixels);
  yuv_pairs<0, 0>(row, pairs, pixels);
}

// ITU-R BT.601 luma, in 1/2^15.
inline void pixels_to_gray_any(std::uint8_t* pixels, int n, const ChannelOrder& bgr) {
  for (int i = 0; i < n; ++i) {
    const std::uint8_t* pixel = pixels + 4 * i;
    const std::uint32_t luma =
        (3735U * pixel[bgr.byte[0]] + 19235U * pixel[bgr.byte[1]] + 9798U * pixel[bgr.byte[2]] + (1U << 14)) >> 15;
    store_pixel(pixels + 4 * i, luma * 0x01010101U);
  }
}

// Calls body(i) for blocks of n, the last one overlapping its neighbour; false if n is less than a block.
template <int kBlock, typename Body>
bool for_blocks(int n, const Body& body) {
  if (n < kBlock) return false;
  int i = 0;
  for (; i + kBlock <= n; i += kBlock) body(i);
  if (i < n) body(n - kBlock);
  return true;
}

// As for_blocks, where a block also touches the next element: the last one ends before the last element, which is left,
// or all are. Returns how many are done.
template <int kBlock, typename Body>
int for_blocks_but_the_last(int n, const Body& body) {
  if (n <= kBlock) return 0;
  for (int i = 0; i + kBlock < n; i += kBlock) body(i);
  body(n - 1 - kBlock);
  return n - 1;
}

inline float to_float(std::uint8_t level, const LevelToFloat& map) {
  const float x = static_cast<float>(level) - map.mean;
  return std::fma(x, map.inverse_high, x * map.inverse_low);
}

inline void planar_uint8_from(int i, const std::uint8_t* pixels, int n, int byte, std::uint8_t flip,
                              std::uint8_t* out) {
  for (; i < n; ++i) out[i] = static_cast<std::uint8_t>(pixels[4 * i + byte] ^ flip);
}

inline int order_in_a_word(const ChannelOrder& order) {
  return order.byte[0] | order.byte[1] << 8 | order.byte[2] << 16;
}

// From pixels of so many bytes. The order is copied: what is written could be it, as far as a compiler sees.
template <int kPixel>
void packed_uint8_from(int i, const std::uint8_t* pixels, int n, const ChannelOrder& order, std::uint8_t flip,
                       std::uint8_t* out) {
  const ChannelOrder from = order;
  for (; i < n; ++i)
    for (int c = 0; c < 3; ++c) out[3 * i + c] = static_cast<std::uint8_t>(pixels[kPixel * i + from.byte[c]] ^ flip);
}

}  // namespace
}  // namespace edgepose
