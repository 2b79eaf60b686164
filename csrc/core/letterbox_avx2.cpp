#include <immintrin.h>

#include "core/letterbox_kernels.hpp"
#include "core/letterbox_kernels.inl"

namespace edgepose {
namespace {

__m128i load_128(const void* from) { return _mm_loadu_si128(static_cast<const __m128i*>(from)); }
__m256i load_256(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }
__m256i load_two_128(const void* low, const void* high) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(load_128(low)), load_128(high), 1);
}
void store_256(void* to, __m256i value) { _mm256_storeu_si256(static_cast<__m256i*>(to), value); }

// Unpacking works within 128-bit lanes: `low` holds elements 0-7 and 16-23, `high` 8-15 and 24-31.
void store_unpacked_rows(std::int16_t* out, __m256i low, __m256i high) {
  store_256(out, _mm256_permute2x128_si256(low, high, 0x20));
  store_256(out + 16, _mm256_permute2x128_si256(low, high, 0x31));
}

__m128i load_two_64(const std::uint8_t* row, const std::int32_t* starts) {
  const auto half = [&](int k) { return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(row + starts[k])); };
  return _mm_unpacklo_epi64(half(0), half(1));
}

__m128i load_eight_16(const std::uint8_t* row, const std::int32_t* starts) {
  const auto word = [&](int k) {
    std::int16_t value;
    std::memcpy(&value, row + starts[k], sizeof(value));
    return value;
  };
  return _mm_setr_epi16(word(0), word(1), word(2), word(3), word(4), word(5), word(6), word(7));
}

template <int kWindowBytes>
__m256i load_windows(const std::uint8_t* row, const std::int32_t* starts) {
  if (kWindowBytes == 16) return load_two_128(row + starts[0], row + starts[1]);
  const auto load = kWindowBytes == 8 ? load_two_64 : load_eight_16;
  return _mm256_inserti128_si256(_mm256_castsi128_si256(load(row, starts)), load(row, starts + 16 / kWindowBytes), 1);
}

// (near * weight + far * weight) >> 4 from pairs near, far: near * 128 + ((far - near) * weight >> 4). Products are
// negative ones, as 128 is no signed byte; so is the table's weight, times 32, for a weight of 1024.
__m256i sample_pairs(__m256i pairs, __m256i weights) {
  const __m256i near = _mm256_maddubs_epi16(pairs, _mm256_set1_epi16(0x0080));
  const __m256i far = _mm256_maddubs_epi16(pairs, _mm256_set1_epi16(static_cast<std::int16_t>(0x8000)));
  return _mm256_sub_epi16(_mm256_mulhi_epi16(_mm256_sub_epi16(far, near), weights), near);
}

template <int kWindowBytes>
void sample_windows(const std::uint8_t* row, const WindowTable& table, std::int16_t* __restrict out) {
  constexpr int kWindows = 32 / kWindowBytes;
  const std::int32_t* __restrict starts = table.starts;
  const std::uint8_t* __restrict indices = table.indices;
  const std::int16_t* __restrict weights = table.weights;
  const int outputs = table.outputs;
  for (int i = 0; i < outputs; i += 16, starts += kWindows) {
    const __m256i pairs = _mm256_shuffle_epi8(load_windows<kWindowBytes>(row, starts), load_256(indices + 2 * i));
    store_256(out + i, sample_pairs(pairs, load_256(weights + i)));
  }
}

void blend_rows(const std::int16_t* above, const std::int16_t* below, std::int16_t above_weight,
                std::int16_t below_weight, std::uint8_t* levels, int n) {
  const __m256i first_weight = _mm256_set1_epi16(above_weight);
  const __m256i second_weight = _mm256_set1_epi16(below_weight);
  const __m256i half = _mm256_set1_epi16(2);
  const auto blend = [&](int i) {
    const __m256i first = _mm256_mulhi_epi16(load_256(above + i), first_weight);
    const __m256i second = _mm256_mulhi_epi16(load_256(below + i), second_weight);
    return _mm256_srli_epi16(_mm256_add_epi16(_mm256_add_epi16(first, second), half), 2);
  };
  for (int i = 0; i < n; i += 32)
    store_256(levels + i, _mm256_permute4x64_epi64(_mm256_packus_epi16(blend(i), blend(i + 16)), 0xD8));
}

