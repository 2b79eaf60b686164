#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <stdexcept>
#include <vector>

#include "check.hpp"
#include "core/letterbox.hpp"

using namespace edgepose;

namespace {

using Random = std::mt19937;

int draw(Random& random, int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); }

constexpr PixelFormat kFormats[] = {PixelFormat::kBgr,  PixelFormat::kRgb,  PixelFormat::kBgra, PixelFormat::kRgba,
                                    PixelFormat::kGray, PixelFormat::kNv12, PixelFormat::kI420, PixelFormat::kYuyv};

// A picture that ends where its memory ends, so that a sanitizer sees every step too far.
struct Picture {
  std::vector<std::uint8_t> bytes;
  ImageView view;
};

Picture random_picture(Random& random, PixelFormat format, int width, int height) {
  const bool planar = format == PixelFormat::kNv12 || format == PixelFormat::kI420;
  const int bytes = bytes_per_pixel(format);
  const int rows = planar ? height * 3 / 2 : height;
  const int pixel_stride = bytes + (draw(random, 0, 3) == 0 ? draw(random, 1, 2) : 0);
  const int row_stride = pixel_stride * width + draw(random, 0, 1) * draw(random, 1, 40);
  Picture picture;
  picture.bytes.resize(static_cast<std::size_t>(row_stride) * (rows - 1) + pixel_stride * (width - 1) + bytes);
  for (std::uint8_t& byte : picture.bytes) byte = static_cast<std::uint8_t>(random());
  picture.view = {picture.bytes.data(), format, width, height, row_stride, pixel_stride, 1};
  const bool reversible = !planar && format != PixelFormat::kYuyv;
  if (reversible && draw(random, 0, 3) == 0) {
    picture.view.data += static_cast<std::ptrdiff_t>(row_stride) * (height - 1);
    picture.view.row_stride = -row_stride;
  }
  if (reversible && draw(random, 0, 3) == 0) {
    picture.view.data += static_cast<std::ptrdiff_t>(pixel_stride) * (width - 1);
    picture.view.pixel_stride = -pixel_stride;
  }
  if (reversible && bytes > 1 && draw(random, 0, 3) == 0) {
    picture.view.data += bytes - 1;
    picture.view.channel_stride = -1;
  }
  return picture;
}

Roi random_roi(Random& random, int width, int height) {
  if (draw(random, 0, 1) == 0) return {0, 0, width, height};
  const int x0 = draw(random, 0, width - 1);
  const int y0 = draw(random, 0, height - 1);
  return {x0, y0, draw(random, x0 + 1, width), draw(random, y0 + 1, height)};
}

LetterboxOptions random_options(Random& random) {
  LetterboxOptions options;
  options.mode = draw(random, 0, 1) == 0 ? ResizeMode::kLetterbox : ResizeMode::kStretch;
  options.center = draw(random, 0, 1) == 0;
  options.antialias = draw(random, 0, 2) == 0;
  options.layout = draw(random, 0, 1) == 0 ? Layout::kNchw : Layout::kNhwc;
  options.color = static_cast<ModelColor>(draw(random, 0, 2));
  const std::size_t channels = options.color == ModelColor::kGray ? 1 : 3;
  options.mapping.mean.assign(channels, draw(random, 0, 1) == 0 ? 0.0F : 117.3F);
  options.mapping.std.assign(channels, draw(random, 0, 1) == 0 ? 255.0F : 57.4F);
  options.mapping.scale = draw(random, 0, 1) == 0 ? 1.0 / 255 : 0.017;
  options.mapping.zero_point = draw(random, -128, 127);
  return options;
}

LetterboxOptions levels_options() {
  LetterboxOptions options;
  options.layout = Layout::kNhwc;
  options.color = ModelColor::kBgr;
  options.mapping.mean.assign(3, 0.0F);
  options.mapping.std.assign(3, 1.0F);
  return options;
}

struct Output {
  std::vector<std::uint8_t> bytes;
  OutputView view;
  Output(int width, int height, int channels, ElementType type)
      : bytes(static_cast<std::size_t>(width) * height * channels * element_size(type), 0xA5),
        view{bytes.data(), type, width, height} {}
};

std::uint8_t channel_at(const ImageView& image, int x, int y, int c) {
  return image.data[y * image.row_stride + x * image.pixel_stride + c * image.channel_stride];
}

