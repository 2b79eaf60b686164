#include "core/letterbox.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>
#include <utility>

namespace edgepose {
namespace {

int round_up(int n, int block) { return (n + block - 1) / block * block; }

void check(const LetterboxOptions& options, int channels) {
  const LevelMapping& mapping = options.mapping;
  const auto wanted = static_cast<std::size_t>(channels);
  if (mapping.mean.size() != wanted || mapping.std.size() != wanted)
    throw std::invalid_argument("mean and std have " + std::to_string(mapping.mean.size()) + " and " +
                                std::to_string(mapping.std.size()) + " values, expected one for each of the model's " +
                                std::to_string(channels) + " channels");
  for (float mean : mapping.mean)
    if (!std::isfinite(mean)) throw std::invalid_argument("mean must be finite, got " + std::to_string(mean));
  for (float std : mapping.std)
    if (!std::isnormal(std) || std < 0.0F)
      throw std::invalid_argument("std must be positive and finite, got " + std::to_string(std));
  if (!std::isnormal(mapping.scale) || mapping.scale < 0.0)
    throw std::invalid_argument("scale must be positive and finite, got " + std::to_string(mapping.scale));
  if (mapping.zero_point < -128 || mapping.zero_point > 255)
    throw std::invalid_argument("zero_point must be from -128 to 255, got " + std::to_string(mapping.zero_point));
  if (options.pad_value < 0 || options.pad_value > 255)
    throw std::invalid_argument("pad_value is a level from 0 to 255, got " + std::to_string(options.pad_value));
}

// The padding's value in each channel.
template <typename Bits>
struct PadFill {
  Layout layout;
  int channels;
  Bits value[3];
  bool uniform;

  PadFill(const LetterboxOptions& options, const LevelTables& levels, int channel_count)
      : layout(options.layout), channels(channel_count), value{}, uniform(true) {
    for (int c = 0; c < channels; ++c) {
      value[c] = levels.bits<Bits>(c)[options.pad_value];
      uniform = uniform && value[c] == value[0];
    }
  }

