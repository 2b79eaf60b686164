// The kernels for x86 with AVX-512 F, BW, VL and DQ.
#include <immintrin.h>

#include "core/decode_kernels.hpp"

namespace edgepose {
namespace {

inline std::uint32_t lowest_bit(std::uint64_t bits) { return static_cast<std::uint32_t>(__builtin_ctzll(bits)); }

struct Avx512 {
  using F = __m512;
  using M = __mmask16;
  static constexpr std::size_t kWidth = 16;
  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, F a) { _mm512_storeu_ps(p, a); }
  static F set1(float a) { return _mm512_set1_ps(a); }
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F div(F a, F b) { return _mm512_div_ps(a, b); }
  static F max(F a, F b) { return _mm512_max_ps(a, b); }
  static F min(F a, F b) { return _mm512_min_ps(a, b); }
  static M less(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
  static M at_most(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ); }
  static M equal(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
  static M both(M a, M b) { return static_cast<M>(a & b); }
  static M either(M a, M b) { return static_cast<M>(a | b); }
  static bool any(M a) { return a != 0; }
  static bool all(M a) { return a == 0xffff; }
  static F power_of_two(F t) {
    const __m512i bits = _mm512_slli_epi32(_mm512_castps_si512(t), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(bits, _mm512_set1_epi32(0x3f800000)));
  }
  static F widen(const std::uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static std::uint64_t above_bits(const float* x, F t) {
    const std::uint64_t a = less(t, load(x)), b = less(t, load(x + 16));
    const std::uint64_t c = less(t, load(x + 32)), d = less(t, load(x + 48));
    return a | b << 16 | c << 32 | d << 48;
  }
  static std::uint64_t at_least_bits(const std::uint8_t* x, std::uint8_t flip, std::int8_t t) {
    return _mm512_cmpge_epi8_mask(flipped(x, flip), _mm512_set1_epi8(t));
  }
  static void max_bytes(const std::uint8_t* x, std::uint8_t flip, std::int8_t* best) {
    _mm512_storeu_si512(best, _mm512_max_epi8(flipped(x, flip), _mm512_loadu_si512(best)));
  }

 private:
  static __m512i flipped(const std::uint8_t* x, std::uint8_t flip) {
    return _mm512_xor_si512(_mm512_loadu_si512(x), _mm512_set1_epi8(static_cast<char>(flip)));
  }
};

#include "core/decode_kernels.inl"

}  // namespace

const DecodeKernels kDecodeKernelsAvx512 = kernels_of<Avx512>();

}  // namespace edgepose
