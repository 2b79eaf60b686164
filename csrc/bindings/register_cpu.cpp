#include <pybind11/stl.h>

#include "core/cpu.hpp"
#include "register.hpp"

namespace py = pybind11;

namespace edgepose {

void register_cpu(py::module_& module) {
  module.def("simd_level", [] { return to_string(simd_level()); }, "The instruction set that the core uses now.");
  module.def(
      "available_simd_levels",
      [] {
        std::vector<std::string> names;
        for (SimdLevel level : available_simd_levels()) names.emplace_back(to_string(level));
        return names;
      },
      "Every instruction set that the core can use on this processor, plain first.");
  module.def(
      "set_simd_level", [](const std::string& name) { set_simd_level(simd_level_from_string(name)); }, py::arg("name"),
      "Makes the core use another instruction set. For tests and benchmarks; not thread safe.");
}

}  // namespace edgepose
