#include "core/letterbox_levels.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace edgepose {
namespace {

std::uint32_t bits_of(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

float apply(const LevelToFloat& map, int level) {
  const float x = static_cast<float>(level) - map.mean;
  return std::fma(x, map.inverse_high, x * map.inverse_low);
}

LevelToFloat reciprocal_map(float mean, float std) {
  const double inverse = 1.0 / static_cast<double>(std);
  LevelToFloat map;
  map.mean = mean;
  map.inverse_high = static_cast<float>(inverse);
  map.inverse_low = static_cast<float>(inverse - static_cast<double>(map.inverse_high));
  return map;
}

}  // namespace

int element_size(ElementType type) {
  switch (type) {
    case ElementType::kFloat32:
      return 4;
    case ElementType::kFloat16:
      return 2;
    default:
      return 1;
  }
}

std::uint16_t float_to_half(float value) {
  const std::uint32_t bits = bits_of(value);
  const std::uint32_t sign = bits >> 16 & 0x8000U;
  const std::uint32_t magnitude = bits & 0x7FFFFFFFU;
  if (magnitude > 0x7F800000U) return static_cast<std::uint16_t>(sign | 0x7E00U);   // NaN
  if (magnitude >= 0x477FF000U) return static_cast<std::uint16_t>(sign | 0x7C00U);  // rounds to infinity
  if (magnitude < 0x38800000U) {  // subnormal: in units of 2^-24, which rounds as the processor rounds
    const float units = std::nearbyint(std::ldexp(std::abs(value), 24));
    return static_cast<std::uint16_t>(sign | static_cast<std::uint32_t>(units));
  }
  const std::uint32_t rounded = magnitude + 0xFFFU + (magnitude >> 13 & 1U);
  return static_cast<std::uint16_t>(sign | ((rounded - 0x38000000U) >> 13));
}

LevelTables::LevelTables(const LevelMapping& mapping, ElementType type) : type_(type) {
  if (type == ElementType::kFloat32 || type == ElementType::kFloat16)
    fill_floats(mapping);
  else
    fill_integers(mapping);
}

void LevelTables::fill_floats(const LevelMapping& mapping) {
  computable_ = true;
  for (std::size_t c = 0; c < mapping.mean.size(); ++c) {
    float_maps_[c] = reciprocal_map(mapping.mean[c], mapping.std[c]);
    for (int level = 0; level < 256; ++level) {
      const float real = (static_cast<float>(level) - mapping.mean[c]) / mapping.std[c];
      float32_[c][level] = bits_of(real);
      float16_[c][level] = float_to_half(real);
      computable_ = computable_ && bits_of(apply(float_maps_[c], level)) == float32_[c][level];
    }
  }
}

void LevelTables::fill_integers(const LevelMapping& mapping) {
  const double lowest = type_ == ElementType::kInt8 ? -128.0 : 0.0;
  for (std::size_t c = 0; c < mapping.mean.size(); ++c)
    for (int level = 0; level < 256; ++level) {
      const double real = (level - static_cast<double>(mapping.mean[c])) / static_cast<double>(mapping.std[c]);
      const double stored = std::nearbyint(real / mapping.scale) + mapping.zero_point;
      integers_[c][level] =
          static_cast<std::uint8_t>(static_cast<int>(std::clamp(stored, lowest, lowest + 255.0)) & 0xFF);
    }
  flip_ = integers_[0][0];
  flippable_ = true;
  for (std::size_t c = 0; c < mapping.mean.size(); ++c)
    for (int level = 0; level < 256; ++level) flippable_ = flippable_ && integers_[c][level] == (level ^ flip_);
}

template <>
const std::uint32_t* LevelTables::bits<std::uint32_t>(int channel) const {
  return float32_[channel].data();
}

template <>
const std::uint16_t* LevelTables::bits<std::uint16_t>(int channel) const {
  return float16_[channel].data();
}

template <>
const std::uint8_t* LevelTables::bits<std::uint8_t>(int channel) const {
  return integers_[channel].data();
}

}  // namespace edgepose