__m256i to_row_fraction(__m256i low, __m256i high) {
  constexpr int kShift = kWeightBits - kRowFractionBits;
  return _mm256_packs_epi32(_mm256_srai_epi32(low, kShift), _mm256_srai_epi32(high, kShift));
}

void weigh_rows(const std::uint8_t* const* rows, const std::int16_t* weights, int taps, std::int16_t* out, int n) {
  const __m256i zero = _mm256_setzero_si256();
  int i = 0;
  for (; i + 32 <= n; i += 32) {
    __m256i sums[4];
    for (__m256i& sum : sums) sum = _mm256_set1_epi32(1 << (kWeightBits - kRowFractionBits - 1));
    for (int tap = 0; tap < taps; tap += 2) {
      const bool paired = tap + 1 < taps;
      const std::uint16_t second_weight = paired ? static_cast<std::uint16_t>(weights[tap + 1]) : std::uint16_t{0};
      const __m256i weight = _mm256_set1_epi32(
          static_cast<int>(static_cast<std::uint16_t>(weights[tap]) | static_cast<std::uint32_t>(second_weight) << 16));
      const __m256i first = load_256(rows[tap] + i);
      const __m256i second = load_256(rows[paired ? tap + 1 : tap] + i);
      const __m256i low = _mm256_unpacklo_epi8(first, second);
      const __m256i high = _mm256_unpackhi_epi8(first, second);
      sums[0] = _mm256_add_epi32(sums[0], _mm256_madd_epi16(_mm256_unpacklo_epi8(low, zero), weight));
      sums[1] = _mm256_add_epi32(sums[1], _mm256_madd_epi16(_mm256_unpackhi_epi8(low, zero), weight));
      sums[2] = _mm256_add_epi32(sums[2], _mm256_madd_epi16(_mm256_unpacklo_epi8(high, zero), weight));
      sums[3] = _mm256_add_epi32(sums[3], _mm256_madd_epi16(_mm256_unpackhi_epi8(high, zero), weight));
    }
    store_unpacked_rows(out + i, to_row_fraction(sums[0], sums[1]), to_row_fraction(sums[2], sums[3]));
  }
  weigh_rows_from(i, rows, weights, taps, out, n);
}

// Two output columns, one a lane, as four sums each. The neighbours' channels are brought together by a byte shuffle.
template <int kChannels>
__m256i sample_two(const std::int16_t* row, const ColumnTable& table, int i) {
  constexpr char kNone = -1;
  const __m256i pairs = kChannels == 3
                            ? _mm256_setr_epi8(0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11, kNone, kNone, kNone, kNone, 0, 1,
                                               6, 7, 2, 3, 8, 9, 4, 5, 10, 11, kNone, kNone, kNone, kNone)
                            : _mm256_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15, 0, 1, 8, 9, 2, 3,
                                               10, 11, 4, 5, 12, 13, 6, 7, 14, 15);
  const std::int16_t* left = row + table.offsets[i];
  const std::int16_t* right = row + table.offsets[i + 1];
  const std::int16_t* left_weights = table.weights + static_cast<std::ptrdiff_t>(i) * table.tap_pairs * 8;
  const std::int16_t* right_weights = left_weights + static_cast<std::ptrdiff_t>(table.tap_pairs) * 8;
  __m256i sum = _mm256_setzero_si256();
  for (int pair = 0; pair < table.tap_pairs; ++pair) {
    const std::ptrdiff_t at = pair * 2 * kChannels;
    const __m256i values = _mm256_shuffle_epi8(load_two_128(left + at, right + at), pairs);
    const __m256i weights = load_two_128(left_weights + pair * 8, right_weights + pair * 8);
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(values, weights));
  }
  return sum;
}

