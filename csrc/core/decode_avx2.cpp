// The kernels for x86 with AVX2, FMA and F16C (Haswell and later; FMA itself is not used, see decode_kernels.hpp).
#include <immintrin.h>

#include "core/decode_kernels.hpp"

namespace edgepose {
namespace {

inline std::uint32_t lowest_bit(std::uint64_t bits) { return static_cast<std::uint32_t>(__builtin_ctzll(bits)); }

struct Avx2 {
  using F = __m256;
  using M = __m256;
  static constexpr std::size_t kWidth = 8;
  static F load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, F a) { _mm256_storeu_ps(p, a); }
  static F set1(float a) { return _mm256_set1_ps(a); }
  static F add(F a, F b) { return _mm256_add_ps(a, b); }
  static F sub(F a, F b) { return _mm256_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F div(F a, F b) { return _mm256_div_ps(a, b); }
  static F max(F a, F b) { return _mm256_max_ps(a, b); }
  static F min(F a, F b) { return _mm256_min_ps(a, b); }
  static M less(F a, F b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
  static M at_most(F a, F b) { return _mm256_cmp_ps(a, b, _CMP_LE_OQ); }
  static M equal(F a, F b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
  static M both(M a, M b) { return _mm256_and_ps(a, b); }
  static M either(M a, M b) { return _mm256_or_ps(a, b); }
  static bool any(M a) { return _mm256_movemask_ps(a) != 0; }
  static bool all(M a) { return _mm256_movemask_ps(a) == 0xff; }
  static F power_of_two(F t) {
    const __m256i bits = _mm256_slli_epi32(_mm256_castps_si256(t), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(bits, _mm256_set1_epi32(0x3f800000)));
  }
  static F widen(const std::uint16_t* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static std::uint64_t above_bits(const float* x, F t) {
    const M a = less(t, load(x)), b = less(t, load(x + 8)), c = less(t, load(x + 16)), d = less(t, load(x + 24));
    if (!any(_mm256_or_ps(_mm256_or_ps(a, b), _mm256_or_ps(c, d)))) return 0;
    return mask_bits(a) | mask_bits(b) << 8 | mask_bits(c) << 16 | mask_bits(d) << 24;
  }
  static std::uint64_t at_least_bits(const std::uint8_t* x, std::uint8_t flip, std::int8_t t) {
    const __m256i f = _mm256_set1_epi8(static_cast<char>(flip)), limit = _mm256_set1_epi8(t);
    return at_least_32(x, f, limit) | at_least_32(x + 32, f, limit) << 32;
  }
  static void max_bytes(const std::uint8_t* x, std::uint8_t flip, std::int8_t* best) {
    const __m256i f = _mm256_set1_epi8(static_cast<char>(flip));
    for (int i = 0; i < 64; i += 32) {
      __m256i* out = reinterpret_cast<__m256i*>(best + i);
      _mm256_storeu_si256(out, _mm256_max_epi8(flipped(x + i, f), _mm256_loadu_si256(out)));
    }
  }

 private:
  static std::uint64_t mask_bits(M a) { return static_cast<std::uint32_t>(_mm256_movemask_ps(a)); }
  static __m256i flipped(const std::uint8_t* x, __m256i flip) {
    return _mm256_xor_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)), flip);
  }
  static std::uint64_t at_least_32(const std::uint8_t* x, __m256i flip, __m256i limit) {
    const __m256i value = flipped(x, flip);
    const __m256i mask = _mm256_cmpeq_epi8(_mm256_max_epi8(value, limit), value);
    return static_cast<std::uint32_t>(_mm256_movemask_epi8(mask));
  }
};

#include "core/decode_kernels.inl"

}  // namespace

const DecodeKernels kDecodeKernelsAvx2 = kernels_of<Avx2>();

}  // namespace edgepose
