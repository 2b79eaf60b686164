// The instruction sets that the running processor offers, asked once.
#pragma once

#include <string>
#include <vector>

namespace edgepose {

// From narrow to wide. kNeon is the baseline of aarch64, kPlain that of everything else.
enum class SimdLevel { kPlain, kNeon, kAvx2, kAvx512 };

// The widest level that this processor and this build both have. EDGEPOSE_SIMD=plain|neon|avx2|avx512 in the
// environment lowers it; throws std::invalid_argument where that names no level, or one that cannot run here.
SimdLevel simd_level();

// Every level that can run here, plain first: what tests hold equal to each other.
std::vector<SimdLevel> available_simd_levels();

// Throws std::invalid_argument for a level that cannot run here. For tests and benchmarks; not thread safe.
void set_simd_level(SimdLevel level);

const char* to_string(SimdLevel level);
SimdLevel simd_level_from_string(const std::string& name);  // throws std::invalid_argument

}  // namespace edgepose
