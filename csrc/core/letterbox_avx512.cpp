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

// Eight output columns as levels in 16 bits: only what they read of the two rows is blended.
__m512i sample_eight(const std::uint8_t* a, const std::uint8_t* b, __m512i fraction, const ColumnTable& table, int i) {
  const std::int32_t start = table.group_offsets[i / 8];
  const __m512i first = load_512(a + start);
  const __m512i second = load_512(b + start);
  const __m512i low = blend_pairs(_mm512_unpacklo_epi8(first, second), fraction);
  const __m512i high = blend_pairs(_mm512_unpackhi_epi8(first, second), fraction);
  const auto sample_four = [&](std::ptrdiff_t at) {
    const __m512i pairs = _mm512_permutex2var_epi16(low, load_512(table.group_indices + at), high);
    return _mm512_srai_epi32(_mm512_madd_epi16(pairs, load_512(table.weights + at)), kWeightBits);
  };
  const std::ptrdiff_t at = static_cast<std::ptrdiff_t>(i) * 8;
  const __m512i row = _mm512_packs_epi32(sample_four(at), sample_four(at + 32));
  return _mm512_mulhrs_epi16(row, _mm512_set1_epi16(1 << (15 - kRowFractionBits)));
}

void sample_between(const std::uint8_t* a, const std::uint8_t* b, std::int16_t fraction, const ColumnTable& table,
                    std::uint8_t* pixels) {
  const __m512i weight = _mm512_set1_epi16(fraction);
  const __m512i in_order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const int columns = table.columns;
  for (int i = 0; i < columns; i += 16) {
    const __m512i low = sample_eight(a, b, weight, table, i);
    const __m512i high = sample_eight(a, b, weight, table, i + 8);
    store_512(pixels + 4 * i, _mm512_permutexvar_epi32(in_order, _mm512_packus_epi16(low, high)));
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
    kernels.sample_between = sample_between;
    kernels.planar_float32 = planar_float32;
    kernels.packed_uint8 = packed_uint8;
    return kernels;
  }();
  return kKernels;
}

}  // namespace edgepose
