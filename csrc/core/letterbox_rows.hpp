// The rows of a picture's region as contiguous bytes, whatever the picture's format and strides.
#pragma once

#include <cstdint>
#include <vector>

#include "core/image.hpp"
#include "core/letterbox_kernels.hpp"

namespace edgepose {

// Rows that lie ready are handed out as they are; others are unpacked or converted once, into buffers that are kept
// from picture to picture.
class RowReader {
 public:
  void open(const ImageView& image, const Roi& roi, const LetterboxKernels& kernels);
  // How many rows, one below the other, must stay good at the same time. To be said before the first row is read.
  void keep_rows(int count);

  int channels() const { return channels_; }        // bytes of a pixel in a row: 1, 3 or 4
  const ChannelOrder& bgr() const { return bgr_; }  // where blue, green and red lie in it
  const std::uint8_t* row(int y);                   // y counts from the region's top

 private:
  bool is_planar_yuv() const { return image_.format == PixelFormat::kNv12 || image_.format == PixelFormat::kI420; }
  void open_packed(const Roi& roi);
  void open_yuv(const Roi& roi);
  YuvRow yuv_row(int y) const;
  void unpack(int y, std::uint8_t* out) const;
  const std::uint8_t* prepared_row(int y);

  ImageView image_;
  const LetterboxKernels* kernels_ = nullptr;
  int width_ = 0;
  int channels_ = 0;
  ChannelOrder bgr_;
  bool ready_ = false;  // rows are read in place
  bool yuv_ = false;
  int first_x_ = 0, first_y_ = 0;  // of the region; first_x_ even for the formats with pairs
  int lead_ = 0;                   // pixels of a prepared row before the region's first
  const std::uint8_t* origin_ = nullptr;
  std::size_t row_bytes_ = 0;
  std::vector<int> row_in_slot_;
  std::vector<std::uint8_t> slots_;
};

}  // namespace edgepose
