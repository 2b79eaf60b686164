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
  alignas(16) std::uint8_t bytes[16];
  for (int k = 0; k < 16; ++k) bytes[k] = static_cast<std::uint8_t>(k < 12 ? k / 3 * 4 + order.byte[k % 3] : 0x80);
  const __m512i shuffle = _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(bytes)));
  const __m512i together = _mm512_setr_epi32(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 3, 7, 11, 15);
  const __m512i flips = _mm512_set1_epi8(static_cast<char>(flip));
  int i = 0;
  for (; 3 * i + 64 <= 3 * n; i += 16) {  // stores 64 bytes, 48 of them final
    const __m512i packed = _mm512_shuffle_epi8(load_512(pixels + 4 * i), shuffle);
    store_512(out + 3 * i, _mm512_xor_si512(_mm512_permutexvar_epi32(together, packed), flips));
  }
  packed_uint8_from(i, pixels, n, order, flip, out);
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
    }
    kernels.blend_rows = blend_rows;
    kernels.planar_float32 = planar_float32;
    kernels.packed_uint8 = packed_uint8;
    return kernels;
  }();
  return kKernels;
}

}  // namespace edgepose
