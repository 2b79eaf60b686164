// A runtime's output tensor as the decoders see it: contiguous memory, a type, a shape and how its integers are scaled.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

namespace edgepose {

enum class DType { kFloat32, kFloat16, kInt8, kUInt8 };

const char* to_string(DType dtype);
DType dtype_from_string(const std::string& name);  // throws std::invalid_argument

// real = (stored - zero_point) * scale. Floats are taken as they are.
struct Quantization {
  float scale = 1.0f;
  int zero_point = 0;

  // Throws std::invalid_argument unless scale is a positive finite number.
  void validate() const;
  float real(int stored) const { return static_cast<float>(stored - zero_point) * scale; }
};

struct Tensor {
  const void* data = nullptr;
  DType dtype = DType::kFloat32;
  int ndim = 0;
  std::array<std::int64_t, 4> shape{};
};

std::string shape_string(const Tensor& tensor);

// Throws std::invalid_argument, naming the tensor, what was got and what was expected. A negative dimension of
// `expected` matches any size.
void check_shape(const Tensor& tensor, const std::string& name, std::initializer_list<std::int64_t> expected);

inline float half_to_float(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000u) << 16;
  const std::uint32_t magnitude = half & 0x7fffu;
  std::uint32_t bits = sign | 0x7f800000u | (magnitude << 13);  // infinity or NaN
  if (magnitude < 0x7c00u) {
    // Normal numbers and subnormal ones alike: place the bits, then multiply the exponent's bias right.
    const std::uint32_t placed = magnitude << 13;
    float value;
    std::memcpy(&value, &placed, sizeof value);
    value *= 5.192296858534828e+33f;  // 2^112
    std::memcpy(&bits, &value, sizeof bits);
    bits |= sign;
  }
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// Calls body(read), where read(i) is element i as a real number, made for the tensor's type.
template <class Body>
void visit_real(const Tensor& tensor, const Quantization& quantization, Body body) {
  switch (tensor.dtype) {
    case DType::kFloat32:
      return body([data = static_cast<const float*>(tensor.data)](std::size_t i) { return data[i]; });
    case DType::kFloat16:
      return body(
          [data = static_cast<const std::uint16_t*>(tensor.data)](std::size_t i) { return half_to_float(data[i]); });
    case DType::kInt8:
      return body([data = static_cast<const std::int8_t*>(tensor.data), quantization](std::size_t i) {
        return quantization.real(data[i]);
      });
    case DType::kUInt8:
      return body([data = static_cast<const std::uint8_t*>(tensor.data), quantization](std::size_t i) {
        return quantization.real(data[i]);
      });
  }
}

}  // namespace edgepose
