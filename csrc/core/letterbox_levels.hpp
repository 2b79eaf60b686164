// What becomes of a level (0 to 255) of each channel in the model's input: the tables every writer agrees with.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "core/letterbox_kernels.hpp"

namespace edgepose {

enum class ElementType { kFloat32, kFloat16, kUint8, kInt8 };

int element_size(ElementType type);

// Channels in the model's order. real = (level - mean) / std; integers: round(real / scale) + zero_point, clamped.
struct LevelMapping {
  std::vector<float> mean;
  std::vector<float> std;
  double scale = 1.0;
  int zero_point = 0;
};

// The bits of each of the 256 values of each of up to 3 channels, and what the vector loops may compute instead.
class LevelTables {
 public:
  LevelTables(const LevelMapping& mapping, ElementType type);

  ElementType type() const { return type_; }
  // Table of a channel: std::uint32_t for float32, std::uint16_t for float16, std::uint8_t for the integers.
  template <typename Bits>
  const Bits* bits(int channel) const;

  // Floats: whether float_map gives the very bits of the table.
  bool computable() const { return computable_; }
  const LevelToFloat* float_maps() const { return float_maps_.data(); }
  // Integers: whether every value is the level with the bits of flip() inverted.
  bool flippable() const { return flippable_; }
  std::uint8_t flip() const { return flip_; }

 private:
  void fill_floats(const LevelMapping& mapping);
  void fill_integers(const LevelMapping& mapping);

  ElementType type_;
  bool computable_ = false;
  bool flippable_ = false;
  std::uint8_t flip_ = 0;
  std::array<LevelToFloat, 3> float_maps_{};
  std::array<std::array<std::uint32_t, 256>, 3> float32_{};
  std::array<std::array<std::uint16_t, 256>, 3> float16_{};
  std::array<std::array<std::uint8_t, 256>, 3> integers_{};
};

// IEEE 754 binary16, rounded to nearest even.
std::uint16_t float_to_half(float value);

}  // namespace edgepose
