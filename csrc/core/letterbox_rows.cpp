#include "core/letterbox_rows.hpp"

namespace edgepose {
namespace {

template <int kChannels>
void unpack_row(const std::uint8_t* row, const ImageView& image, int width, std::uint8_t* __restrict out) {
  const std::ptrdiff_t pixel = image.pixel_stride;
  const std::ptrdiff_t channel = image.channel_stride;
  for (int x = 0; x < width; ++x, row += pixel, out += kChannels)
    for (int c = 0; c < kChannels; ++c) out[c] = row[c * channel];
}

}  // namespace

void RowReader::open(const ImageView& image, const Roi& roi, const LetterboxKernels& kernels) {
  image_ = image;
  kernels_ = &kernels;
  width_ = roi.width();
  first_x_ = roi.x0;
  first_y_ = roi.y0;
  lead_ = 0;
  yuv_ = is_planar_yuv() || image.format == PixelFormat::kYuyv;
  yuv_ ? open_yuv(roi) : open_packed(roi);
}

void RowReader::keep_rows(int count) {
  if (ready_) return;
  row_in_slot_.assign(static_cast<std::size_t>(count), -1);
  const std::size_t needed = row_bytes_ * static_cast<std::size_t>(count);
  if (slots_.size() < needed) slots_.resize(needed);
}

void RowReader::open_packed(const Roi& roi) {
  channels_ = bytes_per_pixel(image_.format);
  const bool rgb = image_.format == PixelFormat::kRgb || image_.format == PixelFormat::kRgba;
  bgr_ = channels_ == 1 ? ChannelOrder{{0, 0, 0}} : rgb ? ChannelOrder{{2, 1, 0}} : ChannelOrder{{0, 1, 2}};
  // A view with reversed channels is read from its lowest byte, as the other order.
  if (channels_ > 1 && image_.channel_stride == -1) {
    image_.data -= channels_ - 1;
    image_.channel_stride = 1;
    for (std::uint8_t& byte : bgr_.byte) byte = static_cast<std::uint8_t>(channels_ - 1 - byte);
  }
  const bool one_column = roi.width() == 1;
  ready_ = (image_.pixel_stride == channels_ || one_column) && (channels_ == 1 || image_.channel_stride == 1);
  origin_ = image_.data + first_y_ * image_.row_stride + first_x_ * image_.pixel_stride;
  row_bytes_ = static_cast<std::size_t>(width_) * static_cast<std::size_t>(channels_);
}

void RowReader::open_yuv(const Roi& roi) {
  channels_ = 4;
  bgr_ = ChannelOrder{{0, 1, 2}};
  ready_ = false;
  first_x_ = roi.x0 / 2 * 2;
  lead_ = roi.x0 - first_x_;
  row_bytes_ = 8 * static_cast<std::size_t>((roi.x1 - first_x_ + 1) / 2);
}

YuvRow RowReader::yuv_row(int y) const {
  const std::ptrdiff_t step = image_.pixel_stride;
  const std::ptrdiff_t pair = first_x_ / 2;
  YuvRow row;
  row.y = image_.data + y * image_.row_stride + first_x_ * step;
  row.y_step = step;
  row.chroma_step = 2 * step;
  if (image_.format == PixelFormat::kYuyv) {
    row.u = row.y + image_.channel_stride;
    row.v = row.u + step;
  } else if (image_.format == PixelFormat::kNv12) {
    row.u = image_.data + (image_.height + y / 2) * image_.row_stride + pair * 2 * step;
    row.v = row.u + step;
  } else {
    const auto chroma = [&](int index) {
      return image_.data + (image_.height + index / 2) * image_.row_stride +
             (index % 2 * (image_.width / 2) + pair) * step;
    };
    row.u = chroma(y / 2);
    row.v = chroma(image_.height / 2 + y / 2);
    row.chroma_step = step;
  }
  return row;
}

void RowReader::unpack(int y, std::uint8_t* out) const {
  const std::uint8_t* row = origin_ + y * image_.row_stride;
  if (channels_ == 1) return unpack_row<1>(row, image_, width_, out);
  if (channels_ == 3) return unpack_row<3>(row, image_, width_, out);
  unpack_row<4>(row, image_, width_, out);
}

const std::uint8_t* RowReader::prepared_row(int y) {
  const std::size_t slot = static_cast<std::size_t>(y) % row_in_slot_.size();
  std::uint8_t* out = slots_.data() + slot * row_bytes_;
  if (row_in_slot_[slot] != y) {
    if (yuv_)
      kernels_->yuv_to_pixels(yuv_row(first_y_ + y), static_cast<int>(row_bytes_ / 8), out);
    else
      unpack(y, out);
    row_in_slot_[slot] = y;
  }
  return out + 4 * lead_;
}

const std::uint8_t* RowReader::row(int y) { return ready_ ? origin_ + y * image_.row_stride : prepared_row(y); }

}  // namespace edgepose
