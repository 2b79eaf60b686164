#include "core/tensor.hpp"

#include <cmath>
#include <stdexcept>

namespace edgepose {
namespace {

template <class Dims>
std::string dims_string(const Dims& dims, std::size_t count) {
  std::string text = "(";
  for (std::size_t i = 0; i < count; ++i) {
    const std::int64_t dim = *(std::begin(dims) + i);
    text += (i ? ", " : "") + (dim < 0 ? std::string("any") : std::to_string(dim));
  }
  return text + (count == 1 ? ",)" : ")");
}

}  // namespace

const char* to_string(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return "float32";
    case DType::kFloat16:
      return "float16";
    case DType::kInt8:
      return "int8";
    case DType::kUInt8:
      return "uint8";
  }
  return "unknown";
}

DType dtype_from_string(const std::string& name) {
  for (DType dtype : {DType::kFloat32, DType::kFloat16, DType::kInt8, DType::kUInt8})
    if (name == to_string(dtype)) return dtype;
  throw std::invalid_argument("dtype is '" + name + "', expected float32, float16, int8 or uint8");
}

void Quantization::validate() const {
  if (!(scale > 0.0f) || !std::isfinite(scale))
    throw std::invalid_argument("quantization scale is " + std::to_string(scale) +
                                ", expected a positive finite number");
  // Every 8-bit zero point lies well inside; the bound keeps stored - zero_point from overflowing.
  if (zero_point < -32768 || zero_point > 32767)
    throw std::invalid_argument("quantization zero point is " + std::to_string(zero_point) +
                                ", expected -128 to 127 for int8 or 0 to 255 for uint8");
}

std::string shape_string(const Tensor& tensor) {
  return dims_string(tensor.shape, static_cast<std::size_t>(tensor.ndim));
}

void check_shape(const Tensor& tensor, const std::string& name, std::initializer_list<std::int64_t> expected) {
  bool same = static_cast<std::size_t>(tensor.ndim) == expected.size();
  for (std::size_t i = 0; same && i < expected.size(); ++i) {
    const std::int64_t dim = *(expected.begin() + i);
    same = dim < 0 || tensor.shape[i] == dim;
  }
  if (!same)
    throw std::invalid_argument(name + " has shape " + shape_string(tensor) + ", expected " +
                                dims_string(expected, expected.size()));
}

}  // namespace edgepose