// Bilinear sampling in double precision: pixel centres at + 0.5, edges repeated.
double bilinear_reference(const ImageView& image, const Roi& roi, double x, double y, int c) {
  x = std::clamp(x, 0.0, roi.width() - 1.0);
  y = std::clamp(y, 0.0, roi.height() - 1.0);
  const int x0 = static_cast<int>(x);
  const int y0 = static_cast<int>(y);
  const int x1 = std::min(x0 + 1, roi.width() - 1);
  const int y1 = std::min(y0 + 1, roi.height() - 1);
  const auto at = [&](int px, int py) { return channel_at(image, roi.x0 + px, roi.y0 + py, c); };
  const double top = at(x0, y0) + (x - x0) * (at(x1, y0) - at(x0, y0));
  const double bottom = at(x0, y1) + (x - x0) * (at(x1, y1) - at(x0, y1));
  return top + (y - y0) * (bottom - top);
}

}  // namespace

// The levels' integer arithmetic rounds down twice by up to a quarter, weights have 11 bits: see test_letterbox.py for
// the very levels.
TEST(letterbox_levels_are_bilinear_and_padding_is_114) {
  Random random(1);
  Letterbox letterbox(levels_options());
  for (int round = 0; round < 60; ++round) {
    const Picture picture = random_picture(random, PixelFormat::kBgr, draw(random, 1, 80), draw(random, 1, 80));
    const Roi roi = random_roi(random, picture.view.width, picture.view.height);
    Output out(draw(random, 1, 70), draw(random, 1, 70), 3, ElementType::kUint8);
    const Transform transform = letterbox(picture.view, roi, out.view);
    const Placement placed =
        place(ResizeMode::kLetterbox, true, roi.width(), roi.height(), out.view.width, out.view.height);
    double worst = 0.0;
    for (int y = 0; y < out.view.height; ++y)
      for (int x = 0; x < out.view.width; ++x)
        for (int c = 0; c < 3; ++c) {
          const bool inside =
              x >= placed.left && x < placed.left + placed.width && y >= placed.top && y < placed.top + placed.height;
          const double source_x = (x + 0.5 - transform.pad_x) / transform.scale_x - 0.5 - roi.x0;
          const double source_y = (y + 0.5 - transform.pad_y) / transform.scale_y - 0.5 - roi.y0;
          const double wanted = inside ? bilinear_reference(picture.view, roi, source_x, source_y, c) : 114.0;
          worst = std::max(worst, std::abs(out.bytes[(y * out.view.width + x) * 3 + c] - wanted));
        }
    CHECK(worst <= 1.1);
  }
}

TEST(letterbox_levels_of_the_processor_give_the_plain_bits) {
  Random random(2);
  const SimdLevel before = simd_level();
  for (int round = 0; round < 600; ++round) {
    const PixelFormat format = kFormats[draw(random, 0, 7)];
    const int width = draw(random, 1, 60) * 2;
    const int height = draw(random, 1, 60) * 2;
    const Picture picture = random_picture(random, format, width, height);
    const Roi roi = random_roi(random, width, height);
    const LetterboxOptions options = random_options(random);
    const auto type = static_cast<ElementType>(draw(random, 0, 3));
    const int out_width = draw(random, 0, 3) == 0 ? roi.width() : draw(random, 1, 90);
    const int out_height = draw(random, 0, 3) == 0 ? roi.height() : draw(random, 1, 90);
    std::vector<std::uint8_t> wanted;
    for (SimdLevel level : available_simd_levels()) {
      set_simd_level(level);
      Letterbox letterbox(options);
      Output out(out_width, out_height, letterbox.channels(), type);
      letterbox(picture.view, roi, out.view);
      if (wanted.empty()) wanted = out.bytes;
      CHECK(out.bytes == wanted);
    }
  }
  set_simd_level(before);
}

