// The kernels for aarch64, where NEON is always there.
#include <arm_neon.h>

#include "core/decode_kernels.hpp"

namespace edgepose {
namespace {

inline std::uint32_t lowest_bit(std::uint64_t bits) { return static_cast<std::uint32_t>(__builtin_ctzll(bits)); }

struct Neon {
  using F = float32x4_t;
  using M = uint32x4_t;
  static constexpr std::size_t kWidth = 4;
  static F load(const float* p) { return vld1q_f32(p); }
  static void store(float* p, F a) { vst1q_f32(p, a); }
  static F set1(float a) { return vdupq_n_f32(a); }
  static F add(F a, F b) { return vaddq_f32(a, b); }
  static F sub(F a, F b) { return vsubq_f32(a, b); }
  static F mul(F a, F b) { return vmulq_f32(a, b); }
  static F div(F a, F b) { return vdivq_f32(a, b); }
  // Not vmaxq_f32: that one hands a NaN on.
  static F max(F a, F b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
  static F min(F a, F b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
  static M less(F a, F b) { return vcltq_f32(a, b); }
  static M at_most(F a, F b) { return vcleq_f32(a, b); }
  static M equal(F a, F b) { return vceqq_f32(a, b); }
  static M both(M a, M b) { return vandq_u32(a, b); }
  static M either(M a, M b) { return vorrq_u32(a, b); }
  static bool any(M a) { return vmaxvq_u32(a) != 0; }
  static bool all(M a) { return vminvq_u32(a) != 0; }
  static F power_of_two(F t) {
    const uint32x4_t bits = vshlq_n_u32(vreinterpretq_u32_f32(t), 23);
    return vreinterpretq_f32_u32(vaddq_u32(bits, vdupq_n_u32(0x3f800000u)));
  }
  static F widen(const std::uint16_t* p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
  static std::uint64_t above_bits(const float* x, F t) {
    const M a = less(t, load(x)), b = less(t, load(x + 4)), c = less(t, load(x + 8)), d = less(t, load(x + 12));
    if (!any(vorrq_u32(vorrq_u32(a, b), vorrq_u32(c, d)))) return 0;
    const uint16x8_t low = vcombine_u16(vmovn_u32(a), vmovn_u32(b)), high = vcombine_u16(vmovn_u32(c), vmovn_u32(d));
    return byte_bits(vcombine_u8(vmovn_u16(low), vmovn_u16(high)));
  }
  static std::uint64_t at_least_bits(const std::uint8_t* x, std::uint8_t flip, std::int8_t t) {
    const int8x16_t limit = vdupq_n_s8(t);
    const uint8x16_t a = vcgeq_s8(flipped(x, flip), limit), b = vcgeq_s8(flipped(x + 16, flip), limit);
    const uint8x16_t c = vcgeq_s8(flipped(x + 32, flip), limit), d = vcgeq_s8(flipped(x + 48, flip), limit);
    if (vmaxvq_u8(vorrq_u8(vorrq_u8(a, b), vorrq_u8(c, d))) == 0) return 0;
    return byte_bits(a) | byte_bits(b) << 16 | byte_bits(c) << 32 | byte_bits(d) << 48;
  }
  static void max_bytes(const std::uint8_t* x, std::uint8_t flip, std::int8_t* best) {
    for (int i = 0; i < 64; i += 16) vst1q_s8(best + i, vmaxq_s8(flipped(x + i, flip), vld1q_s8(best + i)));
  }

 private:
  static int8x16_t flipped(const std::uint8_t* x, std::uint8_t flip) {
    return vreinterpretq_s8_u8(veorq_u8(vld1q_u8(x), vdupq_n_u8(flip)));
  }
  static std::uint64_t byte_bits(uint8x16_t mask) {
    alignas(16) static constexpr std::uint8_t kWeights[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const uint8x16_t bits = vandq_u8(mask, vld1q_u8(kWeights));
    return vaddv_u8(vget_low_u8(bits)) | static_cast<std::uint64_t>(vaddv_u8(vget_high_u8(bits))) << 8;
  }
};

#include "core/decode_kernels.inl"

}  // namespace

const DecodeKernels kDecodeKernelsNeon = kernels_of<Neon>();

}  // namespace edgepose
