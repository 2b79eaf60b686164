#include "core/decode_kernels.hpp"

#include "core/cpu.hpp"

namespace edgepose {

const DecodeKernels& decode_kernels(SimdLevel level) {
  switch (level) {
#if defined(__aarch64__)
    case SimdLevel::kNeon:
      return kDecodeKernelsNeon;
#elif defined(__x86_64__) && defined(__GNUC__)
    case SimdLevel::kAvx2:
      return kDecodeKernelsAvx2;
    case SimdLevel::kAvx512:
      return kDecodeKernelsAvx512;
#endif
    default:
      return kDecodeKernelsPlain;
  }
}

const DecodeKernels& decode_kernels() { return decode_kernels(simd_level()); }

}  // namespace edgepose
