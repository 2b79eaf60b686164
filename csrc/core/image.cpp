#include "core/image.hpp"

#include <iterator>
#include <stdexcept>

namespace edgepose {
namespace {

struct FormatFacts {
  PixelFormat format;
  const char* name;
  int bytes;
};

constexpr FormatFacts kFormats[] = {
    {PixelFormat::kBgr, "BGR", 3},   {PixelFormat::kRgb, "RGB", 3},   {PixelFormat::kBgra, "BGRA", 4},
    {PixelFormat::kRgba, "RGBA", 4}, {PixelFormat::kGray, "GRAY", 1}, {PixelFormat::kNv12, "NV12", 1},
    {PixelFormat::kI420, "I420", 1}, {PixelFormat::kYuyv, "YUYV", 2},
};

const FormatFacts& facts(PixelFormat format) { return kFormats[static_cast<int>(format)]; }

}  // namespace

PixelFormat pixel_format_from_string(const std::string& name) {
  for (const FormatFacts& known : kFormats)
    if (name == known.name) return known.format;
  throw std::invalid_argument("unknown pixel format '" + name +
                              "', expected BGR, RGB, BGRA, RGBA, GRAY, NV12, I420 or YUYV");
}

const char* to_string(PixelFormat format) { return facts(format).name; }

int bytes_per_pixel(PixelFormat format) { return facts(format).bytes; }

}  // namespace edgepose
