// Finds the cells whose best class passes the confidence threshold, in the score tensor's own numbers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/decode_kernels.hpp"
#include "core/tensor.hpp"

namespace edgepose {

// A threshold on real numbers, turned once into the integers of a quantized tensor.
class ScoreThreshold {
 public:
  ScoreThreshold(float real, const Quantization& quantization);
  float real() const { return real_; }
  // The least stored integer that passes, as int8(stored ^ flip): 128 where none does.
  int lowest(DType dtype) const { return dtype == DType::kUInt8 ? lowest_uint8_ : lowest_int8_; }

 private:
  float real_;
  int lowest_int8_, lowest_uint8_;
};

// Classes of cell i lie at first + c * class_stride + i * cell_stride; one of the strides is 1 (elements).
struct ScoreMap {
  const Tensor* tensor;
  std::size_t first, num_cells, num_classes;
  bool classes_last;
  std::uint32_t first_anchor;  // the number of cell 0
};

struct Candidate {
  std::uint32_t anchor;
  std::int32_t class_id;
  float score;  // the best class's real number: above the threshold and finite
};

// Buffers that a scan reuses.
struct ScanBuffers {
  std::vector<std::uint32_t> cells;
  std::vector<float> floats, half_row;
  std::vector<std::int8_t> bytes;
};

// Appends the passing cells, ascending, each with its best class (the lowest of equals). NaN never passes; a cell
// whose best value is infinite is left out.
void scan_scores(const ScoreMap& map, const Quantization& quantization, const ScoreThreshold& threshold,
                 const DecodeKernels& kernels, ScanBuffers& buffers, std::vector<Candidate>& out);

}  // namespace edgepose
