#include "core/letterbox_kernels.hpp"
#include "core/letterbox_kernels.inl"

namespace edgepose {
namespace {

void weigh_rows(const std::uint8_t* const* rows, const std::int16_t* weights, int taps, std::int16_t* out, int n) {
  weigh_rows_from(0, rows, weights, taps, out, n);
}

void sample_columns(const std::int16_t* row, const ColumnTable& table, std::uint8_t* pixels) {
  sample_columns_from(0, row, table, pixels);
}

void copy_columns(const std::uint8_t* row, int channels, int n, std::uint8_t* pixels) {
  copy_columns_from(0, row, channels, n, pixels);
}

void planar_uint8(const std::uint8_t* pixels, int n, int byte, std::uint8_t flip, std::uint8_t* out) {
  planar_uint8_from(0, pixels, n, byte, flip, out);
}

void packed_uint8(const std::uint8_t* pixels, int n, const ChannelOrder& order, std::uint8_t flip, std::uint8_t* out) {
  packed_uint8_from<4>(0, pixels, n, order, flip, out);
}

void reordered_uint8(const std::uint8_t* row, int n, const ChannelOrder& order, std::uint8_t flip, std::uint8_t* out) {
  packed_uint8_from<3>(0, row, n, order, flip, out);
}

}  // namespace

const LetterboxKernels& letterbox_kernels_plain() {
  static constexpr LetterboxKernels kKernels = {
      {},      blend_rows_any, weigh_rows,   sample_columns, copy_columns, yuv_to_pixels_any, pixels_to_gray_any,
      nullptr, nullptr,        planar_uint8, nullptr,        packed_uint8, reordered_uint8,
  };
  return kKernels;
}

const LetterboxKernels& letterbox_kernels(SimdLevel level) {
  switch (level) {
#if defined(__aarch64__)
    case SimdLevel::kNeon:
      return letterbox_kernels_neon();
#elif defined(__x86_64__)
    case SimdLevel::kAvx2:
      return letterbox_kernels_avx2();
    case SimdLevel::kAvx512:
      return letterbox_kernels_avx512();
#endif
    default:
      return letterbox_kernels_plain();
  }
}

}  // namespace edgepose
