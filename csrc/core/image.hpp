// A picture in somebody else's memory: what the core reads, never owns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace edgepose {

enum class PixelFormat { kBgr, kRgb, kBgra, kRgba, kGray, kNv12, kI420, kYuyv };

// Throws std::invalid_argument for an unknown name; the names are BGR, RGB, BGRA, RGBA, GRAY, NV12, I420 and YUYV.
PixelFormat pixel_format_from_string(const std::string& name);
const char* to_string(PixelFormat format);

// Bytes of a pixel in the packed formats (YUYV: 2), 1 for the planar ones.
int bytes_per_pixel(PixelFormat format);

// Strides are in bytes and may be negative. The planar formats lie as OpenCV has them, height * 3 / 2 rows of one byte
// a column: the luma rows first, then for NV12 rows of U V U V, for I420 all of U and then all of V, two chroma rows to
// a row of the array.
struct ImageView {
  const std::uint8_t* data = nullptr;
  PixelFormat format = PixelFormat::kBgr;
  int width = 0;
  int height = 0;
  std::ptrdiff_t row_stride = 0;
  std::ptrdiff_t pixel_stride = 0;
  std::ptrdiff_t channel_stride = 1;
};

// Pixels x0 <= x < x1, y0 <= y < y1.
struct Roi {
  int x0 = 0;
  int y0 = 0;
  int x1 = 0;
  int y1 = 0;
  int width() const { return x1 - x0; }
  int height() const { return y1 - y0; }
};

}  // namespace edgepose