// Sums of two columns each to 16-bit levels with 6 fraction bits, then rounded: together the rounding of the plain
// loop.
__m256i round_to_levels(__m256i a, __m256i b) {
  const __m256i row = _mm256_packs_epi32(_mm256_srai_epi32(a, kWeightBits), _mm256_srai_epi32(b, kWeightBits));
  return _mm256_mulhrs_epi16(row, _mm256_set1_epi16(1 << (15 - kRowFractionBits)));
}

template <int kChannels>
void sample_pixels(const std::int16_t* row, const ColumnTable& table, std::uint8_t* pixels) {
  const __m256i in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  for (int i = 0; i < table.columns; i += 8) {
    const __m256i a = sample_two<kChannels>(row, table, i);
    const __m256i b = sample_two<kChannels>(row, table, i + 2);
    const __m256i c = sample_two<kChannels>(row, table, i + 4);
    const __m256i d = sample_two<kChannels>(row, table, i + 6);
    const __m256i bytes = _mm256_packus_epi16(round_to_levels(a, b), round_to_levels(c, d));
    store_256(pixels + 4 * i, _mm256_permutevar8x32_epi32(bytes, in_order));
  }
}

void store_gray(std::uint8_t* pixels, __m256i sums) {
  const __m256i spread = _mm256_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12, 0, 0, 0, 0, 4, 4, 4, 4, 8,
                                          8, 8, 8, 12, 12, 12, 12);
  const __m256i half = _mm256_set1_epi32(1 << (kWeightBits + kRowFractionBits - 1));
  const __m256i level = _mm256_srai_epi32(_mm256_add_epi32(sums, half), kWeightBits + kRowFractionBits);
  store_256(pixels, _mm256_shuffle_epi8(level, spread));
}

void sample_gray(const std::int16_t* row, const ColumnTable& table, std::uint8_t* pixels) {
  const __m256i indices = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i stride = _mm256_mullo_epi32(indices, _mm256_set1_epi32(table.tap_pairs));
  for (int i = 0; i < table.columns; i += 8) {
    const __m256i offsets = load_256(table.offsets + i);
    const auto* weights =
        reinterpret_cast<const int*>(table.weights + static_cast<std::ptrdiff_t>(i) * table.tap_pairs * 2);
    __m256i sum = _mm256_setzero_si256();
    for (int pair = 0; pair < table.tap_pairs; ++pair) {
      const __m256i values = _mm256_i32gather_epi32(reinterpret_cast<const int*>(row + 2 * pair), offsets, 2);
      const __m256i weight = _mm256_i32gather_epi32(weights + pair, stride, 4);
      sum = _mm256_add_epi32(sum, _mm256_madd_epi16(values, weight));
    }
    store_gray(pixels + 4 * i, sum);
  }
}

void sample_columns(const std::int16_t* row, const ColumnTable& table, std::uint8_t* pixels) {
  if (table.channels == 1) return sample_gray(row, table, pixels);
  table.channels == 3 ? sample_pixels<3>(row, table, pixels) : sample_pixels<4>(row, table, pixels);
}

void copy_columns(const std::uint8_t* row, int channels, int n, std::uint8_t* pixels) {
  int i = 0;
  if (channels == 3) {
    const __m256i spread = _mm256_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1, 0, 1, 2, -1, 3, 4, 5,
                                            -1, 6, 7, 8, -1, 9, 10, 11, -1);
    for (; 3 * i + 28 <= 3 * n; i += 8)
      store_256(pixels + 4 * i, _mm256_shuffle_epi8(load_two_128(row + 3 * i, row + 3 * i + 12), spread));
  } else if (channels == 1) {
    for (; i + 8 <= n; i += 8) {
      const __m256i levels = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(row + i)));
      store_256(pixels + 4 * i, _mm256_mullo_epi32(levels, _mm256_set1_epi32(0x01010101)));
    }
  }
  copy_columns_from(i, row, channels, n, pixels);
}