TEST(letterbox_kept_buffers_do_not_show_in_the_answer) {
  Random random(3);
  for (int object = 0; object < 12; ++object) {
    const LetterboxOptions options = random_options(random);
    Letterbox kept(options);
    for (int round = 0; round < 25; ++round) {
      const int width = draw(random, 1, 50) * 2;
      const int height = draw(random, 1, 50) * 2;
      const Picture picture = random_picture(random, kFormats[draw(random, 0, 7)], width, height);
      const Roi roi = random_roi(random, width, height);
      const auto type = static_cast<ElementType>(draw(random, 0, 3));
      Output out(draw(random, 1, 40), draw(random, 1, 40), kept.channels(), type);
      Output fresh = Output(out.view.width, out.view.height, kept.channels(), type);
      std::fill(fresh.bytes.begin(), fresh.bytes.end(), std::uint8_t{0});
      kept(picture.view, roi, out.view);
      Letterbox{options}(picture.view, roi, fresh.view);
      CHECK(out.bytes == fresh.bytes);
    }
  }
}

TEST(letterbox_survives_extreme_shapes) {
  Random random(4);
  const int sizes[][2] = {{1, 1}, {1, 10000}, {10000, 1}, {2, 4096}, {4096, 2}, {3, 3}};
  for (const auto& size : sizes)
    for (bool antialias : {false, true}) {
      LetterboxOptions options = levels_options();
      options.antialias = antialias;
      Picture picture = random_picture(random, PixelFormat::kBgr, size[0], size[1]);
      std::fill(picture.bytes.begin(), picture.bytes.end(), std::uint8_t{77});
      Output out(33, 17, 3, ElementType::kUint8);
      Letterbox{options}(picture.view, {0, 0, size[0], size[1]}, out.view);
      const Placement placed = place(ResizeMode::kLetterbox, true, size[0], size[1], 33, 17);
      const auto flat = std::count(out.bytes.begin(), out.bytes.end(), std::uint8_t{77});
      const auto padding = std::count(out.bytes.begin(), out.bytes.end(), std::uint8_t{114});
      CHECK(flat == 3L * placed.width * placed.height);
      CHECK(flat + padding == static_cast<std::ptrdiff_t>(out.bytes.size()));
    }
}

TEST(antialiased_weights_add_up_exactly) {
  for (int source : {2, 7, 100, 641, 5000})
    for (int out : {1, 3, 64, 99}) {
      const TriangleAxis axis = triangle_axis(source, out);
      for (int i = 0; i < out; ++i) {
        int sum = 0;
        for (int tap = 0; tap < axis.taps; ++tap) sum += axis.weights[static_cast<std::size_t>(i) * axis.taps + tap];
        CHECK(sum == TriangleAxis::kWeightOne);
      }
    }
}

TEST(half_precision_rounds_to_nearest_even) {
  CHECK(float_to_half(0.0F) == 0x0000);
  CHECK(float_to_half(-0.0F) == 0x8000);
  CHECK(float_to_half(1.0F) == 0x3C00);
  CHECK(float_to_half(-2.5F) == 0xC100);
  CHECK(float_to_half(1.0F + 1.0F / 2048) == 0x3C00);
  CHECK(float_to_half(1.0F + 3.0F / 2048) == 0x3C02);
  CHECK(float_to_half(65504.0F) == 0x7BFF);
  CHECK(float_to_half(65520.0F) == 0x7C00);
  CHECK(float_to_half(std::ldexp(1.0F, -24)) == 0x0001);
  CHECK(float_to_half(std::ldexp(1.0F, -25)) == 0x0000);
  CHECK(float_to_half(std::ldexp(1.0F, -14)) == 0x0400);
  CHECK(float_to_half(std::numeric_limits<float>::infinity()) == 0x7C00);
  CHECK(float_to_half(std::numeric_limits<float>::quiet_NaN()) == 0x7E00);
}

TEST(letterbox_refuses_options_that_do_not_fit) {
  const auto refused = [](auto change) {
    LetterboxOptions options = levels_options();
    change(options);
    try {
      Letterbox letterbox(options);
    } catch (const std::invalid_argument&) {
      return true;
    }
    return false;
  };
  CHECK(refused([](LetterboxOptions& options) { options.mapping.mean.pop_back(); }));
  CHECK(refused([](LetterboxOptions& options) { options.mapping.std[1] = 0.0F; }));
  CHECK(refused([](LetterboxOptions& options) { options.mapping.scale = -1.0; }));
  CHECK(refused([](LetterboxOptions& options) { options.pad_value = -1; }));
  CHECK(!refused([](LetterboxOptions&) {}));
}
