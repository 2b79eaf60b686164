// A picture's rows at a smaller size by a triangle filter as wide as the reduction.
#pragma once

#include <cstdint>
#include <vector>

#include "core/aligned_buffer.hpp"
#include "core/letterbox_geometry.hpp"
#include "core/letterbox_kernels.hpp"
#include "core/letterbox_rows.hpp"

namespace edgepose {

class AntialiasSampler {
 public:
  void prepare(const PictureSizes& sizes);

  int taps() const { return rows_.taps; }  // source rows that an output row reads
  // Row y as pixels of 4 bytes: the source's channels in their order; gray thrice.
  void sample(int y, RowReader& reader, const LetterboxKernels& kernels, std::uint8_t* pixels);

 private:
  void prepare_columns(const TriangleAxis& columns);

  PictureSizes sizes_;
  TriangleAxis rows_;
  ColumnTable column_table_;
  AlignedBuffer<std::int32_t> column_offsets_;
  AlignedBuffer<std::int16_t> column_weights_;
  std::vector<const std::uint8_t*> tap_rows_;
  AlignedBuffer<std::int16_t> blended_;
};

}  // namespace edgepose
