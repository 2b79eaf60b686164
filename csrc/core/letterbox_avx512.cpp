#include <immintrin.h>

#include <algorithm>
#include <iterator>

#include "core/letterbox_kernels.hpp"
#include "core/letterbox_kernels.inl"

namespace edgepose {
namespace {

__m512i load_512(const void* from) { return _mm512_loadu_si512(from); }
void store_512(void* to, __m512i value) { _mm512_storeu_si512(to, value); }

// As in the AVX2 loops.
__m512i sample_pairs(__m512i pairs, __m512i weights) {
  const __m512i near = _mm512_maddubs_epi16(pairs, _mm512_set1_epi16(0x0080));
  const __m512i far = _mm512_maddubs_epi16(pairs, _mm512_set1_epi16(static_cast<std::int16_t>(0x8000)));
  return _mm512_sub_epi16(_mm512_mulhi_epi16(_mm512_sub_epi16(far, near), weights), near);
}

// One window for 32 outputs.
__attribute__((target("avx512vbmi"))) void sample_wide_windows(const std::uint8_t* row, const WindowTable& table,
                                                               std::int16_t* __restrict out) {
  const std::int32_t* __restrict starts = table.starts;
  const std::uint8_t* __restrict indices = table.indices;
  const std::int16_t* __restrict weights = table.weights;
  const int outputs = table.outputs;
  for (int i = 0; i < outputs; i += 64, starts += 2) {
    const __m512i first = _mm512_permutexvar_epi8(load_512(indices + 2 * i), load_512(row + starts[0]));
    const __m512i second = _mm512_permutexvar_epi8(load_512(indices + 2 * i + 64), load_512(row + starts[1]));
    store_512(out + i, sample_pairs(first, load_512(weights + i)));
    store_512(out + i + 32, sample_pairs(second, load_512(weights + i + 32)));
  }
}

void sample_windows(const std::uint8_t* row, const WindowTable& table, std::int16_t* __restrict out) {
  const std::int32_t* __restrict starts = table.starts;
  const std::uint8_t* __restrict indices = table.indices;
  const std::int16_t* __restrict weights = table.weights;
  const int outputs = table.outputs;
  const auto window = [row](std::int32_t start) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(row + start));
  };
  for (int i = 0; i < outputs; i += 32, starts += 4) {
    __m512i source = _mm512_castsi128_si512(window(starts[0]));
    source = _mm512_mask_broadcast_i32x4(source, 0x00F0, window(starts[1]));
    source = _mm512_mask_broadcast_i32x4(source, 0x0F00, window(starts[2]));
    source = _mm512_mask_broadcast_i32x4(source, 0xF000, window(starts[3]));
    const __m512i pairs = _mm512_shuffle_epi8(source, load_512(indices + 2 * i));
    store_512(out + i, sample_pairs(pairs, load_512(weights + i)));
  }
}

void blend_rows(const std::int16_t* above, const std::int16_t* below, std::int16_t above_weight,
                std::int16_t below_weight, std::uint8_t* levels, int n) {
  const __m512i first_weight = _mm512_set1_epi16(above_weight);
  const __m512i second_weight = _mm512_set1_epi16(below_weight);
  const __m512i half = _mm512_set1_epi16(2);
  const __m512i in_order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
  const auto blend = [&](int i) {
    const __m512i first = _mm512_mulhi_epi16(load_512(above + i), first_weight);
    const __m512i second = _mm512_mulhi_epi16(load_512(below + i), second_weight);
    return _mm512_srli_epi16(_mm512_add_epi16(_mm512_add_epi16(first, second), half), 2);
  };
  for (int i = 0; i < n; i += 64)
    store_512(levels + i, _mm512_permutexvar_epi64(in_order, _mm512_packus_epi16(blend(i), blend(i + 32))));
}

