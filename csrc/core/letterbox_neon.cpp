#include <arm_neon.h>

#include "core/letterbox_kernels.hpp"
#include "core/letterbox_kernels.inl"

namespace edgepose {
namespace {

// (near * weight + far * weight) >> 4: near * 128 + ((far - near) * weight >> 4). The table's weight is times -32, the
// multiplication doubles and takes the upper half.
int16x8_t sample_pairs(uint8x16_t pairs, int16x8_t weights) {
  const uint16x8_t words = vreinterpretq_u16_u8(pairs);
  const uint16x8_t near = vshlq_n_u16(vandq_u16(words, vdupq_n_u16(0xFF)), 6);
  const uint16x8_t far = vshlq_n_u16(vshrq_n_u16(words, 8), 6);
  const int16x8_t difference = vreinterpretq_s16_u16(vsubq_u16(near, far));
  return vaddq_s16(vreinterpretq_s16_u16(vshlq_n_u16(near, 1)), vqdmulhq_s16(difference, weights));
}

template <int kWindowBytes>
uint8x16_t load_windows(const std::uint8_t* row, const std::int32_t* starts) {
  if (kWindowBytes == 16) return vld1q_u8(row + starts[0]);
  constexpr int kWindows = 16 / kWindowBytes;
  std::uint8_t windows[16];
  for (int k = 0; k < kWindows; ++k) std::memcpy(windows + k * kWindowBytes, row + starts[k], kWindowBytes);
  return vld1q_u8(windows);
}

template <int kWindowBytes>
void sample_windows(const std::uint8_t* row, const WindowTable& table, std::int16_t* __restrict out) {
  const std::int32_t* __restrict starts = table.starts;
  const std::uint8_t* __restrict indices = table.indices;
  const std::int16_t* __restrict weights = table.weights;
  const int outputs = table.outputs;
  for (int i = 0; i < outputs; i += 8, starts += 16 / kWindowBytes) {
    const uint8x16_t pairs = vqtbl1q_u8(load_windows<kWindowBytes>(row, starts), vld1q_u8(indices + 2 * i));
    vst1q_s16(out + i, sample_pairs(pairs, vld1q_s16(weights + i)));
  }
}

// The multiplications double: of twice the product's upper half the half is taken, which rounds down once.
int16x8_t blend_eight(const std::int16_t* above, const std::int16_t* below, std::int16_t above_weight,
                      std::int16_t below_weight) {
  const int16x8_t first = vqdmulhq_n_s16(vld1q_s16(above), above_weight);
  const int16x8_t second = vqdmulhq_n_s16(vld1q_s16(below), below_weight);
  return vsraq_n_s16(vshrq_n_s16(first, 1), second, 1);
}

void blend_rows(const std::int16_t* above, const std::int16_t* below, std::int16_t above_weight,
                std::int16_t below_weight, std::uint8_t* levels, int n) {
  for (int i = 0; i < n; i += 16) {
    const int16x8_t low = blend_eight(above + i, below + i, above_weight, below_weight);
    const int16x8_t high = blend_eight(above + i + 8, below + i + 8, above_weight, below_weight);
    vst1q_u8(levels + i, vcombine_u8(vqrshrun_n_s16(low, 2), vqrshrun_n_s16(high, 2)));
  }
}

void weigh_rows(const std::uint8_t* const* rows, const std::int16_t* weights, int taps, std::int16_t* out, int n) {
  int i = 0;
  for (; i + 16 <= n; i += 16) {
    int32x4_t sums[4] = {vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0)};
    for (int tap = 0; tap < taps; ++tap) {
      const uint8x16_t row = vld1q_u8(rows[tap] + i);
      const int16x8_t low = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(row)));
      const int16x8_t high = vreinterpretq_s16_u16(vmovl_u8(vget_high_u8(row)));
      sums[0] = vmlal_n_s16(sums[0], vget_low_s16(low), weights[tap]);
      sums[1] = vmlal_n_s16(sums[1], vget_high_s16(low), weights[tap]);
      sums[2] = vmlal_n_s16(sums[2], vget_low_s16(high), weights[tap]);
      sums[3] = vmlal_n_s16(sums[3], vget_high_s16(high), weights[tap]);
    }
    constexpr int kShift = kWeightBits - kRowFractionBits;
    vst1q_s16(out + i, vcombine_s16(vrshrn_n_s32(sums[0], kShift), vrshrn_n_s32(sums[1], kShift)));
    vst1q_s16(out + i + 8, vcombine_s16(vrshrn_n_s32(sums[2], kShift), vrshrn_n_s32(sums[3], kShift)));
  }
  weigh_rows_from(i, rows, weights, taps, out, n);
}