struct FloatMap {
  __m256 mean, inverse_high, inverse_low;
  explicit FloatMap(const LevelToFloat& map)
      : mean(_mm256_set1_ps(map.mean)),
        inverse_high(_mm256_set1_ps(map.inverse_high)),
        inverse_low(_mm256_set1_ps(map.inverse_low)) {}
  __m256 operator()(__m256i levels) const {
    const __m256 x = _mm256_sub_ps(_mm256_cvtepi32_ps(levels), mean);
    return _mm256_fmadd_ps(x, inverse_high, _mm256_mul_ps(x, inverse_low));
  }
};

// Eight levels of one channel as 32-bit integers.
__m256i channel_levels(const std::uint8_t* pixels, __m128i shift) {
  return _mm256_and_si256(_mm256_srl_epi32(load_256(pixels), shift), _mm256_set1_epi32(0xFF));
}

void planar_float32(const std::uint8_t* pixels, int n, int byte, const LevelToFloat& map, float* out) {
  const FloatMap to_real(map);
  const __m128i shift = _mm_cvtsi32_si128(8 * byte);
  const auto body = [&](int i) { _mm256_storeu_ps(out + i, to_real(channel_levels(pixels + 4 * i, shift))); };
  if (for_blocks<8>(n, body)) return;
  for (int i = 0; i < n; ++i) out[i] = to_float(pixels[4 * i + byte], map);
}

void planar_float16(const std::uint8_t* pixels, int n, int byte, const LevelToFloat& map, std::uint16_t* out) {
  const FloatMap to_real(map);
  const __m128i shift = _mm_cvtsi32_si128(8 * byte);
  const auto half = [&](int i) {
    return _mm256_cvtps_ph(to_real(channel_levels(pixels + 4 * i, shift)), _MM_FROUND_TO_NEAREST_INT);
  };
  const auto body = [&](int i) { _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), half(i)); };
  if (for_blocks<8>(n, body)) return;
  for (int i = 0; i < n; ++i)
    out[i] = static_cast<std::uint16_t>(_cvtss_sh(to_float(pixels[4 * i + byte], map), _MM_FROUND_TO_NEAREST_INT));
}

void planar_uint8(const std::uint8_t* pixels, int n, int byte, std::uint8_t flip, std::uint8_t* out) {
  const __m128i shift = _mm_cvtsi32_si128(8 * byte);
  const __m256i in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  const __m256i flips = _mm256_set1_epi8(static_cast<char>(flip));
  const auto body = [&](int i) {
    const std::uint8_t* at = pixels + 4 * i;
    const __m256i low = _mm256_packs_epi32(channel_levels(at, shift), channel_levels(at + 32, shift));
    const __m256i high = _mm256_packs_epi32(channel_levels(at + 64, shift), channel_levels(at + 96, shift));
    const __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), in_order);
    store_256(out + i, _mm256_xor_si256(bytes, flips));
  };
  if (!for_blocks<32>(n, body)) planar_uint8_from(0, pixels, n, byte, flip, out);
}

// The model's channels of four pixels of 4 bytes a lane; the last 4 bytes zero.
__m256i packing_shuffle(const ChannelOrder& order) {
  const __m128i channels = _mm_setr_epi8(0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, -1, -1, -1, -1);
  const __m128i starts = _mm_setr_epi8(0, 0, 0, 4, 4, 4, 8, 8, 8, 12, 12, 12, -128, -128, -128, -128);
  const __m128i in_pixel = _mm_shuffle_epi8(_mm_set1_epi32(order_in_a_word(order)), channels);
  return _mm256_broadcastsi128_si256(_mm_add_epi8(in_pixel, starts));
}