  void packed(Bits* to, std::size_t pixels) const {
    if (uniform) {
      std::fill_n(to, pixels * static_cast<std::size_t>(channels), value[0]);
      return;
    }
    for (; pixels > 0; --pixels)
      for (int c = 0; c < channels; ++c) *to++ = value[c];
  }
};

// The writers that a kernel has for a type; false: write from the table.
bool write_packed(std::uint32_t* out, const std::uint8_t* pixels, int n, const ChannelOrder& order,
                  const LevelTables& levels, const LetterboxKernels& kernels) {
  if (kernels.packed_float32 == nullptr || !levels.computable()) return false;
  kernels.packed_float32(pixels, n, order, levels.float_maps(), reinterpret_cast<float*>(out));
  return true;
}

bool write_packed(std::uint16_t*, const std::uint8_t*, int, const ChannelOrder&, const LevelTables&,
                  const LetterboxKernels&) {
  return false;
}

bool write_packed(std::uint8_t* out, const std::uint8_t* pixels, int n, const ChannelOrder& order,
                  const LevelTables& levels, const LetterboxKernels& kernels) {
  if (!levels.flippable()) return false;
  kernels.packed_uint8(pixels, n, order, levels.flip(), out);
  return true;
}

// Straight from a source row of 3 bytes a pixel.
template <typename Bits>
bool write_reordered(Bits*, const std::uint8_t*, int, const ChannelOrder&, const LevelTables&,
                     const LetterboxKernels&) {
  return false;
}

bool write_reordered(std::uint8_t* out, const std::uint8_t* row, int n, const ChannelOrder& order,
                     const LevelTables& levels, const LetterboxKernels& kernels) {
  if (!levels.flippable()) return false;
  kernels.reordered_uint8(row, n, order, levels.flip(), out);
  return true;
}

bool write_planar(std::uint32_t* out, const std::uint8_t* pixels, int n, int byte, int channel,
                  const LevelTables& levels, const LetterboxKernels& kernels) {
  if (kernels.planar_float32 == nullptr || !levels.computable()) return false;
  kernels.planar_float32(pixels, n, byte, levels.float_maps()[channel], reinterpret_cast<float*>(out));
  return true;
}

bool write_planar(std::uint16_t* out, const std::uint8_t* pixels, int n, int byte, int channel,
                  const LevelTables& levels, const LetterboxKernels& kernels) {
  if (kernels.planar_float16 == nullptr || !levels.computable()) return false;
  kernels.planar_float16(pixels, n, byte, levels.float_maps()[channel], out);
  return true;
}

bool write_planar(std::uint8_t* out, const std::uint8_t* pixels, int n, int byte, int, const LevelTables& levels,
                  const LetterboxKernels& kernels) {
  if (!levels.flippable()) return false;
  kernels.planar_uint8(pixels, n, byte, levels.flip(), out);
  return true;
}

}  // namespace

bool Letterbox::Job::operator==(const Job& other) const {
  return placed == other.placed && source_width == other.source_width && source_height == other.source_height &&
         channels == other.channels && kernels == other.kernels;
}

Letterbox::Letterbox(LetterboxOptions options) : options_(std::move(options)) { check(options_, channels()); }

void Letterbox::prepare(const Job& job) {
  if (!(job == job_)) {
    job_ = Job();  // should an allocation fail, the tables fit nothing
    const Placement& placed = job.placed;
    const PictureSizes sizes = {job.source_width, job.source_height, job.channels, placed.width, placed.height};
    reduces_smoothly_ = options_.antialias && (sizes.width < sizes.source_width || sizes.height < sizes.source_height);
    reduces_smoothly_ ? antialias_.prepare(sizes) : bilinear_.prepare(sizes, *job.kernels);
    pixels_.reserve(4U * static_cast<std::size_t>(round_up(sizes.width, kColumnBlock)));
    job_ = job;
  }
  bilinear_.start();
  reader_.keep_rows(reduces_smoothly_ ? antialias_.taps() : 1);
}

void Letterbox::sample_row(int y) {
  if (reduces_smoothly_) return antialias_.sample(y, reader_, *job_.kernels, pixels_.data());
  bilinear_.sample(y, reader_, *job_.kernels, pixels_.data());
}

ChannelOrder Letterbox::model_order() const {
  const ChannelOrder& bgr = reader_.bgr();
  if (options_.color == ModelColor::kRgb) return {{bgr.byte[2], bgr.byte[1], bgr.byte[0]}};
  return bgr;
}

// One row of pixels_ to the model's channels, each starting at channels[c].
template <typename Bits>
void Letterbox::write_row(Bits* const* channels, const ChannelOrder& order) const {
  const LetterboxKernels& kernels = *job_.kernels;
  const int count = this->channels();
  const int n = job_.placed.width;
  const bool interleaved = options_.layout == Layout::kNhwc && count > 1;
  if (interleaved && write_packed(channels[0], pixels_.data(), n, order, *levels_, kernels)) return;
  for (int c = 0; c < count; ++c) {
    if (!interleaved && write_planar(channels[c], pixels_.data(), n, order.byte[c], c, *levels_, kernels)) continue;
    const Bits* table = levels_->bits<Bits>(c);
    const std::ptrdiff_t step = interleaved ? count : 1;
    const std::uint8_t* level = pixels_.data() + order.byte[c];
    for (int i = 0; i < n; ++i) channels[c][i * step] = table[level[4 * i]];
  }
}

template <typename Bits>
void Letterbox::write_picture(const OutputView& out) {
  const LetterboxKernels& kernels = *job_.kernels;
  const Placement& placed = job_.placed;
  const PadFill<Bits> pad(options_, *levels_, channels());
  const bool packed = options_.layout == Layout::kNhwc;
  const int planes = packed ? 1 : channels();
  const std::size_t pixel = packed ? static_cast<std::size_t>(channels()) : 1U;
  const std::size_t width = static_cast<std::size_t>(out.width);
  const std::size_t plane = width * static_cast<std::size_t>(out.height);
  const std::size_t left = static_cast<std::size_t>(placed.left);
  const std::size_t right = width - left - static_cast<std::size_t>(placed.width);
  Bits* const data = static_cast<Bits*>(out.data);

  const auto fill = [&](std::size_t from, std::size_t count) {
    if (packed) return pad.packed(data + from * pixel, count);
    for (int c = 0; c < planes; ++c) std::fill_n(data + c * plane + from, count, pad.value[c]);
  };
  const ChannelOrder order = model_order();
  const bool copies_rows = !reduces_smoothly_ && bilinear_.copies_rows();
  const bool same_form = copies_rows && packed && channels() == 3 && job_.channels == 3;
  const std::size_t top = static_cast<std::size_t>(placed.top);
  fill(0, top * width);
  for (int y = 0; y < placed.height; ++y) {
    const std::size_t begin = (top + static_cast<std::size_t>(y)) * width;
    if (left > 0) fill(begin, left);
    Bits* starts[3] = {};
    for (int c = 0; c < channels(); ++c)
      starts[c] = packed ? data + (begin + left) * pixel + c : data + c * plane + begin + left;
    const std::uint8_t* source = same_form ? reader_.row(bilinear_.source_row(y)) : nullptr;
    if (!same_form || !write_reordered(starts[0], source, placed.width, order, *levels_, kernels)) {
      sample_row(y);
      if (channels() == 1 && job_.channels > 1) kernels.pixels_to_gray(pixels_.data(), placed.width, reader_.bgr());
      write_row(starts, order);
    }
    if (right > 0) fill(begin + width - right, right);
  }
  const std::size_t below = top + static_cast<std::size_t>(placed.height);
  fill(below * width, plane - below * width);
}

Transform Letterbox::operator()(const ImageView& image, const Roi& roi, const OutputView& out) {
  const LetterboxKernels& kernels = letterbox_kernels(simd_level());
  if (levels_ == nullptr || levels_->type() != out.type)
    levels_ = std::make_unique<LevelTables>(options_.mapping, out.type);
  const Placement placed = place(options_.mode, options_.center, roi.width(), roi.height(), out.width, out.height);
  reader_.open(image, roi, kernels);
  prepare({placed, roi.width(), roi.height(), reader_.channels(), &kernels});
  switch (element_size(out.type)) {
    case 4:
      write_picture<std::uint32_t>(out);
      break;
    case 2:
      write_picture<std::uint16_t>(out);
      break;
    default:
      write_picture<std::uint8_t>(out);
  }
  Transform transform;
  transform.scale_x = static_cast<double>(placed.width) / roi.width();
  transform.scale_y = static_cast<double>(placed.height) / roi.height();
  transform.pad_x = placed.left - roi.x0 * transform.scale_x;
  transform.pad_y = placed.top - roi.y0 * transform.scale_y;
  return transform;
}

}  // namespace edgepose