// One output column's four channels with 6 fraction bits.
template <int kChannels>
int16x4_t sample_one(const std::int16_t* row, const ColumnTable& table, int i) {
  const std::int16_t* source = row + table.offsets[i];
  const std::int16_t* weights = table.weights + static_cast<std::ptrdiff_t>(i) * table.tap_pairs * 8;
  int32x4_t sum = vdupq_n_s32(0);
  for (int pair = 0; pair < table.tap_pairs; ++pair, source += 2 * kChannels, weights += 8) {
    const int16x4x2_t weight = vld2_s16(weights);
    sum = vmlal_s16(sum, vld1_s16(source), weight.val[0]);
    sum = vmlal_s16(sum, vld1_s16(source + kChannels), weight.val[1]);
  }
  return vshrn_n_s32(sum, kWeightBits);
}

template <int kChannels>
void sample_pixels(const std::int16_t* row, const ColumnTable& table, std::uint8_t* pixels) {
  for (int i = 0; i < table.columns; i += 2) {
    const int16x8_t two = vcombine_s16(sample_one<kChannels>(row, table, i), sample_one<kChannels>(row, table, i + 1));
    vst1_u8(pixels + 4 * i, vqrshrun_n_s16(two, kRowFractionBits));
  }
}

void sample_columns(const std::int16_t* row, const ColumnTable& table, std::uint8_t* pixels) {
  if (table.channels == 3) return sample_pixels<3>(row, table, pixels);
  if (table.channels == 4) return sample_pixels<4>(row, table, pixels);
  sample_columns_from(0, row, table, pixels);
}

void copy_columns(const std::uint8_t* row, int channels, int n, std::uint8_t* pixels) {
  int i = 0;
  if (channels == 3) {
    for (; i + 16 <= n; i += 16) {
      const uint8x16x3_t source = vld3q_u8(row + 3 * i);
      const uint8x16x4_t pixel = {{source.val[0], source.val[1], source.val[2], vdupq_n_u8(0)}};
      vst4q_u8(pixels + 4 * i, pixel);
    }
  } else if (channels == 1) {
    for (; i + 16 <= n; i += 16) {
      const uint8x16_t level = vld1q_u8(row + i);
      const uint8x16x4_t pixel = {{level, level, level, level}};
      vst4q_u8(pixels + 4 * i, pixel);
    }
  }
  copy_columns_from(i, row, channels, n, pixels);
}

struct FloatMap {
  float32x4_t mean, inverse_high, inverse_low;
  explicit FloatMap(const LevelToFloat& map)
      : mean(vdupq_n_f32(map.mean)),
        inverse_high(vdupq_n_f32(map.inverse_high)),
        inverse_low(vdupq_n_f32(map.inverse_low)) {}
  float32x4_t operator()(uint32x4_t levels) const {
    const float32x4_t x = vsubq_f32(vcvtq_f32_u32(levels), mean);
    return vfmaq_f32(vmulq_f32(x, inverse_low), x, inverse_high);
  }
};

// Four levels of one channel as 32-bit integers. A negative `shift` goes right.
uint32x4_t channel_levels(const std::uint8_t* pixels, int32x4_t shift) {
  const uint32x4_t pixel = vreinterpretq_u32_u8(vld1q_u8(pixels));
  return vandq_u32(vshlq_u32(pixel, shift), vdupq_n_u32(0xFF));
}

void planar_float32(const std::uint8_t* pixels, int n, int byte, const LevelToFloat& map, float* out) {
  const FloatMap to_real(map);
  const int32x4_t shift = vdupq_n_s32(-8 * byte);
  const auto body = [&](int i) { vst1q_f32(out + i, to_real(channel_levels(pixels + 4 * i, shift))); };
  if (for_blocks<4>(n, body)) return;
  for (int i = 0; i < n; ++i) out[i] = to_float(pixels[4 * i + byte], map);
}

