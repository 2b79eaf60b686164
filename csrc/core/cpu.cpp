#include "core/cpu.hpp"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>

namespace edgepose {
namespace {

constexpr SimdLevel kAllLevels[] = {SimdLevel::kPlain, SimdLevel::kNeon, SimdLevel::kAvx2, SimdLevel::kAvx512};

bool is_available(SimdLevel level) {
  switch (level) {
    case SimdLevel::kPlain:
      return true;
#if defined(__aarch64__)
    case SimdLevel::kNeon:
      return true;
#elif defined(__x86_64__) && defined(__GNUC__)
    case SimdLevel::kAvx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    case SimdLevel::kAvx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
#endif
    default:
      return false;
  }
}

SimdLevel checked(SimdLevel level) {
  if (!is_available(level))
    throw std::invalid_argument(std::string("simd level '") + to_string(level) + "' cannot run on this processor");
  return level;
}

SimdLevel initial_level() {
  const char* wanted = std::getenv("EDGEPOSE_SIMD");
  if (wanted == nullptr || *wanted == '\0') return available_simd_levels().back();
  try {
    return checked(simd_level_from_string(wanted));
  } catch (const std::invalid_argument& error) {
    throw std::invalid_argument(std::string("EDGEPOSE_SIMD in the environment: ") + error.what());
  }
}

SimdLevel& current_level() {
  static SimdLevel level = initial_level();
  return level;
}

}  // namespace

SimdLevel simd_level() { return current_level(); }

std::vector<SimdLevel> available_simd_levels() {
  std::vector<SimdLevel> levels;
  std::copy_if(std::begin(kAllLevels), std::end(kAllLevels), std::back_inserter(levels), is_available);
  return levels;
}

void set_simd_level(SimdLevel level) { current_level() = checked(level); }

const char* to_string(SimdLevel level) {
  switch (level) {
    case SimdLevel::kPlain:
      return "plain";
    case SimdLevel::kNeon:
      return "neon";
    case SimdLevel::kAvx2:
      return "avx2";
    case SimdLevel::kAvx512:
      return "avx512";
  }
  return "unknown";
}

SimdLevel simd_level_from_string(const std::string& name) {
  for (SimdLevel level : kAllLevels)
    if (name == to_string(level)) return level;
  throw std::invalid_argument("unknown simd level '" + name + "', expected plain, neon, avx2 or avx512");
}

}  // namespace edgepose
