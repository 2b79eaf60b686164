#include <immintrin.h>

#include "core/letterbox_kernels.hpp"
#include "core/letterbox_kernels.inl"

namespace edgepose {
namespace {

__m512i load_512(const void* from) { return _mm512_loadu_si512(from); }
void store_512(void* to, __m512i value) { _mm512_storeu_si512(to, value); }

__m512i blend_pairs(__m512i pairs, __m512i fraction) {
  const __m512i base = _mm512_maddubs_epi16(pairs, _mm512_set1_epi16(0x0040));  // a * 64
  const __m512i step = _mm512_maddubs_epi16(pairs, _mm512_set1_epi16(0x40C0));  // (b - a) * 64
  return _mm512_add_epi16(base, _mm512_mulhrs_epi16(step, fraction));
}

void blend_rows(const std::uint8_t* a, const std::uint8_t* b, std::int16_t fraction, std::int16_t* out, int n) {
  const __m512i weight = _mm512_set1_epi16(fraction);
  // Unpacking works within 128-bit lanes; these bring the lanes of both halves back in order.
  const __m512i front = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
  const __m512i back = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
  int i = 0;
  for (; i + 64 <= n; i += 64) {
    const __m512i first = load_512(a + i);
    const __m512i second = load_512(b + i);
    const __m512i low = blend_pairs(_mm512_unpacklo_epi8(first, second), weight);
    const __m512i high = blend_pairs(_mm512_unpackhi_epi8(first, second), weight);
    store_512(out + i, _mm512_permutex2var_epi64(low, front, high));
    store_512(out + i + 32, _mm512_permutex2var_epi64(low, back, high));
  }
  blend_rows_from(i, a, b, fraction, out, n);
}

// Four output columns as four sums each, times 2^14, with the row's fraction.
__m512i sample_four(const std::int16_t* row, const ColumnTable& table, int i) {
  const __m512i window = load_512(row + table.offsets[i]);
  const std::ptrdiff_t at = static_cast<std::ptrdiff_t>(i) * 8;
  const __m512i pairs = _mm512_permutexvar_epi16(load_512(table.group_indices + at), window);
  return _mm512_srai_epi32(_mm512_madd_epi16(pairs, load_512(table.weights + at)), kWeightBits);
}

__m512i sample_eight(const std::int16_t* row, const ColumnTable& table, int i) {
  const __m512i sums = _mm512_packs_epi32(sample_four(row, table, i), sample_four(row, table, i + 4));
  return _mm512_mulhrs_epi16(sums, _mm512_set1_epi16(1 << (15 - kRowFractionBits)));
}

void sample_columns(const std::int16_t* row, const ColumnTable& table, std::uint8_t* pixels) {
  if (table.group_indices == nullptr || table.channels == 1)
    return letterbox_kernels_avx2().sample_columns(row, table, pixels);
  const __m512i in_order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  for (int i = 0; i < table.columns; i += 16) {
    const __m512i bytes = _mm512_packus_epi16(sample_eight(row, table, i), sample_eight(row, table, i + 8));
    store_512(pixels + 4 * i, _mm512_permutexvar_epi32(in_order, bytes));
  }
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

}  // namespace

const LetterboxKernels& letterbox_kernels_avx512() {
  static const LetterboxKernels kKernels = [] {
    LetterboxKernels kernels = letterbox_kernels_avx2();
    kernels.blend_rows = blend_rows;
    kernels.sample_columns = sample_columns;
    kernels.planar_float32 = planar_float32;
    return kernels;
  }();
  return kKernels;
}

}  // namespace edgepose