void planar_float16(const std::uint8_t* pixels, int n, int byte, const LevelToFloat& map, std::uint16_t* out) {
  const FloatMap to_real(map);
  const int32x4_t shift = vdupq_n_s32(-8 * byte);
  const auto half = [](float32x4_t real) { return vreinterpret_u16_f16(vcvt_f16_f32(real)); };
  const auto body = [&](int i) { vst1_u16(out + i, half(to_real(channel_levels(pixels + 4 * i, shift)))); };
  if (for_blocks<4>(n, body)) return;
  for (int i = 0; i < n; ++i) out[i] = vget_lane_u16(half(vdupq_n_f32(to_float(pixels[4 * i + byte], map))), 0);
}

void planar_uint8(const std::uint8_t* pixels, int n, int byte, std::uint8_t flip, std::uint8_t* out) {
  const uint8x16_t flips = vdupq_n_u8(flip);
  const auto body = [&](int i) {
    const uint8x16x4_t pixel = vld4q_u8(pixels + 4 * i);
    const uint8x16_t level = byte == 0   ? pixel.val[0]
                             : byte == 1 ? pixel.val[1]
                             : byte == 2 ? pixel.val[2]
                                         : pixel.val[3];
    vst1q_u8(out + i, veorq_u8(level, flips));
  };
  if (!for_blocks<16>(n, body)) planar_uint8_from(0, pixels, n, byte, flip, out);
}

// Four pixels to 12 bytes, the last 4 of the 16 zero.
uint8x16_t packing_shuffle(const ChannelOrder& order) {
  std::uint8_t shuffle[16];
  for (int k = 0; k < 16; ++k) shuffle[k] = k < 12 ? static_cast<std::uint8_t>(k / 3 * 4 + order.byte[k % 3]) : 255;
  return vld1q_u8(shuffle);
}

void packed_uint8(const std::uint8_t* pixels, int n, const ChannelOrder& order, std::uint8_t flip, std::uint8_t* out) {
  const uint8x16_t shuffle = packing_shuffle(order);
  const uint8x16_t flips = vdupq_n_u8(flip);
  int i = 0;
  for (; 3 * i + 16 <= 3 * n; i += 4)  // stores 16 bytes, 12 of them final
    vst1q_u8(out + 3 * i, veorq_u8(vqtbl1q_u8(vld1q_u8(pixels + 4 * i), shuffle), flips));
  packed_uint8_from<4>(i, pixels, n, order, flip, out);
}

void packed_float32(const std::uint8_t* pixels, int n, const ChannelOrder& order, const LevelToFloat* maps,
                    float* out) {
  const FloatMap to_real[3] = {FloatMap(maps[0]), FloatMap(maps[1]), FloatMap(maps[2])};
  const int32x4_t shifts[3] = {vdupq_n_s32(-8 * order.byte[0]), vdupq_n_s32(-8 * order.byte[1]),
                               vdupq_n_s32(-8 * order.byte[2])};
  const auto body = [&](int i) {
    float32x4x3_t real;
    for (int c = 0; c < 3; ++c) real.val[c] = to_real[c](channel_levels(pixels + 4 * i, shifts[c]));
    vst3q_f32(out + 3 * i, real);
  };
  if (for_blocks<4>(n, body)) return;
  for (int i = 0; i < n; ++i)
    for (int c = 0; c < 3; ++c) out[3 * i + c] = to_float(pixels[4 * i + order.byte[c]], maps[c]);
}

void reordered_uint8(const std::uint8_t* row, int n, const ChannelOrder& order, std::uint8_t flip, std::uint8_t* out) {
  const uint8x16_t flips = vdupq_n_u8(flip);
  const auto body = [&](int i) {
    const uint8x16x3_t source = vld3q_u8(row + 3 * i);
    uint8x16x3_t packed;
    for (int c = 0; c < 3; ++c) packed.val[c] = veorq_u8(source.val[order.byte[c]], flips);
    vst3q_u8(out + 3 * i, packed);
  };
  if (!for_blocks<16>(n, body)) packed_uint8_from<3>(0, row, n, order, flip, out);
}

}  // namespace

const LetterboxKernels& letterbox_kernels_neon() {
  static constexpr LetterboxKernels kKernels = {
      {{16, 8, sample_windows<16>}, {8, 4, sample_windows<8>}, {2, 1, sample_windows<2>}},
      blend_rows,
      weigh_rows,
      sample_columns,
      copy_columns,
      yuv_to_pixels_any,
      pixels_to_gray_any,
      planar_float32,
      planar_float16,
      planar_uint8,
      packed_float32,
      packed_uint8,
      reordered_uint8,
  };
  return kKernels;
}

}  // namespace edgepose
