#include "check.hpp"
#include "core/cpu.hpp"

using namespace edgepose;

TEST(the_plain_level_is_always_available) { CHECK(available_simd_levels().front() == SimdLevel::kPlain); }

TEST(levels_have_names_that_read_back) {
  for (SimdLevel level : available_simd_levels()) CHECK(simd_level_from_string(to_string(level)) == level);
}