void planar_float32(const std::uint8_t* pixels, int n, int byte, const LevelToFloat& map, float* out) {
  const __m128i shift = _mm_cvtsi32_si128(8 * byte);
  const __m512 mean = _mm512_set1_ps(map.mean);
  const __m512 inverse_high = _mm512_set1_ps(map.inverse_high);
  const __m512 inverse_low = _mm512_set1_ps(map.inverse_low);
  for (int i = 0; i < n; i += 16) {
    const __m512i level = _mm512_and_si512(_mm512_srl_epi32(load_512(pixels + 4 * i), shift), _mm512_set1_epi32(0xFF));
    const __m512 x = _mm512_sub_ps(_mm512_cvtepi32_ps(level), mean);
    const __m512 real = _mm512_fmadd_ps(x, inverse_high, _mm512_mul_ps(x, inverse_low));
    const int left = n - i;
    if (left >= 16)
      _mm512_storeu_ps(out + i, real);
    else
      _mm512_mask_storeu_ps(out + i, static_cast<__mmask16>((1U << left) - 1), real);
  }
}

void packed_uint8(const std::uint8_t* pixels, int n, const ChannelOrder& order, std::uint8_t flip, std::uint8_t* out) {
  const __m128i channels = _mm_setr_epi8(0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, -1, -1, -1, -1);
  const __m128i starts = _mm_setr_epi8(0, 0, 0, 4, 4, 4, 8, 8, 8, 12, 12, 12, -128, -128, -128, -128);
  const __m128i in_pixel = _mm_shuffle_epi8(_mm_set1_epi32(order_in_a_word(order)), channels);
  const __m512i shuffle = _mm512_broadcast_i32x4(_mm_add_epi8(in_pixel, starts));
  const __m512i together = _mm512_setr_epi32(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 3, 7, 11, 15);
  const __m512i flips = _mm512_set1_epi8(static_cast<char>(flip));
  for (int i = 0; i < n; i += 16) {
    const __m512i in_lanes = _mm512_shuffle_epi8(load_512(pixels + 4 * i), shuffle);
    const __m512i packed = _mm512_xor_si512(_mm512_permutexvar_epi32(together, in_lanes), flips);
    const int left = 3 * (n - i);
    if (left >= 64)  // 48 bytes are final
      store_512(out + 3 * i, packed);
    else
      _mm512_mask_storeu_epi8(out + 3 * i, (std::uint64_t{1} << std::min(left, 48)) - 1, packed);
  }
}

// Where in a row of 3 bytes a pixel the pixel of each byte begins.
struct PixelStarts {
  std::uint8_t byte[64];
  constexpr PixelStarts() : byte{} {
    for (int k = 0; k < 64; ++k) byte[k] = static_cast<std::uint8_t>(k / 3 * 3);
  }
};
constexpr PixelStarts kPixelStarts;
constexpr __mmask64 kEveryThird = 0x9249249249249249;

__attribute__((target("avx512vbmi"))) void reordered_uint8(const std::uint8_t* row, int n, const ChannelOrder& order,
                                                           std::uint8_t flip, std::uint8_t* out) {
  __m512i shuffle = load_512(kPixelStarts.byte);
  for (int c = 0; c < 3; ++c)
    shuffle =
        _mm512_mask_add_epi8(shuffle, kEveryThird << c, shuffle, _mm512_set1_epi8(static_cast<char>(order.byte[c])));
  const __m512i flips = _mm512_set1_epi8(static_cast<char>(flip));
  // Blocks of 21 pixels and the first byte of the next one; the last block ends before the last pixel.
  const int last = n - 22;
  for (int i = 0; i <= last; i = i < last ? std::min(i + 21, last) : n)
    store_512(out + 3 * i, _mm512_xor_si512(_mm512_permutexvar_epi8(shuffle, load_512(row + 3 * i)), flips));
  packed_uint8_from<3>(last < 0 ? 0 : n - 1, row, n, order, flip, out);
}

}  // namespace

const LetterboxKernels& letterbox_kernels_avx512() {
  static const LetterboxKernels kKernels = [] {
    LetterboxKernels kernels = letterbox_kernels_avx2();
    kernels.window_samplers[0] = {16, 8, sample_windows};
    if (__builtin_cpu_supports("avx512vbmi")) {
      std::rotate(std::begin(kernels.window_samplers), std::end(kernels.window_samplers) - 1,
                  std::end(kernels.window_samplers));
      kernels.window_samplers[0] = {64, 32, sample_wide_windows};
      kernels.reordered_uint8 = reordered_uint8;
    }
    kernels.blend_rows = blend_rows;
    kernels.planar_float32 = planar_float32;
    kernels.packed_uint8 = packed_uint8;
    return kernels;
  }();
  return kKernels;
}

}  // namespace edgepose
