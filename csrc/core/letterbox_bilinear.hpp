// A picture's rows at another size by bilinear sampling, level for level as OpenCV's INTER_LINEAR gives them.
#pragma once

#include <cstdint>
#include <vector>

#include "core/aligned_buffer.hpp"
#include "core/letterbox_geometry.hpp"
#include "core/letterbox_kernels.hpp"
#include "core/letterbox_rows.hpp"

namespace edgepose {

// Source rows are sampled along x once each, and only those that are needed; the last two are kept.
class BilinearSampler {
 public:
  void prepare(const PictureSizes& sizes, const LetterboxKernels& kernels);
  // To be called before the first row of each picture.
  void start();

  // Rows are some of the source's as they are: source_row(y).
  bool copies_rows() const { return rows_.on_pixels && sizes_.width == sizes_.source_width; }
  int source_row(int y) const { return rows_.first[y]; }
  // Row y as pixels of 4 bytes: the source's channels in their order; gray thrice.
  void sample(int y, RowReader& reader, const LetterboxKernels& kernels, std::uint8_t* pixels);

 private:
  void prepare_columns();
  void prepare_windows(const LetterboxKernels& kernels);
  bool fill_windows(const WindowSampler& sampler);
  const std::int16_t* sampled_row(int source_y, RowReader& reader);
  void sample_columns(const std::uint8_t* row, std::int16_t* out) const;

  PictureSizes sizes_;
  BilinearAxis rows_, columns_;
  std::vector<BilinearColumn> column_table_;
  int outputs_ = 0;  // elements of a sampled row, up to the end of a block
  WindowSampler window_sampler_;
  AlignedBuffer<std::int32_t> window_starts_;
  AlignedBuffer<std::uint8_t> window_indices_;
  AlignedBuffer<std::int16_t> window_weights_;
  AlignedBuffer<std::int16_t> sampled_[2];
  int source_y_[2] = {-1, -1};  // which source rows they hold
  AlignedBuffer<std::uint8_t> levels_;
};

}  // namespace edgepose
