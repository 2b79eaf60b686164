#include "register.hpp"

PYBIND11_MODULE(_core, module) {
  module.doc() = "The C++ core of edgepose: preprocessing, decoding and keypoint NMS.";
  edgepose::register_cpu(module);
  edgepose::register_decode(module);
  edgepose::register_nms(module);
  edgepose::register_letterbox(module);
}
