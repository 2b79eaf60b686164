#include "core/letterbox_antialias.hpp"

#include <algorithm>

namespace edgepose {

void AntialiasSampler::prepare(const PictureSizes& sizes) {
  sizes_ = sizes;
  rows_ = triangle_axis(sizes.source_height, sizes.height);
  prepare_columns(triangle_axis(sizes.source_width, sizes.width));
  tap_rows_.resize(static_cast<std::size_t>(rows_.taps));
  const std::size_t past_the_end = 2U * static_cast<std::size_t>(column_table_.tap_pairs) * sizes.channels + kRowSlack;
  blended_.reserve(static_cast<std::size_t>(sizes.source_width) * sizes.channels + past_the_end);
}

void AntialiasSampler::prepare_columns(const TriangleAxis& columns) {
  const int count = sizes_.width;
  const int padded = (count + kColumnBlock - 1) / kColumnBlock * kColumnBlock;
  const int pairs = (columns.taps + 1) / 2;
  const int lanes = sizes_.lanes();
  const std::size_t column_weights = 2U * static_cast<std::size_t>(pairs) * static_cast<std::size_t>(lanes);
  column_offsets_.reserve(static_cast<std::size_t>(padded));
  column_weights_.reserve(static_cast<std::size_t>(padded) * column_weights);
  for (int i = 0; i < padded; ++i) {
    const int column = std::min(i, count - 1);  // the columns past the end repeat the last one
    column_offsets_[i] = columns.first[column] * sizes_.channels;
    const std::int16_t* taps = columns.weights.data() + static_cast<std::ptrdiff_t>(column) * columns.taps;
    std::int16_t* to = column_weights_.data() + static_cast<std::size_t>(i) * column_weights;
    for (int tap = 0; tap < 2 * pairs; tap += 2)
      for (int lane = 0; lane < lanes; ++lane) {
        *to++ = taps[tap];
        *to++ = tap + 1 < columns.taps ? taps[tap + 1] : std::int16_t{0};
      }
  }
  column_table_ = {count, sizes_.channels, pairs, column_offsets_.data(), column_weights_.data()};
}

void AntialiasSampler::sample(int y, RowReader& reader, const LetterboxKernels& kernels, std::uint8_t* pixels) {
  const int last = sizes_.source_height - 1;
  for (int tap = 0; tap < rows_.taps; ++tap) tap_rows_[tap] = reader.row(std::min(rows_.first[y] + tap, last));
  const std::int16_t* weights = rows_.weights.data() + static_cast<std::ptrdiff_t>(y) * rows_.taps;
  kernels.weigh_rows(tap_rows_.data(), weights, rows_.taps, blended_.data(), sizes_.source_width * sizes_.channels);
  kernels.sample_columns(blended_.data(), column_table_, pixels);
}

}  // namespace edgepose
