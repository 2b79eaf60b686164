// The kernels for every processor: one lane, standard C++.
#include <cstring>

#include "core/decode_kernels.hpp"
#include "core/tensor.hpp"

namespace edgepose {
namespace {

std::uint32_t lowest_bit(std::uint64_t bits) {
  std::uint32_t index = 0;
  while (!(bits & 1)) bits >>= 1, ++index;
  return index;
}

struct Plain {
  using F = float;
  using M = bool;
  static constexpr std::size_t kWidth = 1;
  static F load(const float* p) { return *p; }
  static void store(float* p, F a) { *p = a; }
  static F set1(float a) { return a; }
  static F add(F a, F b) { return a + b; }
  static F sub(F a, F b) { return a - b; }
  static F mul(F a, F b) { return a * b; }
  static F div(F a, F b) { return a / b; }
  static F max(F a, F b) { return a > b ? a : b; }
  static F min(F a, F b) { return a < b ? a : b; }
  static M less(F a, F b) { return a < b; }
  static M at_most(F a, F b) { return a <= b; }
  static M equal(F a, F b) { return a == b; }
  static M both(M a, M b) { return a && b; }
  static M either(M a, M b) { return a || b; }
  static bool any(M a) { return a; }
  static bool all(M a) { return a; }
  static F power_of_two(F t) {
    std::uint32_t bits;
    std::memcpy(&bits, &t, sizeof bits);
    bits = (bits << 23) + 0x3f800000u;
    std::memcpy(&t, &bits, sizeof t);
    return t;
  }
  static F widen(const std::uint16_t* p) { return edgepose::half_to_float(*p); }
  static std::uint64_t above_bits(const float* x, F t) {
    std::uint64_t bits = 0;
    for (unsigned i = 0; i < 4 * kWidth; ++i) bits |= static_cast<std::uint64_t>(x[i] > t) << i;
    return bits;
  }
  static std::uint64_t at_least_bits(const std::uint8_t* x, std::uint8_t flip, std::int8_t t) {
    std::uint64_t bits = 0;
    for (unsigned i = 0; i < 64; ++i)
      bits |= static_cast<std::uint64_t>(static_cast<std::int8_t>(x[i] ^ flip) >= t) << i;
    return bits;
  }
  static void max_bytes(const std::uint8_t* x, std::uint8_t flip, std::int8_t* best) {
    for (unsigned i = 0; i < 64; ++i) {
      const std::int8_t value = static_cast<std::int8_t>(x[i] ^ flip);
      best[i] = value > best[i] ? value : best[i];
    }
  }
};

#include "core/decode_kernels.inl"

}  // namespace

const DecodeKernels kDecodeKernelsPlain = kernels_of<Plain>();

}  // namespace edgepose