void packed_uint8(const std::uint8_t* pixels, int n, const ChannelOrder& order, std::uint8_t flip, std::uint8_t* out) {
  const __m256i shuffle = packing_shuffle(order);
  const __m256i together = _mm256_setr_epi32(0, 1, 2, 4, 5, 6, 3, 7);
  const __m256i flips = _mm256_set1_epi8(static_cast<char>(flip));
  const auto body = [&](int i) {
    const __m256i in_lanes = _mm256_shuffle_epi8(load_256(pixels + 4 * i), shuffle);
    const __m256i packed = _mm256_xor_si256(_mm256_permutevar8x32_epi32(in_lanes, together), flips);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 3 * i), _mm256_castsi256_si128(packed));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(out + 3 * i + 16), _mm256_extracti128_si256(packed, 1));
  };
  if (!for_blocks<8>(n, body)) packed_uint8_from<4>(0, pixels, n, order, flip, out);
}

// Eight interleaved values, of which the first belongs to channel `first`.
struct InterleavedFloatMap {
  __m256 mean, inverse_high, inverse_low;
  InterleavedFloatMap(const LevelToFloat* maps, int first) {
    float values[3][8];
    for (int k = 0; k < 8; ++k) {
      const LevelToFloat& map = maps[(first + k) % 3];
      values[0][k] = map.mean;
      values[1][k] = map.inverse_high;
      values[2][k] = map.inverse_low;
    }
    mean = _mm256_loadu_ps(values[0]);
    inverse_high = _mm256_loadu_ps(values[1]);
    inverse_low = _mm256_loadu_ps(values[2]);
  }
  __m256 operator()(__m128i levels) const {
    const __m256 x = _mm256_sub_ps(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(levels)), mean);
    return _mm256_fmadd_ps(x, inverse_high, _mm256_mul_ps(x, inverse_low));
  }
};

void packed_float32(const std::uint8_t* pixels, int n, const ChannelOrder& order, const LevelToFloat* maps,
                    float* out) {
  const __m256i shuffle = packing_shuffle(order);
  const __m256i together = _mm256_setr_epi32(0, 1, 2, 4, 5, 6, 3, 7);
  const InterleavedFloatMap front(maps, 0);
  const InterleavedFloatMap middle(maps, 2);
  const InterleavedFloatMap back(maps, 1);
  const auto body = [&](int i) {
    const __m256i packed =
        _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(load_256(pixels + 4 * i), shuffle), together);
    const __m128i low = _mm256_castsi256_si128(packed);
    float* to = out + 3 * i;
    _mm256_storeu_ps(to, front(low));
    _mm256_storeu_ps(to + 8, middle(_mm_srli_si128(low, 8)));
    _mm256_storeu_ps(to + 16, back(_mm256_extracti128_si256(packed, 1)));
  };
  if (for_blocks<8>(n, body)) return;
  for (int i = 0; i < n; ++i)
    for (int c = 0; c < 3; ++c) out[3 * i + c] = to_float(pixels[4 * i + order.byte[c]], maps[c]);
}

void reordered_uint8(const std::uint8_t* row, int n, const ChannelOrder& order, std::uint8_t flip, std::uint8_t* out) {
  const __m128i channels = _mm_setr_epi8(0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, -1);
  const __m128i starts = _mm_setr_epi8(0, 0, 0, 3, 3, 3, 6, 6, 6, 9, 9, 9, 12, 12, 12, -128);
  const __m128i in_pixel = _mm_shuffle_epi8(_mm_set1_epi32(order_in_a_word(order)), channels);
  const __m256i shuffle = _mm256_broadcastsi128_si256(_mm_add_epi8(in_pixel, starts));
  const __m256i flips = _mm256_set1_epi8(static_cast<char>(flip));
  const int done =
      for_blocks_but_the_last<10>(n, [&](int i) {  // five pixels a lane; a sixteenth byte is read and written
        const __m256i source = load_two_128(row + 3 * i, row + 3 * i + 15);
        const __m256i packed = _mm256_xor_si256(_mm256_shuffle_epi8(source, shuffle), flips);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 3 * i), _mm256_castsi256_si128(packed));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 3 * i + 15), _mm256_extracti128_si256(packed, 1));
      });
  packed_uint8_from<3>(done, row, n, order, flip, out);
}

}  // namespace

const LetterboxKernels& letterbox_kernels_avx2() {
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
