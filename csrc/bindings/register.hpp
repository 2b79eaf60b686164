// One function a concern; module.cpp calls them all.
#pragma once

#include <pybind11/pybind11.h>

namespace edgepose {

void register_cpu(pybind11::module_& module);
void register_decode(pybind11::module_& module);
void register_letterbox(pybind11::module_& module);
void register_nms(pybind11::module_& module);

}  // namespace edgepose
